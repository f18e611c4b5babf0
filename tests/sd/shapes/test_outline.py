import math

import pytest

from sd.shapes.outline import HALF_EXTENT, POLYGONS, area
from sd.shapes.scene import SHAPES, SIZES

CLOSED_FORM = {
    "circle": math.pi,
    "square": math.pi,
    "triangle": 3 * math.sqrt(3) / 4 * 1.3**2,
    "star": 5 * math.sin(math.pi / 5) * 0.45 * 1.3**2,
    "ring": math.pi * (1.05**2 - 0.58**2),
    "cross": (8 * 0.36 - 4 * 0.36**2) * 1.05**2,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_areas_are_the_closed_forms(shape: str) -> None:
    assert area(shape) == pytest.approx(CLOSED_FORM[shape], rel=1e-12)


@pytest.mark.parametrize("shape", sorted(POLYGONS))
def test_bounding_boxes_are_centred_and_mirror_symmetric(shape: str) -> None:
    corners = POLYGONS[shape]
    width, height = HALF_EXTENT[shape]
    assert corners.min(axis=0) == pytest.approx([-width, -height], abs=1e-12)
    assert corners.max(axis=0) == pytest.approx([width, height], abs=1e-12)
    mirrored = sorted((round(-x, 9) + 0.0, round(y, 9) + 0.0) for x, y in corners)
    assert mirrored == sorted((round(x, 9) + 0.0, round(y, 9) + 0.0) for x, y in corners)


def test_any_large_shape_covers_more_than_any_small_one() -> None:
    areas = [area(shape) for shape in SHAPES]
    small, large = SIZES["small"] * 1.05, SIZES["large"] * 0.95
    assert min(areas) * large**2 > 1.5 * max(areas) * small**2
