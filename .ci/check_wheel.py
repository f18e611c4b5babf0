"""Check a wheel in an environment of its own: `check_wheel.py PYTHON ASSETS README`.

PYTHON is an interpreter that has the wheel and its dependencies, and no extra. ASSETS holds the
NUL-separated names of the files that the wheel must carry. The snippets of README, `import
diffusion_math` and `diffusion-math generate` run there, in a folder that has an `experiments/` of
its own. Exits 1 with one line for the first thing that is wrong.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FORBIDDEN = ("transformers", "diffusers", "matplotlib", "PIL", "sd", "experiments")
ABSENT = ("pytest", "diffusers", "transformers", "openvino", "sphinx", "beartype")
"""Of the extras: an environment that has one of them shows nothing."""

LOADED = f"""
import sys, pathlib, importlib.util
import diffusion_math
print(pathlib.Path(diffusion_math.__file__).resolve().parents[1])
print(*[name for name in {FORBIDDEN} if name in sys.modules])
print(*[name for name in {ABSENT} if importlib.util.find_spec(name)])
print(diffusion_math.__version__)
"""


def run(command: Sequence[str], folder: Path, what: str) -> str:
    """What the command prints; ends the program where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"wheel: {what} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def main(python: str, listing: Path, readme: Path) -> None:
    names = [name for name in listing.read_text().split("\0") if name]
    if not any(name.endswith(".safetensors") for name in names):
        sys.exit("wheel: the checkout tracks no weights under sd/assets")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "experiments").mkdir()
        (folder / "experiments" / "__init__.py").write_text("raise SystemExit('not this one')\n")
        command = [python, "-I", "-c", LOADED]  # -I: the folder is not on the path
        site, brought, extra, version = run(command, folder, "import diffusion_math").split("\n")[
            :4
        ]
        lost = [one for one in names if not (Path(site) / one).is_file()]
        for fault, found in (("not carried", lost), ("brought", brought), ("there", extra)):
            if found:
                sys.exit(f"wheel: {fault}: {found}")
        snippets = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.S)
        for number, snippet in enumerate(snippets, 1):
            run([python, "-I", "-c", snippet], folder, f"snippet {number} of README")
        script = str(Path(python).with_name("diffusion-math"))
        words = ["generate", "--prompt", "a red circle", "--steps", "4", "--out", "images"]
        run([script, *words], folder, "diffusion-math generate")
        if not list((folder / "images").glob("*.png")):
            sys.exit("wheel: diffusion-math generate left no image")
    counts = f"{len(names)} assets; {len(snippets)} snippets and diffusion-math generate run"
    sys.stdout.write(f"wheel: {version} carries {counts}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
