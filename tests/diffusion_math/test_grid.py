"""Grids: every step count, every schedule, both ends exact, and each one's own spacing."""

import math
import re

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from diffusion_math.grid import GRIDS, karras, leading, linspace, trailing, uniform_log_snr
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear

EPS = torch.finfo(torch.float64).eps
CONTINUOUS: list[Schedule] = [VPLinear(), VPCosine(), VE(), RectifiedFlow()]
WHOLE = ("leading", "trailing", "linspace")

each_grid = pytest.mark.parametrize("name", GRIDS)


def check(name: str, schedule: Schedule, steps: int, start: float, end: float) -> torch.Tensor:
    """What every grid owes: steps + 1 nodes, decreasing, the ends exact, each a legal time."""
    grid = GRIDS[name](schedule, steps, start, end)
    assert grid.dtype == torch.float64
    assert grid.shape == (steps + 1,)
    assert bool((grid[1:] < grid[:-1]).all())
    assert grid[-1] == end
    assert grid[0] == start if name != "leading" else grid[0] <= start
    assert bool((schedule.log_snr(grid).diff() > 0).all())
    return grid


@each_grid
@pytest.mark.parametrize("T", [1, 2, 3, 50])
def test_every_step_count_of_a_discrete_schedule(name: str, T: int) -> None:
    schedule = Discrete.linear(T)
    for steps in range(1, T + 1):
        grid = check(name, schedule, steps, T, 0)
        assert name not in WHOLE or torch.equal(grid, grid.round())
        assert torch.equal(grid, GRIDS[name](schedule, steps))  # the defaults are T and 0
    for steps in (0, -1, T + 1):
        with pytest.raises(ValueError, match=r"^steps: wanted"):
            GRIDS[name](schedule, steps)


@each_grid
def test_every_step_count_of_a_thousand(name: str) -> None:
    schedule = Discrete.scaled_linear()
    for steps in {*range(1, 1001, 37), 2, 50, 999, 1000}:
        check(name, schedule, steps, 1000, 0)


@pytest.mark.parametrize("name", GRIDS)
@given(data=st.data())
def test_any_two_whole_ends(name: str, data: st.DataObject) -> None:
    """The image-to-image grids: any 0 <= end < start <= T with every step count in between."""
    schedule = Discrete.cosine(30)
    end = data.draw(st.integers(0, 29))
    start = data.draw(st.integers(end + 1, 30))
    steps = data.draw(st.integers(1, start - end))
    grid = check(name, schedule, steps, start, end)
    assert name not in WHOLE or torch.equal(grid, grid.round())
    with pytest.raises(ValueError, match=r"^steps: wanted"):
        GRIDS[name](schedule, start - end + 1, start, end)


@pytest.mark.parametrize("name", GRIDS)
@given(
    schedule=st.sampled_from(CONTINUOUS),
    steps=st.integers(1, 300),
    share=st.floats(0.5, 1),
    tail=st.floats(0, 0.1),
)
def test_any_two_ends_of_continuous_time(
    name: str, schedule: Schedule, steps: int, share: float, tail: float
) -> None:
    start, end = share * schedule.T, tail * schedule.T
    assume(end == 0 or end > 1e-6)
    check(name, schedule, steps, start, end)
    check(name, schedule, steps, schedule.T, 0)


@given(st.integers(2, 100), st.data())
def test_spacings_by_definition(T: int, data: st.DataObject) -> None:
    """Lin et al. table 2, in indices 0..T-1; ours are those plus 1, then the end node 0."""
    schedule = Discrete.linear(T)
    steps = data.draw(st.integers(2, T))
    index = {
        "leading": [i * (T // steps) for i in reversed(range(steps))],
        "trailing": [round(T * (steps - i) / steps) - 1 for i in range(steps)],
        "linspace": [round((T - 1) * i / (steps - 1)) for i in reversed(range(steps))],
    }
    for name, indices in index.items():
        assert GRIDS[name](schedule, steps).tolist() == [*(i + 1.0 for i in indices), 0.0]
    # The named wrong versions: an index fed as a time, and a last node that is no end.
    assert GRIDS["trailing"](schedule, steps).tolist()[:-1] != index["trailing"]


def test_known_tables() -> None:
    """Stable Diffusion's habits at T = 1000 and 4 steps, one step apart from diffusers' indices."""
    schedule = Discrete.scaled_linear()
    assert leading(schedule, 4).tolist() == [751, 501, 251, 1, 0]
    assert trailing(schedule, 4).tolist() == [1000, 750, 500, 250, 0]
    assert linspace(schedule, 4).tolist() == [1000, 667, 334, 1, 0]


@pytest.mark.parametrize("schedule", [*CONTINUOUS, Discrete.linear()], ids=lambda s: f"{s}"[:9])
@pytest.mark.parametrize("steps", [4, 5, 20])
def test_log_snr_grids_are_uniform_in_their_variable(schedule: Schedule, steps: int) -> None:
    """Between the infinite ends, which stand beyond t_min and t_max: equal differences of log-SNR,
    and of r^(1/7), r = sigma / alpha. Tolerance: the rounding of t near T over its slope."""
    singular = schedule(schedule.T)[0] == 0
    for grid, exponent in ((uniform_log_snr(schedule, steps), 0.0), (karras(schedule, steps), 7.0)):
        inner = grid[int(singular) : -1]
        assert inner[0] == schedule.t_max
        assert inner[-1] == schedule.t_min
        log_snr = schedule.log_snr(inner)
        warped = log_snr if exponent == 0 else torch.exp(-log_snr / 2 / exponent)
        assert torch.allclose(warped.diff(), warped.diff().mean(), rtol=1e-9, atol=0)
        # wrong versions: uniform in sigma^(1/7) without alpha's, or in t
        if len(inner) > 3:  # three nodes may be symmetric about t = 1/2
            assert not torch.allclose(inner.diff(), inner.diff().mean(), rtol=1e-3, atol=0)


def test_karras_is_edm_equation_5() -> None:
    """On VE, t = sigma: sigma_i = (80^(1/7) + i/(n-1) (0.002^(1/7) - 80^(1/7)))^7, sigma_n = 0."""
    n = 18
    a, b = 80 ** (1 / 7), 0.002 ** (1 / 7)
    exact = [(a + i / (n - 1) * (b - a)) ** 7 for i in range(n)] + [0.0]
    assert karras(VE(), n).tolist() == pytest.approx(exact, rel=200 * EPS)
    assert karras(VE(), n, rho=5).tolist() != pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("schedule", [VPCosine(), RectifiedFlow()])
def test_two_infinite_ends(schedule: Schedule) -> None:
    """1, 2 and 3 steps from alpha = 0 to sigma = 0."""
    assert uniform_log_snr(schedule, 1).tolist() == [1, 0]
    assert uniform_log_snr(schedule, 2).tolist() == pytest.approx([1, 0.5, 0], abs=1e-12)
    assert uniform_log_snr(schedule, 3).tolist() == [1, schedule.t_max, schedule.t_min, 0]


@each_grid
@pytest.mark.parametrize(
    ("schedule", "arguments", "message"),
    [
        (VPLinear(), (0,), "steps: "),
        (VPLinear(), (5, 1.5), "start: "),
        (VPLinear(), (5, math.nan), "start: "),
        (VPLinear(), (5, 0.5, 0.5), "end: wanted less than start"),
        (VPLinear(), (5, 0.5, 0.7), "end: wanted less than start"),
        (VPLinear(), (5, 0.5, -0.1), "end: "),
        (Discrete.linear(10), (2, 10, 9), "steps: "),
        (Discrete.linear(10), (2, 5, 0.5), "end: "),
        (Discrete.linear(10), (1, 0.5), "start: "),
    ],
)
def test_illegal_requests(
    name: str, schedule: Schedule, arguments: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=r"^" + message):
        GRIDS[name](schedule, *arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", WHOLE)
def test_whole_grids_want_whole_ends(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape("start: wanted a whole number")):
        GRIDS[name](Discrete.linear(10), 2, 7.5)


@pytest.mark.parametrize("name", sorted(GRIDS.keys() - {"trailing"}))
def test_several_steps_need_a_start_above_t_min(name: str) -> None:
    with pytest.raises(ValueError, match=r"^(start|steps|start, end): "):
        GRIDS[name](VPLinear(), 5, 5e-4)
    assert GRIDS[name](VPLinear(), 1, 5e-4).tolist() == [5e-4, 0]


@pytest.mark.parametrize(
    "schedule", [VPLinear(), VE(), RectifiedFlow(), VPCosine(), Discrete.cosine()], ids=repr
)
def test_every_rho_gives_a_grid_or_is_named(schedule: Schedule) -> None:
    """From the least at which r_max^(1/rho) is a number up to 1e3; below, rho is what is named."""
    least = abs(float(schedule.log_snr(schedule.t_max))) / 1400
    for rho in (1.01 * least, 0.1, 1.0, 1e3):
        nodes = karras(schedule, 6, rho=max(rho, 1e-3))
        assert bool(nodes.isfinite().all()) and bool((nodes.diff() < 0).all())
    if least > 1e-3:
        with pytest.raises(ValueError, match=r"^rho: wanted a number above .*, got \d"):
            karras(schedule, 6, rho=0.99 * least)


def test_illegal_rho_and_counts() -> None:
    for rho in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"^rho: "):
            karras(VE(), 3, rho=rho)
    with pytest.raises(ValueError, match=r"^steps: wanted at most"):
        leading(VPLinear(), 1001)
