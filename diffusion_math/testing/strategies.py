"""Hypothesis strategies: schedules, times, grids and data with known answers, corners included.

    from hypothesis import given
    from diffusion_math.testing import strategies

    @given(strategies.schedules(), strategies.mixtures(event=(2,)))
    def test_mine(schedule, data): ...

Every example is valid where `diffusion_math` checks it, and failures shrink to the plainest one.
Needs hypothesis: `pip install "diffusion-math[testing]"`.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from diffusion_math.checks import Number, between, require, whole
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ImportError as error:
    wanted = "hypothesis, which pip install 'diffusion-math[testing]' brings"
    raise ImportError(f"diffusion_math.testing.strategies: wanted {wanted}") from error

__all__ = [
    "FAMILIES",
    "FORMS",
    "betas",
    "events",
    "gaussians",
    "grids",
    "mixtures",
    "schedules",
    "times",
]

FAMILIES = ("rectified_flow", "vp_cosine", "vp_linear", "ve", "discrete")
"""The kinds of schedule of `schedules`, the plainest first."""

FORMS = ("isotropic", "diagonal", "full")
"""The forms of a mixture's covariances, the plainest first."""

UNIT = RectifiedFlow()
"""A schedule whose times go from 1 to 0."""

Range: TypeAlias = tuple[Number, Number]
"""The least and the largest value, both possible."""

Numbers: TypeAlias = Any
"""Floats that Hypothesis has drawn. A type of items would have run-time type checkers take one at
random, which Hypothesis forbids inside of a strategy."""

Event: TypeAlias = tuple[int, ...] | SearchStrategy[tuple[int, ...]] | None


def betas(
    *, steps: tuple[int, int] = (1, 40), values: Range = (1e-12, 0.999)
) -> SearchStrategy[Tensor]:
    """Beta schedules of which `diffusion_math.Discrete` takes each: float64 of shape `(T,)`.

    Args:
        steps: the least and the largest T.
        values: the least and the largest beta, in (0, 1).

    Raises ValueError for other ranges. Corners: one step; betas that rise, fall, or are all alike.

    >>> from hypothesis import given
    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import strategies
    >>> @given(strategies.betas(steps=(1, 9)))
    ... def it_is_a_schedule(table):
    ...     assert dm.Discrete(table).T == len(table) <= 9
    >>> it_is_a_schedule()
    """
    low, high = _whole_range("steps", steps, 1)
    least, most = _range("values", values, 0, 1)
    require(least > 0 and most < 1, "values", "numbers in (0, 1)", values)
    each = st.floats(least, most) | st.sampled_from([least, most])
    table = st.lists(each, min_size=low, max_size=high) | st.builds(
        lambda beta, count: [beta] * count, each, st.integers(low, high)
    )
    return table.map(_f64).filter(_is_table)


def schedules(
    *, families: Sequence[str] = FAMILIES, steps: tuple[int, int] = (1, 40)
) -> SearchStrategy[Schedule]:
    """Schedules of every family, with any valid parameters of moderate size.

    Args:
        families: which of `FAMILIES`.
        steps: the least and the largest T of a discrete schedule.

    Raises ValueError for other arguments. Corners: alpha_T = 0 (rectified flow, the cosine), one
    step, hardly any noise, a sigma_max of 0.01 and of 1e4.

    >>> from hypothesis import find
    >>> from diffusion_math.testing import strategies
    >>> find(strategies.schedules(), lambda schedule: schedule.T > 1)
    VE(sigma_max=2.0)
    """
    unknown = [name for name in families if name not in FAMILIES]
    wanted = f"one or more of {', '.join(FAMILIES)}"
    require(not isinstance(families, str) and len(families) > 0, "families", wanted, families)
    require(not unknown, "families", wanted, ", ".join(map(repr, unknown)))
    made: dict[str, SearchStrategy[Any]] = {
        "rectified_flow": st.just(RectifiedFlow()),
        "vp_cosine": st.just(VPCosine()),
        "vp_linear": st.just(VPLinear())
        | st.builds(_vp_linear, st.floats(1e-3, 20), st.floats(0, 100)),
        "ve": st.builds(VE, st.floats(0.01, 1e4)),
        "discrete": betas(steps=steps).map(Discrete),
    }
    return st.one_of(*(made[name] for name in FAMILIES if name in families))


def times(
    schedule: Schedule, *, low: Number = 0.0, high: Number | None = None
) -> SearchStrategy[float]:
    """Times of a schedule from `low` to `high`, by default T; whole ones on a discrete schedule.

    Raises ValueError unless 0 <= low <= high <= T, with a whole number between on a discrete
    schedule. Corners: both ends, t_min and t_max.

    >>> from hypothesis import find
    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import strategies
    >>> find(strategies.times(dm.VE()), lambda t: t > 0.3)
    1.0
    >>> find(strategies.times(dm.Discrete.linear(9), low=4), lambda t: True)
    4.0
    """
    high = schedule.T if high is None else high
    require(
        0 <= low <= high <= schedule.T,
        "low, high",
        f"0 <= low <= high <= {schedule.T:g}",
        (low, high),
    )
    if isinstance(schedule, Discrete):
        first, last = math.ceil(low), math.floor(high)
        require(first <= last, "low, high", "a whole number between them", (low, high))
        return st.integers(first, last).map(float)
    ends = {low, high, schedule.t_min, schedule.t_max}
    corners = sorted(float(t) for t in ends if low <= t <= high)
    return st.floats(low, high) | st.sampled_from(corners)


def grids(
    schedule: Schedule = UNIT,
    *,
    steps: tuple[int, int] = (1, 12),
    start: Number | None = None,
    end: Number = 0.0,
    ratio: Number = 1e6,
) -> SearchStrategy[Tensor]:
    """Grids of times that fall from `start`, by default T, to `end`: float64, `(steps + 1,)`.

    Args:
        schedule: what the times mean; on a discrete one they are whole numbers.
        steps: the least and the largest number of steps.
        start, end: the first and the last node.
        ratio: how many times as long as another a step may be, in continuous time.

    Raises ValueError unless 0 <= end < start <= T, whole on a discrete schedule, with room for
    the least number of steps, and for a ratio outside of [1, 1e9]. Corners: one step, an odd
    number of steps, even steps, neighbours whose lengths differ by the ratio.

    >>> from hypothesis import find
    >>> from diffusion_math.testing import strategies
    >>> find(strategies.grids(), lambda grid: True)
    tensor([1., 0.], dtype=torch.float64)
    >>> find(strategies.grids(steps=(3, 5)), lambda grid: True)
    tensor([1.0000, 0.6667, 0.3333, 0.0000], dtype=torch.float64)
    """
    low, high = _whole_range("steps", steps, 1)
    start = schedule.T if start is None else start
    between("ratio", ratio, 1, 1e9)
    wanted = f"0 <= end < start <= {schedule.T:g}"
    require(0 <= end < start <= schedule.T, "start, end", wanted, (start, end))
    if isinstance(schedule, Discrete):
        require(
            start == int(start) and end == int(end), "start, end", "whole numbers", (start, end)
        )
        require(low <= start - end, "steps", f"a least of at most {start - end:g}", steps)
        inner = range(int(end) + 1, int(start))
        nodes: SearchStrategy[list[Any]] = st.just([])
        if inner:
            chosen = st.sampled_from(inner)
            most = min(high - 1, len(inner))
            nodes = st.lists(chosen, min_size=low - 1, max_size=most, unique=True)
        return nodes.map(lambda middle: _f64([start, *sorted(middle, reverse=True), end]))
    length = st.floats(1 / ratio, 1) | st.sampled_from([1.0, 1 / ratio])
    lengths = st.lists(length, min_size=low, max_size=high)
    even = st.integers(low, high).map(lambda count: [1.0] * count)
    return (even | lengths).map(lambda parts: _falling(start, end, parts)).filter(_falls)


def events(
    *, dims: tuple[int, int] = (0, 3), sides: tuple[int, int] = (1, 3)
) -> SearchStrategy[tuple[int, ...]]:
    """Shapes of one example, `x.shape[1:]`. Corners: the shape `()` of a number; a side of 1.

    Args:
        dims: the least and the largest number of axes.
        sides: the least and the largest length of an axis; 0 gives empty events.

    Raises ValueError for other ranges.

    >>> from hypothesis import find
    >>> from diffusion_math.testing import strategies
    >>> find(strategies.events(), lambda event: len(event) == 2)
    (1, 1)
    """
    low, high = _whole_range("dims", dims, 0)
    side = st.integers(*_whole_range("sides", sides, 0))
    return st.lists(side, min_size=low, max_size=high).map(tuple)


def gaussians(
    *,
    event: Event = None,
    forms: Sequence[str] = FORMS,
    spreads: Range = (0.0, 1e6),
    reach: Number = 1e6,
) -> SearchStrategy[GaussianMixture]:
    """Normal distributions: `mixtures` of one component, with the same arguments and errors.

    >>> from hypothesis import find
    >>> from diffusion_math.testing import strategies
    >>> data = find(strategies.gaussians(event=(2,), spreads=(1, 2)), lambda data: True)
    >>> data.means, data.covariances
    (tensor([[0., 0.]], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    return mixtures(event=event, components=(1, 1), forms=forms, spreads=spreads, reach=reach)


def mixtures(
    *,
    event: Event = None,
    components: tuple[int, int] = (1, 4),
    forms: Sequence[str] = FORMS,
    spreads: Range = (0.0, 1e6),
    reach: Number = 1e6,
) -> SearchStrategy[GaussianMixture]:
    """Gaussian mixtures, whose denoiser, score and density are exact at every t.

    Args:
        event: the shape of one example, or a strategy of shapes with one entry or more; by
            default `events()`.
        components: the least and the largest number of components.
        forms: which of `FORMS` the covariances have.
        spreads: the least and the largest standard deviation of an entry. A full covariance has it
            where it is widest, and eigenvalues within a factor of 8 D.
        reach: the largest absolute value of a mean's entry.

    Raises ValueError for other arguments. Corners: one component, components at one place and
    `reach` apart, weights of 1e-13, and deviations of both ends of `spreads`: a point mass, which
    has a density only at t > 0, and a component a million times as wide as its neighbour.

    >>> from hypothesis import given
    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import strategies
    >>> @given(strategies.mixtures(event=(2,)), strategies.schedules())
    ... def the_score_is_finite(data, schedule):
    ...     x = data.means
    ...     assert data.score(schedule, x, schedule.T).isfinite().all()
    >>> the_score_is_finite()
    """
    low, high = _whole_range("components", components, 1)
    least, most = _range("spreads", spreads, 0, 1e100)
    require(0 <= reach < 1e100, "reach", "a number in [0, 1e100)", reach)
    unknown = [form for form in forms if form not in FORMS]
    wanted = f"one or more of {', '.join(FORMS)}"
    valid = not isinstance(forms, str) and len(forms) > 0 and not unknown
    require(valid, "forms", wanted, forms)
    shapes = events() if event is None else event
    if isinstance(shapes, tuple):
        require(all(side >= 1 for side in shapes), "event", "sides of at least 1", shapes)
        shapes = st.just(shapes)
    form = st.sampled_from([form for form in FORMS if form in forms])
    spread = _spreads(float(least), float(most))
    return st.tuples(shapes, form).flatmap(
        lambda drawn: _mixtures(torch.Size(drawn[0]), drawn[1], (low, high), spread, float(reach))
    )


def _mixtures(
    event: torch.Size,
    form: str,
    count: tuple[int, int],
    spread: SearchStrategy[float],
    reach: float,
) -> SearchStrategy[GaussianMixture]:
    """Mixtures of a list of components: fewer of them are plainer."""
    D = math.prod(event)
    scales = st.sampled_from(sorted({0.0, min(1.0, reach), reach}))
    mean = st.tuples(scales, _lists(st.floats(-1, 1), D))
    axes, bends = _lists(st.floats(0.5, 1), D), _lists(st.floats(-1, 1), D)
    covariance: dict[str, SearchStrategy[Any]] = {
        "isotropic": spread.map(lambda std: _f64(std).square()),
        "diagonal": _lists(spread, D).map(lambda std: _f64(std).square().reshape(event)),
        "full": st.builds(_full, spread, axes, bends),
    }
    component = st.tuples(st.floats(-30, 0), mean, covariance[form])

    def whole(
        components: Any,
    ) -> GaussianMixture:
        weights, means, covariances = zip(*components, strict=True)
        places = torch.stack([scale * _f64(x).reshape(event) for scale, x in means])
        return GaussianMixture(_f64(weights), places, torch.stack(covariances))

    # A count of its own, since Hypothesis deletes no list's element that is made of many draws.
    counts = st.integers(*count)
    return counts.flatmap(lambda K: st.tuples(*[component] * K)).map(whole)


def _full(std: float, axes: Numbers, bends: Numbers) -> Tensor:
    """diag(axes^2) + bends bends^T, `(D, D)`, scaled to a largest variance of std^2."""
    bent = _f64(bends)
    shape = _f64(axes).square().diag() + bent[:, None] * bent
    return std**2 * shape / shape.diagonal().max()


def _spreads(low: float, high: float) -> SearchStrategy[float]:
    """Deviations of every size between the ends, which are likely; 1 is the plainest."""
    ends = st.sampled_from(sorted({low, high}))
    smallest = max(low, min(1e-6, high))
    if not smallest > 0:
        return ends
    sizes = st.floats(math.log10(smallest), math.log10(high))
    between = sizes.map(lambda size: min(max(10.0**size, low), high))
    return between | ends


def _lists(each: SearchStrategy[float], count: int) -> SearchStrategy[list[float]]:
    return st.lists(each, min_size=count, max_size=count)


def _f64(values: Numbers) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def _vp_linear(low: float, rise: float) -> VPLinear:
    return VPLinear(low, low + rise)


def _is_table(values: Tensor) -> bool:
    """Whether a discrete schedule of these betas is one that float64 resolves."""
    try:
        Discrete(values)
    except ValueError:
        return False
    return True


def _falling(start: Number, end: Number, parts: Numbers) -> Tensor:
    """start to end in steps whose lengths have these proportions."""
    reached = _f64(parts).cumsum(0)
    nodes = start + (end - start) * reached / reached[-1]
    return torch.cat([_f64([start]), nodes[:-1], _f64([end])])


def _falls(grid: Tensor) -> bool:
    """Whether each node is below the one before it, in float64."""
    return bool((grid[1:] < grid[:-1]).all())


def _range(name: str, ends: Range, least: Number, most: Number) -> Range:
    """Both ends; ValueError unless least <= low <= high <= most."""
    wanted = f"(low, high) with {least:g} <= low <= high <= {most:g}"
    try:
        low, high = ends
        valid = bool(least <= low <= high <= most)
    except (TypeError, ValueError):
        valid = False
    require(valid, name, wanted, ends)
    return ends


def _whole_range(name: str, ends: tuple[int, int], least: int) -> tuple[int, int]:
    """Both ends; ValueError unless they are whole numbers, least <= low <= high."""
    given: Any = ends
    require(isinstance(given, Sequence) and len(given) == 2, name, "(low, high)", given)
    whole(name, ends[0], least)
    whole(name, ends[1], ends[0])
    return ends
