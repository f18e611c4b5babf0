"""Folders of captioned images: three layouts of the same; every fault in one line."""

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sd.train.folder import Folder, read_folder
from tests.support.captioned import captioned, picture

SIDE = 8


def quiet(path: Path) -> Folder:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_folder(path, SIDE)


@pytest.mark.parametrize("layout", ["metadata.csv", "metadata.jsonl", "captions.txt"])
def test_the_layouts_give_the_same_images_and_captions(layout: str, tmp_path: Path) -> None:
    """A comma in a caption, an image with two, and an image in a folder inside."""
    said = {"b.png": ["a cat, sitting"], "in/a.png": ["one", "two"]}
    found = quiet(captioned(tmp_path, said, layout))
    assert found.names == ("b.png", "in/a.png") and len(found) == 2
    assert found.captions == (("a cat, sitting",), ("one", "two"))
    for index, name in enumerate(found.names):
        assert np.array_equal(found.image(index), np.asarray(Image.open(tmp_path / name)))
    assert found.image(0).dtype == np.uint8 and found.image(0).shape == (SIDE, SIDE, 3)


def test_an_image_is_scaled_to_cover_the_square_and_cropped_at_its_centre(tmp_path: Path) -> None:
    """A strip of three squares of 16 pixels: the middle one remains."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    strip = np.repeat(np.repeat(colours[None], 16, axis=1), 16, axis=0)
    captioned(tmp_path, {"a.png": ["a"], "b.png": ["b"]})
    Image.fromarray(strip).save(tmp_path / "a.png")
    found = quiet(tmp_path).image(0).astype(int)
    assert np.abs(found[:, 2:-2] - [0, 255, 0]).max() <= 5  # Lanczos overshoots at an edge


def test_images_that_are_not_kept_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = quiet(captioned(tmp_path))
    monkeypatch.setattr("sd.train.folder.KEPT", 0)
    read = quiet(tmp_path)
    assert kept._kept and not read._kept
    assert all(np.array_equal(kept.image(i), read.image(i)) for i in range(len(kept)))
    assert kept.fingerprint == read.fingerprint


def test_the_fingerprint_is_of_pixels_captions_and_size(tmp_path: Path) -> None:
    first = read_folder(captioned(tmp_path / "1"), SIDE).fingerprint
    assert read_folder(captioned(tmp_path / "2"), SIDE).fingerprint == first
    assert read_folder(tmp_path / "1", SIDE - 1).fingerprint != first
    said = {"a.png": ["another"], "b.png": ["b"], "c.png": ["c"]}
    assert read_folder(captioned(tmp_path / "3", said), SIDE).fingerprint != first
    Image.fromarray(picture(99)).save(tmp_path / "2" / "a.png")
    assert read_folder(tmp_path / "2", SIDE).fingerprint != first


def write(name: str, content: bytes | str) -> Callable[[Path], object]:
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)


def small(folder: Path) -> None:
    Image.fromarray(picture(0, SIDE - 1)).save(folder / "b.png")


def broken(folder: Path) -> None:
    raw = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(raw[: len(raw) // 2])


def both(folder: Path) -> None:
    write("captions.txt", "a.png\ta\n")(folder)
    write("metadata.jsonl", "")(folder)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no captions": (lambda f: (f / "metadata.csv").unlink(), "wanted one of metadata.csv, "),
    "two lists": (both, "got metadata.csv and metadata.jsonl and captions.txt"),
    "0 bytes": (write("b.png", b""), "1 file of 0 bytes (b.png)"),
    "cut": (broken, "1 image that cannot be read (b.png ("),
    "text": (write("b.png", "no image"), "b.png (is no image in a format of PNG"),
    "small": (small, "1 image smaller than --size 8 (b.png (7 x 7))"),
    "bare": (write("d.png", b""), "1 image without a caption (d.png)"),
    "missing": (
        lambda f: (f / "b.png").unlink(),
        "1 file in the captions that does not exist (b.png)",
    ),
    "one image": (
        lambda f: captioned(f, {"a.png": ["a"]}),
        "1 image with a caption, wanted 2 or more (a.png)",
    ),
    "none": (write("metadata.csv", "file_name,text\n"), "0 images with a caption, wanted 2"),
    "columns": (write("metadata.csv", "file,text\na.png,a\n"), "wanted the columns file_name"),
    "two columns": (write("metadata.csv", "file_name,text,caption\n"), "one of text, caption"),
    "quotes": (
        write("metadata.csv", 'file_name,text\na.png,"a\n'),
        "metadata.csv:1: unexpected end of data",
    ),
    "comma": (
        write("metadata.csv", "file_name,text\na.png,a\nb.png,b, c\nc.png,c\n"),
        "1 line without a caption (or with a comma outside quotes) (metadata.csv:3)",
    ),
    "empty caption": (
        write("metadata.csv", "file_name,text\na.png, \nb.png,b\nc.png,c\n"),
        "1 line without a caption (or with a comma outside quotes) (metadata.csv:2)",
    ),
    "outside": (
        write("metadata.csv", "file_name,text\na.png,a\nb.png,b\nc.png,c\n../d.png,d\n"),
        "1 line without the name of a file in the folder (metadata.csv:5)",
    ),
    "latin-1": (write("metadata.csv", "file_name,text\na.png,caf\xe9".encode("latin-1")), "UTF-8"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_one_line(case: str, tmp_path: Path) -> None:
    spoil, words = FAULTS[case]
    spoil(captioned(tmp_path))
    with pytest.raises(ValueError, match=r"^--data ") as caught:
        quiet(tmp_path)
    said = str(caught.value)
    assert words in said and "\n" not in said


def test_all_faults_of_a_folder_are_named_at_once(tmp_path: Path) -> None:
    captioned(tmp_path, {f"{i}.png": [str(i)] for i in range(8)})
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(b"")
    (tmp_path / "7.png").unlink()
    (tmp_path / "z.png").touch()
    with pytest.raises(ValueError, match=r"z\.png") as caught:
        quiet(tmp_path)
    said = str(caught.value).removeprefix(f"--data {tmp_path}: ")
    assert said == (
        "1 file in the captions that does not exist (7.png); 1 image without a caption (z.png); "
        "5 files of 0 bytes (0.png, 1.png, 2.png and 2 more)"
    )


@pytest.mark.parametrize("line", ["[]", "{", '{"file_name": 3, "text": "a"}', '{"text": "a"}'])
def test_a_faulty_line_of_json_is_named(line: str, tmp_path: Path) -> None:
    captioned(tmp_path, layout="metadata.jsonl")
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ValueError, match=r"1 line without the name .*\(metadata.jsonl:4\)"):
        quiet(tmp_path)


@pytest.mark.parametrize("text", [3, None, [], ["a", ""], {"a": 1}, "a\0b", "\ud800"])
def test_a_caption_of_json_is_text(text: object, tmp_path: Path) -> None:
    captioned(tmp_path, layout="metadata.jsonl")
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write(json.dumps({"file_name": "a.png", "text": text}) + "\n")
    with pytest.raises(ValueError, match=r"1 line without a caption \(metadata.jsonl:4\)"):
        quiet(tmp_path)


def test_other_modes_are_converted_with_one_notice(tmp_path: Path) -> None:
    """Palette, grey, alpha and CMYK; where a pixel is transparent it is white."""
    captioned(tmp_path, {f"{name}": [name] for name in ("l.png", "p.png", "a.png", "c.tif")})
    Image.new("L", (8, 8), 100).save(tmp_path / "l.png")
    Image.fromarray(picture(1)).quantize(4).save(tmp_path / "p.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.tif")
    with pytest.warns(UserWarning, match="--data") as given:
        found = read_folder(tmp_path, SIDE)
    (one,) = given
    assert str(one.message) == (
        f"--data {tmp_path}: 4 of 4 images are converted to RGB (1 CMYK, 1 L, 1 P, 1 RGBA); "
        "transparent pixels become white"
    )
    shown = {name: found.image(i)[0, 0].tolist() for i, name in enumerate(found.names)}
    assert shown["l.png"] == [100, 100, 100] and shown["a.png"] == [255, 255, 255]
    assert shown["c.tif"] == [255, 0, 0]


def test_what_is_not_read_is_named_once(tmp_path: Path) -> None:
    captioned(tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / ".hidden").touch()
    with (tmp_path / "metadata.csv").open() as file:
        rows = file.read().splitlines()
    extended = [rows[0] + ",width", *(f"{row},8" for row in rows[1:])]
    (tmp_path / "metadata.csv").write_text("\n".join(extended))
    with pytest.warns(UserWarning, match="not read") as given:
        read_folder(tmp_path, SIDE)
    assert [str(one.message).partition(": ")[2] for one in given] == [
        "files not read: README.md",
        "columns not read: width",
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    captioned(tmp_path)
    (tmp_path / "b.png").unlink()
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"1 file in the captions that does not exist \(b.png\)"):
        quiet(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wanted a folder of images"):
        read_folder(tmp_path / "nothing", SIDE)
