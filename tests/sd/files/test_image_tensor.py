"""Pictures as users have them: any mode, any size, turned, transparent, broken, or none at all."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sd.files.image_tensor import fit, from_tensor, read_image, rgb, to_tensor

COLORS = np.array([[(220, 40, 40), (50, 90, 220)], [(0, 0, 0), (245, 205, 40)]], dtype=np.uint8)
FOUR = Image.fromarray(COLORS)


def stored(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)
    return path


def pixels(picture: Image.Image) -> np.ndarray:
    assert picture.mode == "RGB"
    return np.asarray(picture)


@given(arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 2, st.just(3))), st.integers(1, 3))
def test_bytes_to_numbers_and_back_is_exact(raw: np.ndarray, batch: int) -> None:
    x = to_tensor([Image.fromarray(raw)] * batch)
    assert x.shape == (batch, 3, *raw.shape[:2]) and x.dtype == torch.float32
    assert x[0, :, 0, 0].tolist() == pytest.approx((raw[0, 0] / 127.5 - 1).tolist(), abs=1e-6)
    for wide in (x, x.double()):
        assert [pixels(each).tobytes() for each in from_tensor(wide)] == [raw.tobytes()] * batch


def test_numbers_beyond_the_range_are_cut_and_wild_ones_refused() -> None:
    x = torch.tensor([-9.0, -1.0, 0.0, 1.0, 1.001, 300.0]).reshape(1, 1, 1, 6).expand(1, 3, 1, 6)
    (cut,) = from_tensor(x)
    assert pixels(cut)[0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]
    for wild in (math.nan, math.inf, -math.inf):
        with pytest.raises(FloatingPointError, match=r"^float32 image: not finite; try a lower"):
            from_tensor(torch.full((1, 3, 2, 2), wild))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.integers(1, 24))
def test_fit_gives_the_size_and_keeps_a_plain_picture_plain(w: int, h: int, W: int, H: int) -> None:
    fitted = fit(Image.new("RGB", (w, h), (220, 40, 40)), W, H)
    assert fitted.size == (W, H)
    assert (pixels(fitted) == (220, 40, 40)).all()


@given(arrays(np.uint8, st.tuples(*[st.integers(1, 12)] * 2, st.just(3))))
def test_a_picture_of_that_size_comes_back_as_it_is(raw: np.ndarray) -> None:
    assert np.array_equal(pixels(fit(Image.fromarray(raw), raw.shape[1], raw.shape[0])), raw)


@pytest.mark.parametrize("turned", [False, True])
def test_the_overhang_is_cut_off_evenly(turned: bool) -> None:
    """Black ends of 25 pixels on either side of a 50 x 50 middle: cover, centre, no squeezing."""
    strip = np.zeros((50, 100, 3), dtype=np.uint8)
    strip[:, 25:75] = 200
    picture = Image.fromarray(strip.transpose(1, 0, 2) if turned else strip)
    assert (pixels(fit(picture, 50, 50)) == 200).all()
    assert (pixels(fit(picture, 10, 10)) > 180).all()  # Lanczos rings a little at the cut


def test_lanczos_halves_without_aliasing() -> None:
    """A checkerboard of single pixels becomes plain gray; picking neighbours would keep it."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    inner = pixels(fit(Image.fromarray(board), 16, 16))[2:-2, 2:-2]
    assert abs(inner.astype(int) - 127.5).max() < 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    source = FOUR.convert("L") if mode in "1L" else FOUR
    found = pixels(rgb(source.quantize(4) if mode == "P" else source.convert(mode)))
    assert found.shape == (2, 2, 3)
    if mode in ("P", "RGB", "CMYK"):
        assert abs(found.astype(int) - COLORS).max() <= 1
    if mode == "L":
        assert np.array_equal(found[..., 0], np.asarray(FOUR.convert("L")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(mode: str, tmp_path: Path) -> None:
    """Alpha 0, 255 and 128 over black: white, black, the middle. A palette has 0 and 255 only."""
    black = np.zeros((1, 3, 4), dtype=np.uint8)
    black[0, :, 3] = (0, 255, 0 if mode == "P" else 128)
    layer = Image.fromarray(black)
    if mode == "P":
        layer = Image.fromarray(np.array([[1, 0, 1]], dtype=np.uint8), "L").convert("P")
        layer.putpalette([0, 0, 0, 9, 9, 9])
        path = stored(layer, tmp_path / "picture.png", transparency=1)
    else:
        path = stored(layer.convert(mode), tmp_path / "picture.png")
    found = pixels(read_image(path))[0, :, 0].tolist()
    assert found == [255, 0, 255 if mode == "P" else 127]


def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    path = stored(Image.fromarray(deep), tmp_path / "deep.png")
    assert pixels(read_image(path))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_set_upright(orientation: int, tmp_path: Path) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # the tag asks for 270 degrees: stored turned by 90
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14)
    turned = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = stored(turned, tmp_path / "turned.png", exif=exif)
    assert np.array_equal(pixels(read_image(path)), np.asarray(upright))


def test_of_an_animation_the_first(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    path = stored(first, tmp_path / "two.gif", save_all=True, append_images=[second])
    assert (pixels(read_image(path)) == (255, 0, 0)).all()


@pytest.mark.parametrize(
    "size",
    [(1, 1), (10_000, 1), (1, 10_000), pytest.param((10_000, 10_000), marks=pytest.mark.slow)],
)
def test_one_pixel_or_ten_thousand(size: tuple[int, int], tmp_path: Path) -> None:
    path = stored(Image.new("L", size, 77), tmp_path / "gray.png")
    fitted = fit(read_image(path), 64, 64)
    assert fitted.size == (64, 64) and (pixels(fitted) == 77).all()


def one_line(path: Path, kind: type[Exception] = ValueError) -> str:
    with pytest.raises(kind) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    assert "is missing" in one_line(tmp_path / "none.png", FileNotFoundError)
    one_line(tmp_path)
    path = tmp_path / "words.png"
    for raw in (b"", b"a red circle", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM" + b"\x00" * 60):
        path.write_bytes(raw)
        one_line(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_picture_is_named_wherever_it_ends(kind: str, tmp_path: Path) -> None:
    raw = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(raw, kind)
    path = tmp_path / "cut.bin"
    whole = raw.getvalue()
    for part in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        one_line(path)
