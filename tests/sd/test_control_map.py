"""Maps for a ControlNet: edges where the image has them, colours of classes, images as they are."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from sd.control_map import canny, given, of_scene, semantic, shapes
from sd.shapes.data import described
from sd.shapes.semantic import PALETTE, class_map


def square(side: int = 64, low: int = 16, high: int = 48) -> Image.Image:
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[low:high, low:high] = (200, 120, 255)
    return Image.fromarray(pixels)


def test_edges_are_where_the_square_ends() -> None:
    pytest.importorskip("skimage")
    found = np.asarray(canny(square(), 64, 64))
    assert found.shape == (64, 64, 3) and set(np.unique(found)) == {0, 255}
    rows, columns = np.nonzero(found[..., 0])
    border = np.maximum(abs(rows - 31.5), abs(columns - 31.5))  # 16 from the centre
    assert len(rows) > 100 and (abs(border - 16) <= 1.5).all()
    assert not np.asarray(canny(Image.new("RGB", (64, 64), "red"), 64, 64)).any()
    faint = Image.fromarray((np.asarray(square()) * 0.05).astype(np.uint8))
    assert not np.asarray(canny(faint, 64, 64)).any()
    assert np.asarray(canny(faint, 64, 64, low=0.005, high=0.01)).any()


def test_edges_are_of_the_fitted_image() -> None:
    pytest.importorskip("skimage")
    wide = Image.new("RGB", (256, 128))
    wide.paste(square(128, 32, 96), (64, 0))  # cropped to the centre, halved
    found, wanted = (np.asarray(one) for one in (canny(wide, 64, 64), canny(square(), 64, 64)))
    assert found.shape == wanted.shape
    assert (found != wanted).mean() < 0.02


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ({"low": 0.3, "high": 0.2}, "low, high: wanted 0 <= low <= high"),
        ({"low": -0.1}, "low, high: wanted 0 <= low <= high"),
        ({"sigma": 0.0}, "sigma: wanted a number above 0"),
    ],
)
def test_other_thresholds_are_refused(words: dict[str, float], fault: str) -> None:
    pytest.importorskip("skimage")
    with pytest.raises(ValueError, match=fault):
        canny(square(), 64, 64, **words)


def test_without_scikit_image_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"canny: wanted scikit-image, by pip install .*control"):
        canny(square(), 64, 64)


def test_a_given_map_keeps_every_pixel_or_is_refused() -> None:
    image = square()
    assert np.array_equal(np.asarray(given(image, 64, 64)), np.asarray(image))
    assert given(image.convert("L"), 64, 64).mode == "RGB"
    with pytest.raises(ValueError, match=r"^image: wanted a map of 64 x 32 pixels.* got .*64 x 64"):
        given(image, 64, 32)


def test_classes_have_their_colours() -> None:
    labels = np.array([[0, 2], [1, 1]])
    colours = [(0, 0, 0), (120, 7, 255), (4, 5, 6)]
    found = np.asarray(semantic(labels, colours))
    assert found.tolist() == [[[0, 0, 0], [4, 5, 6]], [[120, 7, 255], [120, 7, 255]]]
    for wrong in (labels + 1, labels - 1):
        with pytest.raises(ValueError, match=r"labels: wanted classes in 0..2, for which there"):
            semantic(wrong, colours)
    for bad in ([], [(0, 0)], [(0, 0, 256)], [(0, 0, -1)]):
        with pytest.raises(ValueError, match="colours: wanted some colours of three"):
            semantic(labels * 0, bad)


def test_a_map_of_a_scene_has_the_colours_of_its_classes() -> None:
    scene, _ = described(0, 3)
    found = of_scene(scene, 48)
    table = np.array(list(PALETTE.values()))
    assert np.array_equal(np.asarray(found), table[class_map(scene, 48)])
    assert np.array_equal(np.asarray(shapes(found, 48, 48)), np.asarray(found))


def test_a_map_of_shapes_takes_the_nearest_colours_or_names_the_option() -> None:
    image = of_scene(described(0, 3)[0])
    near = Image.fromarray((np.asarray(image) * 0.9).astype(np.uint8))
    assert np.array_equal(np.asarray(shapes(near, 64, 64)), np.asarray(image))
    with pytest.raises(ValueError, match=r"^the map: wanted a map of 64 x 32 pixels"):
        shapes(image, 64, 32, "the map")
    faint = Image.fromarray((np.asarray(image) * 0.5).astype(np.uint8))
    with pytest.raises(ValueError, match=r"^the map: wanted colors of classes .* in row \d+, col"):
        shapes(faint, 64, 64, "the map")
