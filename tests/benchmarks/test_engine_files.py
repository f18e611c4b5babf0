"""OpenVINO's files of the full-size U-Net: of these versions and settings, whole or not there."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import engine_files
from benchmarks.engine_files import full_size_files

MADE = {engine_files.FLOAT32: b"float", engine_files.EIGHT: b"eight"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, *_: object) -> None:
        for name, content in MADE.items():
            (folder / name).write_bytes(content)

    monkeypatch.setattr(engine_files, "_write", write)
    monkeypatch.setattr(engine_files, "version", {"nncf": "3", "openvino": "1", "torch": "2"}.get)


def made(cache: Path) -> Path:
    folder = full_size_files(None, (), cache)  # type: ignore[arg-type]
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == MADE
    assert folder.parent == cache and "unfinished" not in folder.name
    return folder


def test_the_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(tmp_path / "new")
    monkeypatch.setattr(engine_files, "_write", None)
    assert made(tmp_path / "new") == first and list(first.parent.iterdir()) == [first]


@pytest.mark.parametrize("what", ["nncf", "openvino", "torch", "quantisation", "network", "config"])
def test_other_versions_and_settings_have_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    first = made(tmp_path)
    assert made(tmp_path) == first
    if what in engine_files.PACKAGES:
        monkeypatch.setattr(engine_files, "version", lambda name: "9" if name == what else "1")
    elif what == "config":
        monkeypatch.setattr(engine_files, "V15", SimpleNamespace(unet="another"))
    else:
        folder = tmp_path / "code"
        folder.mkdir()
        (folder / "changed.py").write_text("SMOOTH = 0.6", encoding="utf-8")
        module = "quantization" if what == "quantisation" else "unet_module"
        stub = SimpleNamespace(__file__=str(folder / "changed.py"))
        monkeypatch.setattr(engine_files, module, stub)
    assert made(tmp_path) != first


def test_a_run_that_ends_early_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, *_: object) -> None:
        (folder / engine_files.FLOAT32).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine_files, "_write", fail)
        with pytest.raises(KeyboardInterrupt):
            full_size_files(None, (), tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    made(tmp_path)


def test_the_cache_is_no_folder_of_results() -> None:
    """It is one that git ignores."""
    root = Path(engine_files.__file__).resolve().parents[1]
    assert root / "runs" / "benchmarks" == engine_files.CACHE
    assert "runs/" in (root / ".gitignore").read_text(encoding="utf-8").splitlines()
