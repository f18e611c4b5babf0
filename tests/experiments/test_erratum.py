"""What is said of one erratum, and the bounds it is judged by."""

import io
import math

import pytest
from PIL import Image

from experiments.common.statistics import variance_interval
from experiments.errata.erratum import Erratum, slope_bound, variance_off
from experiments.output.result import FAILS, HOLDS, Measurement
from experiments.plots import DPI
from experiments.plots.charts import Axis, Chart, line


def test_an_erratum_is_told_in_one_line() -> None:
    said = Erratum(
        "E9", "C99", "a", "b", "A thing", 0.5, (0.4, 0.6), 0.12345, 7.0, "its bound", (), "", "", {}
    )
    claim = (
        "E9 (C99), printed: a; true: b. A thing. In units of its bound, the true form is off by "
        "0.123, the printed one by 7"
    )
    assert said.row() == Measurement("errata-E9", claim, 0.5, (0.4, 0.6), HOLDS)


@pytest.mark.parametrize(
    ("true", "printed", "verdict"), [(1, 1.1, HOLDS), (1.1, 2, FAILS), (0, 1, FAILS)]
)
def test_a_verdict_wants_one_form_within_the_bound(
    true: float, printed: float, verdict: str
) -> None:
    said = Erratum("E9", "C99", "a", "b", "c", 0.5, None, true, printed, "d", (), "", "", {})
    assert said.verdict == verdict


@pytest.mark.parametrize(("proxy", "weight", "chance"), [(0.25, 16.0, 1e-2), (3.0, 0.5, 1e-8)])
def test_a_slope_strays_beyond_its_bound_with_the_chance_of_a_tail(
    proxy: float, weight: float, chance: float
) -> None:
    """Sub-Gaussian with proxy / weight: the chance is 2 exp(-d^2 weight / (2 proxy))."""
    d = slope_bound(proxy, weight, chance)
    assert 2 * math.exp(-(d**2) * weight / (2 * proxy)) == pytest.approx(chance)


def test_a_variance_at_an_end_of_its_interval_is_off_by_one() -> None:
    low, high = variance_interval(2.0, 50, 1e-3)
    assert low < 2 < high
    for form, off in ((low, 1.0), (high, 1.0), (2.0, 0.0), ((2 + high) / 2, 0.5)):
        assert variance_off(2.0, form, 50, 1e-3) == pytest.approx(off)


@pytest.mark.parametrize("height", [3.0, 6.0])
def test_the_figure_has_the_size_of_its_charts_and_128_colors(height: float) -> None:
    """6.3 inches a chart; margins are trimmed."""
    chart = Chart("", Axis("x"), Axis("y"), [line("a line", [0, 1], [0, 1])])
    said = Erratum(
        "E9", "C99", "a", "b", "c", 0.5, None, 0, 2, "d", (chart, chart), "said", "seen", {}, height
    )
    assert said.figure.name == "erratum-E9.png"
    assert (said.figure.caption, said.figure.alt) == ("said", "seen")
    with Image.open(io.BytesIO(said.figure.image)) as image:
        inches = [side / DPI for side in image.size]
        assert len(image.palette.colors) == 128
    assert inches == pytest.approx([2 * 6.3, height], abs=0.3)
