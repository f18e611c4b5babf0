"""Strategies reach their corners, give only what is valid, and shrink to the plainest example."""

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear
from diffusion_math.testing import strategies

pytestmark = pytest.mark.usefixtures("unchecked")

SEARCH = settings(max_examples=3000, derandomize=True, database=None)
TABLE = Discrete.linear(9)


def lengths(grid: torch.Tensor) -> torch.Tensor:
    return grid[:-1] - grid[1:]


def deviations(data: GaussianMixture) -> torch.Tensor:
    """Of each component, the largest."""
    C = data.covariances
    full = C.ndim == 3 and C.shape != data.means.shape
    C = C.diagonal(dim1=1, dim2=2) if full else C
    return C.reshape(len(C), -1).amax(1).sqrt()


PLANE = strategies.mixtures(event=(2,))
NARROW = strategies.mixtures(event=(2,), spreads=(0, 0), reach=0)

CORNERS: dict[str, tuple[st.SearchStrategy[Any], Any]] = {
    "betas: one": (strategies.betas(), lambda b: len(b) == 1),
    "betas: the most": (strategies.betas(steps=(1, 9)), lambda b: len(b) == 9),
    "betas: rise": (strategies.betas(), lambda b: len(b) > 2 and bool((b[1:] > b[:-1]).all())),
    "betas: fall": (strategies.betas(), lambda b: len(b) > 2 and bool((b[1:] < b[:-1]).all())),
    "betas: alike": (strategies.betas(), lambda b: len(b) > 2 and len(set(b.tolist())) == 1),
    "betas: the least": (strategies.betas(), lambda b: b[0] == 1e-12),
    "betas: the largest": (strategies.betas(), lambda b: b[-1] == 0.999),
    "schedules: discrete": (strategies.schedules(), lambda s: isinstance(s, Discrete)),
    "schedules: one step": (strategies.schedules(), lambda s: isinstance(s, Discrete) and s.T == 1),
    "schedules: linear": (strategies.schedules(), lambda s: isinstance(s, VPLinear)),
    "schedules: hardly any noise": (
        strategies.schedules(families=["vp_linear"]),
        lambda s: s(s.T)[1] < 0.2,
    ),
    "schedules: cosine": (strategies.schedules(), lambda s: isinstance(s, VPCosine)),
    "schedules: flow": (strategies.schedules(), lambda s: isinstance(s, RectifiedFlow)),
    "schedules: much noise": (strategies.schedules(), lambda s: s.T > 1e3),
    "times: 0": (strategies.times(VPCosine()), lambda t: t == 0),
    "times: T": (strategies.times(VPCosine()), lambda t: t == 1),
    "times: t_min": (strategies.times(VPCosine()), lambda t: t == 1e-3),
    "times: t_max": (strategies.times(VPCosine()), lambda t: t == 1 - 1e-3),
    "times: of a discrete schedule": (strategies.times(TABLE), lambda t: t == 9),
    "grids: one step": (strategies.grids(), lambda g: len(g) == 2),
    "grids: odd": (strategies.grids(), lambda g: len(g) == 8),
    "grids: even": (
        strategies.grids(),
        lambda g: len(g) > 5 and torch.allclose(lengths(g), lengths(g)[0]),
    ),
    "grids: uneven": (
        strategies.grids(),
        lambda g: len(g) > 2 and lengths(g).max() > 9e5 * lengths(g).min(),
    ),
    "grids: every index": (strategies.grids(TABLE), lambda g: len(g) == 10),
    "grids: some indices": (strategies.grids(TABLE), lambda g: 2 < len(g) < 8),
    "events: a number": (strategies.events(), lambda e: e == ()),
    "events: a vector": (strategies.events(), lambda e: len(e) == 1 and e[0] > 1),
    "events: three axes": (strategies.events(), lambda e: len(e) == 3 and math.prod(e) > 8),
    "events: empty": (strategies.events(sides=(0, 4)), lambda e: 0 in e),
    "gaussians: a point": (strategies.gaussians(), lambda d: deviations(d)[0] == 0),
    "gaussians: huge": (strategies.gaussians(), lambda d: deviations(d)[0] == 1e6),
    "mixtures: one": (PLANE, lambda d: len(d.means) == 1),
    "mixtures: the most": (PLANE, lambda d: len(d.means) == 4),
    "mixtures: isotropic": (PLANE, lambda d: d.covariances.ndim == 1),
    "mixtures: diagonal": (PLANE, lambda d: d.covariances.shape == d.means.shape),
    "mixtures: full": (
        PLANE,
        lambda d: d.covariances.ndim == 3 and bool(d.covariances[:, 0, 1].any()),
    ),
    "mixtures: a point beside a wide one": (
        PLANE,
        lambda d: deviations(d).min() == 0 and deviations(d).max() > 1e5,
    ),
    "mixtures: far apart": (PLANE, lambda d: (d.means[0] - d.means[-1]).abs().max() > 1e6),
    "mixtures: at one place": (
        PLANE,
        lambda d: len(d.means) > 1 and torch.equal(d.means[0], d.means[1]),
    ),
    "mixtures: a rare component": (PLANE, lambda d: d.log_weights.min() < -25),
    "mixtures: of a strategy's events": (
        strategies.mixtures(event=st.just((2, 3))),
        lambda d: d.means.shape[1:] == (2, 3),
    ),
}


@pytest.mark.parametrize("name", CORNERS)
def test_a_corner_is_reached(name: str) -> None:
    strategy, there = CORNERS[name]
    assert there(find(strategy, there, settings=settings(SEARCH, phases=[Phase.generate])))


def test_a_corner_that_is_not_there_is_not_found() -> None:
    from hypothesis.errors import NoSuchExample

    with pytest.raises(NoSuchExample):
        find(NARROW, lambda d: bool(d.means.any()), settings=settings(SEARCH, max_examples=200))


def test_failures_shrink_to_the_plainest() -> None:
    def plainest(strategy: st.SearchStrategy[Any], there: Any) -> Any:
        phases = [Phase.generate, Phase.shrink]
        return find(strategy, there, settings=settings(SEARCH, phases=phases))

    assert plainest(strategies.schedules(), lambda s: True) == RectifiedFlow()
    assert plainest(strategies.schedules(), lambda s: s.T > 1) == VE(2.0)
    assert plainest(strategies.betas(), lambda b: len(b) > 1).tolist() == [0.5, 0.5]
    assert plainest(strategies.grids(), lambda g: len(g) > 2).tolist() == [1, 0.5, 0]
    data = plainest(PLANE, lambda d: len(d.means) > 1 and deviations(d).max() > 1)
    assert data.means.tolist() == [[0, 0], [0, 0]] and data.covariances.tolist() == [1, 100]


@given(strategies.betas(steps=(1, 200), values=(1e-16, 1 - 1e-16)))
def test_betas_make_a_schedule(table: torch.Tensor) -> None:
    """Discrete raises for any that are none, those of a product that underflows included."""
    assert len(table) == Discrete(table).T and table.dtype == torch.float64


@given(strategies.schedules(), st.data())
def test_times_and_grids_are_of_the_schedule(schedule: Schedule, data: st.DataObject) -> None:
    t = data.draw(strategies.times(schedule))
    alpha, sigma = schedule(t)
    assert 0 <= alpha <= 1 and sigma >= 0 and (sigma > 0 or t < 1e-3)
    grid = data.draw(strategies.grids(schedule, steps=(1, 6)))
    assert 2 <= len(grid) <= 7 and grid[0] == schedule.T and grid[-1] == 0
    assert bool((lengths(grid) > 0).all()) and grid.dtype == torch.float64
    assert bool((schedule.log_snr(grid).diff() > 0).all())
    assert not isinstance(schedule, Discrete) or torch.equal(grid, grid.round())


@given(strategies.grids(ratio=3, steps=(1, 30)))
def test_a_ratio_bounds_the_lengths(grid: torch.Tensor) -> None:
    assert lengths(grid).max() <= 3 * lengths(grid).min() * (1 + 1e-12)


@given(st.data(), st.integers(1, 9), st.integers(0, 8))
def test_a_grid_has_its_ends(data: st.DataObject, start: int, end: int) -> None:
    if end >= start:
        with pytest.raises(ValueError, match=r"^start, end: wanted 0 <= end < start <= 9"):
            strategies.grids(TABLE, start=start, end=end)
        return
    for schedule in (TABLE, VE(9.0)):
        grid = data.draw(strategies.grids(schedule, start=start, end=end, steps=(1, 3)))
        assert grid[0] == start and grid[-1] == end and len(grid) <= 4


@given(
    strategies.events(dims=(0, 2)).flatmap(
        lambda event: st.tuples(st.just(event), strategies.mixtures(event=event, spreads=(0.1, 9)))
    ),
    st.sampled_from([VPLinear(), RectifiedFlow(), TABLE]),
)
def test_mixtures_are_valid(drawn: Any, schedule: Schedule) -> None:
    event, data = drawn
    assert data.means.shape[1:] == event and data.means.abs().max() <= 1e6
    assert deviations(data).min() >= 0.1 * (1 - 1e-12) and deviations(data).max() <= 9 * (1 + 1e-12)
    x = data.means.clone()
    score, mean = data.score(schedule, x, schedule.T), data.posterior_mean(schedule, x, schedule.T)
    assert bool(score.isfinite().all()) and bool(mean.isfinite().all())


WRONG: dict[str, tuple[Any, str]] = {
    "steps": (lambda: strategies.betas(steps=(0, 4)), "a whole number of at least 1, got 0"),
    "steps that fall": (lambda: strategies.betas(steps=(4, 2)), "steps: wanted .* at least 4"),
    "steps of one": (lambda: strategies.betas(steps=3), r"steps: wanted \(low, high\), got 3"),
    "values": (lambda: strategies.betas(values=(0, 0.5)), r"values: wanted numbers in \(0, 1\)"),
    "values that fall": (lambda: strategies.betas(values=(0.5, 0.1)), "values: wanted .* low <="),
    "a value": (lambda: strategies.betas(values=0.5), r"values: wanted \(low, high\)"),
    "a family": (lambda: strategies.schedules(families=["vp"]), "families: wanted .* got 'vp'"),
    "no family": (lambda: strategies.schedules(families=[]), "families: wanted one or more of"),
    "a family's name": (lambda: strategies.schedules(families="ve"), "families: .* got ve"),
    "times beyond T": (lambda: strategies.times(VPCosine(), high=2), r"low, high: wanted 0 <= low"),
    "no whole time": (lambda: strategies.times(TABLE, low=1.2, high=1.8), "a whole number between"),
    "a broken end": (lambda: strategies.grids(TABLE, start=2.5), "start, end: wanted whole"),
    "no room": (lambda: strategies.grids(TABLE, start=2, steps=(3, 4)), "a least of at most 2"),
    "a ratio": (lambda: strategies.grids(ratio=0.5), r"ratio: wanted a number in \[1, 1e\+09\]"),
    "dims": (lambda: strategies.events(dims=(-1, 2)), "dims: wanted a whole number of at least 0"),
    "a form": (lambda: strategies.mixtures(forms=["round"]), "forms: wanted .* got .'round'."),
    "spreads": (lambda: strategies.gaussians(spreads=(-1, 2)), r"spreads: wanted \(low, high\)"),
    "reach": (lambda: strategies.gaussians(reach=math.inf), "reach: wanted a number"),
    "an empty event": (lambda: strategies.mixtures(event=(2, 0)), "event: wanted sides of at"),
    "components": (lambda: strategies.mixtures(components=(0, 1)), "components: wanted a whole"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_option_is_told_at_once(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_without_hypothesis_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from diffusion_math.testing import audit\n"
        "import diffusion_math.testing.strategies"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1] == (
        "ImportError: diffusion_math.testing.strategies: wanted hypothesis, which "
        "pip install 'diffusion-math[testing]' brings"
    )
