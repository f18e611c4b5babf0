"""Image files: which formats are opened, by what, and that nothing is done before the bounds."""

import ast
import os
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin

from sd.files import image_file
from sd.files.image_file import FORMATS, open_image
from tests.support import image_writers as write

ROOT = Path(__file__).resolve().parents[3]

EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n"
    b"(proof) (w) file closefile\nshowpage\n"
)
OTHERS: dict[str, bytes] = {
    "EPS": EPS,
    "EPS in a DOS wrapper": b"\xc5\xd0\xd3\xc6"
    + struct.pack("<7I", 32, len(EPS), 0, 0, 0, 0, 0)
    + EPS,
    "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(200),
    "EMF": b"\x01\x00\x00\x00" + bytes(36) + b" EMF" + bytes(200),
    "PDF": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
    "GRIB": b"GRIB\x00\x00\x00\x01" + bytes(200),
    "BUFR": b"BUFR" + bytes(200),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(200),
    "MPEG": b"\x00\x00\x01\xb3" + bytes(200),
}
"""Files of formats that Pillow hands to an interpreter or a stub, or that are programs."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The programs that are started meanwhile."""
    found: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            found.append(str(arguments[0]))

    sys.addaudithook(watch)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it has not looked for one yet
    yield found
    watching = False


def test_all_formats_that_pillow_knows(tmp_path: Path, started: list[str]) -> None:
    """Those of the list are read under any name, all others are refused under any name."""
    Image.init()
    assert set(FORMATS) < set(Image.OPEN)
    read, refused = set(), set()
    for kind in sorted({*Image.OPEN, *Image.SAVE}):
        content = write.encoded(kind)
        if content is None:
            continue
        for name in ("x.png", "x.eps", f"x.{kind.lower()}"):
            (tmp_path / name).write_bytes(content)
            for source in (tmp_path / name, content):
                try:
                    open_image(source)
                    read.add(kind)
                except ValueError:
                    refused.add(kind)
    assert started == []
    assert refused >= {"EPS", "PDF", "ICO", "ICNS", "TGA", "JPEG2000", "SPIDER"}
    # MPO is JPEG to a decoder, DIB a BMP without its file header.
    assert set(FORMATS) <= read <= {*FORMATS, "MPO"}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.eps", "x.wmf"])
def test_what_is_interpreted_is_refused(
    kind: str, name: str, tmp_path: Path, started: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(OTHERS[kind])
    for source in (path, OTHERS[kind]):
        with pytest.raises(ValueError, match=r"is no image in a format|cannot be read"):
            open_image(source)
    assert started == [] and list(tmp_path.iterdir()) == [path]


def openers(root: Path) -> list[str]:
    """Every way to Pillow's opener in the packages, and other packages' readers of images."""
    found = []
    for room in ("diffusion_math", "sd", "experiments", "benchmarks"):
        for path in sorted((root / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                at = f"{path.relative_to(root)}"
                if isinstance(node, ast.Attribute):
                    base = ast.unparse(node.value)
                    if (node.attr == "open" and base.endswith("Image")) or node.attr == "imread":
                        found.append(at)
                elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("PIL"):
                    names = {alias.name for alias in node.names}
                    renamed = any(alias.name == "Image" and alias.asname for alias in node.names)
                    if renamed or names & {"open", "ImageFile", "EpsImagePlugin"}:
                        found.append(at)
                elif isinstance(node, ast.Import):
                    found += [at for alias in node.names if alias.name.startswith("PIL")]
    return found


def test_one_function_opens_images(tmp_path: Path) -> None:
    assert set(openers(ROOT)) == {str(Path("sd/files/image_file.py"))}
    wrong = (
        "from PIL import Image\nImage.open(x)\n",
        "from PIL.Image import open\n",
        "from PIL import Image as I\nI.open(x)\n",
        "import PIL.Image\nPIL.Image.open(x)\n",
        "import matplotlib.pyplot as plt\nplt.imread(x)\n",
    )
    (tmp_path / "sd").mkdir()
    for text in wrong:
        (tmp_path / "sd" / "a.py").write_text(text, encoding="utf-8")
        assert openers(tmp_path) != []


@pytest.mark.parametrize("kind", FORMATS)
def test_a_huge_image_is_refused_by_its_header(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(write.huge(kind))
    before = time.perf_counter()
    with pytest.raises(ValueError, match=r"x\.bin cannot be read: .* pixels"):
        open_image(path)
    assert time.perf_counter() - before < 2


def test_a_portable_map_of_decimal_numbers_is_refused_at_once() -> None:
    """Pillow takes a minute for 1 MiB of comments."""
    before = time.perf_counter()
    with pytest.raises(ValueError, match=r"cannot be read: a PPM in plain text"):
        open_image(b"P3 1 1 255\n" + b"#\n" * 2**19 + b"1 2 3")
    assert time.perf_counter() - before < 2


def test_the_limit_on_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write.encoded("PNG")
    assert content is not None
    monkeypatch.setattr(image_file, "MOST_PIXELS", 64 * 64)
    assert open_image(content).size == (64, 64)
    monkeypatch.setattr(image_file, "MOST_PIXELS", 64 * 64 - 1)
    with pytest.raises(ValueError, match="64 x 64 pixels, more than 4095"):
        open_image(content)


@pytest.mark.parametrize("place", ["before", "after", "both"])
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt"])
def test_a_png_with_long_texts_is_read(kind: bytes, place: str) -> None:
    """An editor keeps its workflow there: 2 MB, and more in several."""
    text = b"x" * 2_000_000
    packed = {
        b"zTXt": b"workflow\0\0" + zlib.compress(text),
        b"iTXt": b"workflow\0\1\0\0\0" + zlib.compress(text),
        b"tEXt": b"workflow\0" + text,
    }[kind]
    some = write.chunk(kind, packed)
    content = write.png(2, 8, [1, 2, 3], (1, 1), *([some] * 3 if place != "after" else []))
    if place != "before":
        content = content[:-12] + some * 3 + content[-12:]
    found = open_image(content)
    assert found.getpixel((0, 0)) == (1, 2, 3)
    assert len(found.info["workflow"]) == 2_000_000
    assert PngImagePlugin.MAX_TEXT_CHUNK < 2_000_000  # the library's own limit is as it was


def test_a_png_whose_texts_are_a_bomb_is_refused() -> None:
    """100 MB of text from 100 KB, in one and in several."""
    for count, size in ((1, 100_000_000), (10, 10_000_000)):
        some = write.chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(size)))
        before = time.perf_counter()
        with pytest.raises(ValueError, match=r"image cannot be read: .*(large|memory)"):
            open_image(write.png(2, 8, [1, 2, 3], (1, 1), *[some] * count))
        assert time.perf_counter() - before < 3
    assert PngImagePlugin.MAX_TEXT_CHUNK < 2_000_000


@pytest.mark.parametrize("case", ["folder", "FIFO", "/dev/zero", "/dev/full", "large", "no name"])
def test_what_is_no_regular_file_is_refused_at_once(case: str, tmp_path: Path) -> None:
    path = Path(case) if case.startswith("/") else tmp_path / "x.png"
    if case == "folder":
        path.mkdir()
    elif case == "FIFO":
        os.mkfifo(path)
    elif case == "large":
        path.write_bytes(write.encoded("PNG") or b"")
        os.truncate(path, image_file.MOST_BYTES + 1)
    elif case == "no name":
        path = tmp_path / ("x" * 300)
    with pytest.raises(ValueError, match=r"^--image: .* (can't be read: |has 1073741825 bytes)"):
        open_image(path, "--image:")
    with pytest.raises(FileNotFoundError, match=r"^image .*none\.png is missing"):
        open_image(tmp_path / "none.png")
