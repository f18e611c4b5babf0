"""Folders of results: made and checked before the work, taken back if it fails."""

from pathlib import Path

import pytest

from sd.files.output_folder import output_folder


def test_output_folder_is_made_and_taken_back(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    with pytest.raises(ZeroDivisionError), output_folder(deep):
        raise ZeroDivisionError
    assert not (tmp_path / "a").exists()
    with output_folder(deep) as folder:
        (folder / "kept").write_text("x", encoding="utf-8")
    with pytest.raises(ZeroDivisionError), output_folder(deep):
        raise ZeroDivisionError
    assert (deep / "kept").exists()


def test_output_folder_refuses_what_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    for path in (file, file / "below"):
        with pytest.raises(ValueError, match="--out: can't write"), output_folder(path):
            pass
