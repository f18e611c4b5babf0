"""A project of a few files, to run the checks of a project on."""

from pathlib import Path


def lay(root: Path, **files: str) -> Path:
    """A small project in `root`: `sd__unet="text"` is sd/unet.py."""
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        for folder in path.relative_to(root).parents:
            if folder.parts and not (root / folder / "__init__.py").exists():
                (root / folder / "__init__.py").write_text("", encoding="utf-8")
    return root
