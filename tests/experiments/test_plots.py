"""Every figure: a PNG that is not blank, axes with labels, no setting left behind."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments import plots

PICTURE = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3))
LINE = np.linspace(-3, 3, 41)
BELL = np.exp(-(LINE**2) / 2)

FIGURES: dict[str, Figure] = {}


def drawn(name: str) -> Figure:
    """Each of the figures, on small data."""
    series = plots.Series("a", [1, 2, 3], [0.1, 0.5, 0.4], [0.0, 0.4, 0.3], [0.2, 0.6, 0.5])
    panel = plots.Panel("T", "w (scale)", "share (%)", [series, series], (0, 1), [(0.4, "bar")])
    marked = plots.Panel("T", "w", "y", [plots.Series("b", [1, 2], [1, 2])], marked_x=(2, "here"))
    sample = np.random.default_rng(0).standard_normal((200, 2))
    makers = {
        "curves": lambda: plots.curves([panel, marked]),
        "stacked": lambda: plots.stacked(["cpu"], {"a": [1.0], "b": [20.0]}, "ms", "T"),
        "pixels": lambda: plots.pixel_marginals(["t"], [sample[:, 0]], [(LINE, BELL)]),
        "plane": lambda: plots.plane_marginals(
            ["t = 0", "t"], [sample] * 2, [(LINE, np.outer(BELL, BELL))] * 2, 3.0
        ),
        "gallery": lambda: plots.gallery(
            [[PICTURE, None], [None, PICTURE]], ["r", "s"], ["c"], "T", [[True, None], [None] * 2]
        ),
        "captioned": lambda: plots.captioned([[PICTURE] * 2, [PICTURE]], [["a", "b"], ["c"]],
                                             [[True, False], [None]]),
    }  # fmt: skip
    figure: Figure = makers[name]()
    return figure


@pytest.mark.parametrize("name", ["curves", "stacked", "pixels", "plane", "gallery", "captioned"])
def test_png_is_a_picture_with_something_on_it(name: str) -> None:
    before = dict(mpl.rcParams)
    png = plots.png(drawn(name))
    assert dict(mpl.rcParams) == before
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert min(picture.shape[:2]) > 100
    assert (picture != 255).any(axis=-1).mean() > 0.005


@pytest.mark.parametrize("name", ["curves", "stacked", "pixels", "plane"])
def test_axes_are_labelled(name: str) -> None:
    for number, axes in enumerate(drawn(name).axes):
        assert axes.get_xlabel()
        assert axes.get_ylabel() or number > 0  # panels share the first one's


def test_rows_without_a_first_picture_keep_their_label() -> None:
    axes = drawn("gallery").axes[2]
    assert axes.get_ylabel() == "s"
    assert axes.axison
    assert not axes.images


def test_contours_enclose_their_share() -> None:
    """On a fine lattice of a 2-D normal the level that encloses q of the mass is (1 - q) / 2 pi."""
    line = np.linspace(-6, 6, 601)
    density = np.exp(-(line[:, None] ** 2 + line**2) / 2) / (2 * np.pi)
    levels = plots._mass_levels(density, (0.95, 0.5))
    # One lattice cell more or less at the edge moves the share by its mass, below 1e-4.
    assert levels == pytest.approx([0.05 / (2 * np.pi), 0.5 / (2 * np.pi)], rel=1e-2)


def test_few_decades_have_plain_numbers() -> None:
    """Numbers at 1, 2 and 5 on an axis of one decade, powers of ten on one of three."""
    from experiments.plots.terms import Chart, Line, charts

    few, many = (Line("", [2, 20], [1.0, last], 0, "-") for last in (8.0, 4000.0))
    figure = charts([Chart("", "x", "y", [line], log="xy") for line in (few, many)])
    assert plots.png(figure)  # ticks are known once drawn
    for axes, wanted in zip(figure.axes, ({"1", "2", "5"}, set()), strict=True):
        low, high = axes.get_ylim()
        ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
        shown = {t.label1.get_text() for t in ticks if low <= t.get_loc() <= high}
        assert {one for one in shown if one.isdigit()} == wanted
        assert "10" in {t.label1.get_text() for t in axes.xaxis.get_major_ticks()}
