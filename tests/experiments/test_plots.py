"""Every figure: a PNG that is not blank, axes with labels, no setting left behind."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from diffusion_math.testing.convergence import Fit
from diffusion_math.testing.report import Check
from experiments import plots
from experiments.plots import plane
from experiments.plots.audit import ladders
from experiments.plots.charts import Axis, Chart, Series, estimates, line, side_by_side
from experiments.plots.gallery import image_rows, stacked_bars

PICTURE = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3))
LINE = np.linspace(-3, 3, 41)
BELL = np.exp(-(LINE**2) / 2)

FIGURES: dict[str, Figure] = {}


def drawn(name: str) -> Figure:
    """Each of the figures, on small data."""
    w, share = Axis("w (scale)"), Axis("share (%)", 0, 1)
    series = Series("a", [1, 2, 3], [0.1, 0.5, 0.4], [(0.0, 0.2), (0.4, 0.6), (0.3, 0.5)])
    panel = Chart("T", w, share, [series, series], levels=[(0.4, "bar")])
    marked = Chart("T", w, Axis("y"), [Series("b", [1, 2], [1, 2])], marked_x=(2, "here"))
    bars = Chart("T", w, share, [Series("c", [0, 1, 2], [0.2, 0.8], style="bars"), series])
    sample = np.random.default_rng(0).standard_normal((200, 2))
    cloud = plane.Cloud("t = 0", sample, (LINE, np.outer(BELL, BELL)))
    makers = {
        "charts": lambda: side_by_side([panel, marked]),
        "shared": lambda: side_by_side([panel, bars], legend_columns=2),
        "stacked": lambda: stacked_bars(["cpu"], {"a": [1.0], "b": [20.0]}, "ms", "T"),
        "plane": lambda: plane.clouds([[cloud] * 2, [cloud]], 3.0, names=["r", "s"]),
        "moment": lambda: plane.moment([cloud], 3.0, "T"),
        "gallery": lambda: image_rows(
            [[PICTURE, None], [None, PICTURE]], ["r", "s"], ["c"], "T", [[True, None], [None] * 2]
        ),
        "captioned": lambda: image_rows([[PICTURE] * 2, [PICTURE]],
                                        verdicts=[[True, False], [None]],
                                        texts=[["a", "b"], ["c"]]),
    }  # fmt: skip
    figure: Figure = makers[name]()
    return figure


@pytest.mark.parametrize(
    "name", ["charts", "shared", "stacked", "plane", "moment", "gallery", "captioned"]
)
def test_png_is_a_picture_with_something_on_it(name: str) -> None:
    before = dict(mpl.rcParams)
    png = plots.png(drawn(name))
    assert dict(mpl.rcParams) == before
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert min(picture.shape[:2]) > 100
    assert (picture != 255).any(axis=-1).mean() > 0.005


@pytest.mark.parametrize("name", ["charts", "shared", "stacked", "moment"])
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
    levels = plane.mass_levels(density, (0.95, 0.5))
    # One lattice cell more or less at the edge moves the share by its mass, below 1e-4.
    assert levels == pytest.approx([0.05 / (2 * np.pi), 0.5 / (2 * np.pi)], rel=1e-2)


def test_few_decades_have_plain_numbers() -> None:
    """Numbers at 1, 2 and 5 on an axis of one decade, powers of ten on one of three."""
    x, y = Axis("x", scale="log"), Axis("y", scale="log")
    few, many = (line("", [2, 20], [1.0, last]) for last in (8.0, 4000.0))
    figure = side_by_side([Chart("", x, y, [one]) for one in (few, many)])
    assert plots.png(figure)  # ticks are known once drawn
    for axes, wanted in zip(figure.axes, ({"1", "2", "5"}, set()), strict=True):
        low, high = axes.get_ylim()
        ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
        shown = {t.label1.get_text() for t in ticks if low <= t.get_loc() <= high}
        assert {one for one in shown if one.isdigit()} == wanted
        assert "10" in {t.label1.get_text() for t in axes.xaxis.get_major_ticks()}


def test_intervals_down_to_0_do_not_stretch_a_logarithmic_axis() -> None:
    """Limits from the points alone; where all intervals are above 0 they are in view."""
    y = Axis("y", scale="log")
    for low, wanted in ((-1.0, (0.4, 10.0)), (0.5, None)):
        series = Series("", [1, 2], [1.0, 4.0], [(low, 1.5), (3.0, 5.0)])
        (axes,) = side_by_side([Chart("", Axis("x"), y, [series])]).axes
        if wanted:
            assert axes.get_ylim() == pytest.approx(wanted)
        else:
            assert axes.get_ylim()[0] < low


def test_estimates_have_their_intervals() -> None:
    series = estimates("a", [1, 2], [(3.0, 1.0), (5.0, 0.0)])
    assert list(series.y) == [3.0, 5.0]
    assert np.array(series.ends) == pytest.approx(np.array([[1.04, 4.96], [5, 5]]), abs=1e-3)


def test_a_label_that_series_share_is_in_the_legend_once_and_a_single_one_not_at_all() -> None:
    one, other = line("a", [1, 2], [1, 2]), line("b", [1, 2], [2, 1])
    charts = [Chart("", Axis("x"), Axis("y"), given) for given in ([one, one, other], [one, one])]
    first, second = side_by_side(charts).axes
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["a", "b"]
    assert second.get_legend() is None


def test_a_png_of_few_colours_shows_the_same() -> None:
    whole, few = (
        np.asarray(Image.open(io.BytesIO(plots.png(drawn("charts"), colors))).convert("RGB"))
        for colors in (None, 64)
    )
    assert whole.shape == few.shape
    assert len(np.unique(few.reshape(-1, 3), axis=0)) <= 64
    assert np.abs(whole.astype(int) - few).mean() < 2


def test_errors_are_drawn_beside_the_claimed_order() -> None:
    """On the claimed order the two lines fall together; the slope of the dashed one is claimed."""
    sizes, errors = (0.4, 0.2, 0.1), (0.16, 0.04, 0.01)
    fit = Fit(2.0, 1.9, 2.1, 2.0, 1.0, sizes, errors, False)
    check = Check("ours", "", "euler", "", "order", 1, fit, "sound")
    measured, claimed = ladders([check]).axes[0].lines[:2]
    assert measured.get_ydata().tolist() == list(errors)
    assert np.allclose(claimed.get_ydata(), (0.04, 0.02, 0.01))
