"""The pixels of image files of every depth and kind, against their formats' specifications."""

import io
import itertools
import struct
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from experiments.generate.png_metadata import embedded, opened
from sd.files.color import rgb
from sd.files.image_file import open_image
from sd.files.image_tensor import fit, read_image
from tests.support import image_writers as write


def levels(content: bytes) -> list[list[int]]:
    """The RGB levels of all pixels of a file, row after row."""
    return np.asarray(rgb(open_image(content))).reshape(-1, 3).tolist()


def stored(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@st.composite
def pngs(draw: st.DrawFn) -> tuple[bytes, np.ndarray]:
    """A PNG of any colour type and depth, perhaps with a transparent colour, and its RGB levels."""
    color = draw(st.sampled_from([0, 2, 4, 6]))
    depth = draw(st.sampled_from([1, 2, 4, 8, 16] if color == 0 else [8, 16]))
    width, height = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    top = 2**depth - 1
    # Few values, near one another in either byte: a pixel may equal the colour in one byte alone.
    few = st.sampled_from([v for v in (0, 1, 2, 258, 259, 514, top) if v <= top])
    count = width * height * channels
    samples = np.array(draw(st.lists(few, min_size=count, max_size=count)))
    pixels = samples.reshape(-1, channels)
    more, opaque = [], np.ones(len(pixels))
    if color in (0, 2) and draw(st.booleans()):
        key = pixels[draw(st.integers(0, len(pixels) - 1))]
        more = [write.chunk(b"tRNS", struct.pack(f">{channels}H", *key))]
        opaque = (pixels != key).any(-1).astype(float)
    if color in (4, 6):
        opaque, pixels = pixels[:, -1] / top, pixels[:, :-1]
    colors = np.broadcast_to(pixels, (len(pixels), 3)) / top * 255
    return (
        write.png(color, depth, samples.tolist(), (width, height), *more),
        opaque[:, None] * colors + (1 - opaque[:, None]) * 255,
    )


@given(pngs())
def test_a_png_of_any_kind(made: tuple[bytes, np.ndarray]) -> None:
    """Within a level for the 16 bits that Pillow cuts to 8, and one for each rounded product."""
    content, wanted = made
    assert abs(np.array(levels(content)) - wanted).max() <= 2


def test_a_transparent_colour_of_16_bits_is_compared_in_all_of_them() -> None:
    same = [0x1234, 0x5678, 0x9ABC]
    near = [[*same[:i], same[i] ^ bit, *same[i + 1 :]] for i in range(3) for bit in (1, 0x100)]
    key = write.chunk(b"tRNS", struct.pack(">3H", *same))
    found = levels(write.png(2, 16, [*same, *itertools.chain(*near)], (7, 1), key))
    assert found[0] == [255, 255, 255]
    assert abs(np.array(found[1:]) - np.array([0x12, 0x56, 0x9A])).max() <= 1
    grey = write.chunk(b"tRNS", struct.pack(">H", 0x1234))
    found = levels(write.png(0, 16, [0x1234, 0x1235, 0x1334, 0], (4, 1), grey))
    assert [one[0] for one in found] == [255, 18, 19, 0]


def test_a_palette_with_levels_of_transparency() -> None:
    more = write.chunk(b"PLTE", bytes([0, 0, 0, 200, 0, 0, 0, 0, 100, 9, 9, 9]))
    alphas = write.chunk(b"tRNS", bytes([255, 0, 128]))
    found = np.array(levels(write.png(3, 2, [0, 1, 2, 3], (2, 2), more, alphas)))
    wanted = [[0, 0, 0], [255] * 3, [127, 127, 177], [9, 9, 9]]
    assert abs(found - np.array(wanted)).max() <= 1


DEEP = {
    "16 bits": (struct.pack("<3H", 0, 257 * 200, 65535), 16, 1, 1, "<"),
    "16 bits, other order": (struct.pack(">3H", 0, 257 * 200, 65535), 16, 1, 1, ">"),
    "16 bits, white is zero": (struct.pack("<3H", 65535, 257 * 55, 0), 16, 0, 1, "<"),
    "12 bits": (bytes([0x00, 0x0C, 0x8C, 0xFF, 0xF0]), 12, 1, 1, "<"),
    "8 bits, white is zero": (bytes([255, 55, 0]), 8, 0, 1, "<"),
    "floats": (struct.pack("<3f", 0, 200 / 255, 1), 32, 1, 3, "<"),
    "floats, other order": (struct.pack(">3f", 0, 200 / 255, 1), 32, 1, 3, ">"),
    "floats, white is zero": (struct.pack("<3f", 1, 55 / 255, 0), 32, 0, 3, "<"),
}


@pytest.mark.parametrize("case", DEEP)
def test_deep_grey_of_a_tiff(case: str, tmp_path: Path) -> None:
    samples, *rest = DEEP[case]
    content = write.tiff(samples, (3, 1), *rest)
    assert levels(content) == [[v] * 3 for v in (0, 200, 255)]
    (tmp_path / "x.tiff").write_bytes(content)
    assert np.asarray(read_image(tmp_path / "x.tiff"))[0, :, 0].tolist() == [0, 200, 255]


UNKNOWN = {
    "floats above 1": (struct.pack("<3f", 0, 0.5, 1.5), 32, 1, 3),
    "floats below 0": (struct.pack("<3f", -0.1, 0.5, 1), 32, 1, 3),
    "levels as floats": (struct.pack("<3f", 0, 100, 255), 32, 1, 3),
    "no number": (struct.pack("<3f", 0, float("nan"), 1), 32, 1, 3),
    "infinite": (struct.pack("<3f", 0, float("inf"), 1), 32, 1, 3),
    "32 bits": (struct.pack("<3I", 0, 100, 2**32 - 1), 32, 1, 1),
    "32 bits with a sign": (struct.pack("<3i", 0, 100, 255), 32, 1, 2),
    "16 bits with a sign": (struct.pack("<3h", 0, 100, 255), 16, 1, 2),
    "8 bits with a sign": (struct.pack("<3b", -5, 0, 100), 8, 1, 2),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_samples_whose_white_nothing_tells_are_refused(case: str, tmp_path: Path) -> None:
    samples, *rest = UNKNOWN[case]
    path = tmp_path / "x.tiff"
    path.write_bytes(write.tiff(samples, (3, 1), *rest))
    with pytest.raises(ValueError, match=r"x\.tiff.*: wanted .*samples .*, got "):
        read_image(path)


def test_floats_and_integers_of_pillow() -> None:
    ramp = np.array([[0, 0.25, 1]], dtype=np.float32)
    assert np.asarray(rgb(Image.fromarray(ramp)))[0, :, 0].tolist() == [0, 64, 255]
    for wide in (ramp * 255, ramp.astype(np.int32)):
        with pytest.raises(ValueError, match=r"image: wanted .*samples"):
            rgb(Image.fromarray(wide))


def test_a_portable_graymap_of_16_bits() -> None:
    deep = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 257 * 100, 65535)
    assert levels(deep) == [[v] * 3 for v in (0, 100, 255)]
    assert levels(b"P5 3 1 1000\n" + struct.pack(">3H", 0, 500, 1000))[1] == [128] * 3


def matrix(color: tuple[int, int, int]) -> np.ndarray:
    """Display P3 to sRGB by its definition: linear light, the 3 x 3 matrix, sRGB's curve; cut."""
    v = np.array(color) / 255
    light = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    turned = np.array([
        [1.22494, -0.22494, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]
    ]) @ light  # fmt: skip
    cut = turned.clip(0, 1)
    shown = np.where(cut <= 0.0031308, 12.92 * cut, 1.055 * cut ** (1 / 2.4) - 0.055)
    return np.asarray(shown * 255)


@pytest.mark.parametrize("color", [(60, 200, 60), (200, 60, 60), (60, 60, 200), (128, 128, 128)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_display_p3_becomes_srgb(kind: str, color: tuple[int, int, int]) -> None:
    """Source of the matrix: CSS Color 4, sample code of the conversions."""
    more = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    plain = Image.new("RGB", (16, 16), color)
    content = stored(plain, kind, icc_profile=write.DISPLAY_P3, **more)
    assert abs(np.array(levels(content)) - matrix(color)).max() <= (4 if kind == "JPEG" else 2)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "LA"])
def test_a_profile_in_other_modes(mode: str) -> None:
    """Transparent parts stay white; grey in P3's neutral axis is grey."""
    grey = mode in ("L", "LA")
    color = (128, 128, 128) if grey else (60, 200, 60)
    layer = Image.new("RGBA", (4, 2), (*color, 255))
    layer.putpixel((3, 1), (9, 9, 9, 0 if mode in ("RGBA", "LA") else 255))
    content = stored(layer.convert(mode), icc_profile=write.DISPLAY_P3)
    found = np.array(levels(content))
    assert abs(found[0] - matrix(color)).max() <= 2
    if mode in ("RGBA", "LA"):
        assert found[-1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_a_profile_of_grey(gamma: float) -> None:
    content = stored(Image.new("L", (2, 2), 100), icc_profile=write.gray_profile(gamma))
    light = (100 / 255) ** gamma
    wanted = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert abs(np.array(levels(content)) - wanted).max() <= 2


def test_srgb_changes_no_pixel() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = stored(Image.fromarray(noise), icc_profile=own)
    assert np.array_equal(np.array(levels(content)), noise.reshape(-1, 3))


def test_a_profile_is_applied_once(tmp_path: Path) -> None:
    """What has been read is fitted, kept in settings and read from them without another change."""
    path = tmp_path / "p3.png"
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, icc_profile=write.DISPLAY_P3)
    once = read_image(path)
    for again in (rgb(once), fit(once, 8, 8), opened(embedded(once))):
        assert np.array_equal(np.asarray(again), np.asarray(once)) and again.info == {}
    with Image.open(path) as own:  # a picture that the user opened himself
        assert np.array_equal(np.asarray(fit(own, 8, 8)), np.asarray(once))


CMYK_PROFILE = bytearray(write.DISPLAY_P3)
CMYK_PROFILE[16:20] = b"CMYK"
PROFILES = {
    "no profile": b"no profile",
    "cut short": write.DISPLAY_P3[:200],
    "of another space": write.gray_profile(2.2),
    "of CMYK": bytes(CMYK_PROFILE),
}


@pytest.mark.parametrize("case", PROFILES)
def test_a_damaged_profile_is_named(case: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(stored(Image.new("RGB", (2, 2), (60, 200, 60)), icc_profile=PROFILES[case]))
    with pytest.warns(UserWarning, match=r"x\.png: its colour profile is ignored"):
        found = read_image(path)
    assert found.getpixel((0, 0)) == (60, 200, 60)


def test_a_profile_that_can_t_be_unpacked_is_named() -> None:
    content = write.png(2, 8, [60, 200, 60], (1, 1), write.chunk(b"iCCP", b"x\0\0no zlib"))
    with pytest.warns(UserWarning, match="its colour profile is ignored"):
        assert levels(content) == [[60, 200, 60]]


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 1 / 2.2])
def test_a_gamma_without_a_profile_is_named(gamma: float) -> None:
    """PNG specification, gAMA: the exponent times 100000. sRGB's is 45455."""
    said = write.chunk(b"gAMA", struct.pack(">I", round(gamma * 1e5)))
    told = pytest.warns(UserWarning, match=r"^image: its gamma of .* taken for sRGB")
    with nullcontext() if gamma == 1 / 2.2 else told:
        assert levels(write.png(2, 8, [10, 20, 30], (1, 1), said)) == [[10, 20, 30]]
    srgb = write.chunk(b"sRGB", b"\0")  # counts before it
    assert levels(write.png(2, 8, [10, 20, 30], (1, 1), said, srgb)) == [[10, 20, 30]]


@pytest.mark.parametrize("index", ["R03", "R98"])
def test_adobe_rgb_of_a_camera_is_named(index: str) -> None:
    """DCF 2.0: the interoperability index R03 is Adobe RGB, R98 sRGB."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: index}
    content = stored(Image.new("RGB", (8, 8), (90, 90, 90)), "JPEG", exif=exif)
    told = pytest.warns(UserWarning, match=r"^image: Adobe RGB.* taken for sRGB")
    with told if index == "R03" else nullcontext():
        assert levels(content)[0] == [90, 90, 90]


def test_cmyk() -> None:
    """Without a profile by its complement; a file of Adobe's has it inverted, and says so."""
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("TIFF", "JPEG"):
        assert abs(np.array(levels(stored(ink, kind))) - np.array([255, 0, 0])).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_a_turned_image_of_every_kind(kind: str, mode: str, tmp_path: Path) -> None:
    """Dark on top as the tag says; orientation 6 asks for a quarter turn."""
    if mode == "I;16" and kind in ("JPEG", "WEBP"):
        pytest.skip("8 bits only")
    ramp = np.repeat(np.array([[40], [200]], dtype=np.uint16), 8, 0).repeat(16, 1)
    upright = Image.fromarray(ramp * 257 if mode == "I;16" else ramp.astype(np.uint8))
    upright = upright.convert(mode) if mode == "RGB" else upright
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.bin"
    path.write_bytes(stored(upright.transpose(Image.Transpose.ROTATE_90), kind, exif=exif))
    found = np.asarray(read_image(path)).astype(int)
    assert found.shape == (16, 16, 3)
    assert abs(found[:6] - 40).max() <= 4 and abs(found[-6:] - 200).max() <= 4


EXIF = {
    "no header": b"XX*\0\x08\0\0\0",
    "cut short": b"MM\0*\0\0",
    "tags that end beyond it": b"MM\0*\0\0\0\x08\0\xff"
    + b"\x01\x0e\0\x02\0\xff\0\0\xff\0\0\0" * 40,
}


@pytest.mark.parametrize("case", EXIF)
def test_damaged_exif_costs_the_turn_alone(case: str, tmp_path: Path) -> None:
    """And one warning, however many tags are damaged."""
    path = tmp_path / "x.png"
    path.write_bytes(write.png(2, 8, [60, 200, 60], (1, 1), write.chunk(b"eXIf", EXIF[case])))
    with pytest.warns(UserWarning, match=r"^image .*x\.png: ") as given:
        assert read_image(path).getpixel((0, 0)) == (60, 200, 60)
    assert len(given) == 1
