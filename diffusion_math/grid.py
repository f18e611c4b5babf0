"""Time grids: steps + 1 strictly decreasing nodes, float64, from `start` to `end` exactly.

Sampling ends at the last node: 0 is clean data. A grid that starts below T serves image-to-image.
All raise ValueError for steps < 1, for ends that are not
0 <= end < start <= T, and on a `Discrete` schedule for more steps than start - end.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion_math.checks import (
    Number,
    Registry,
    between,
    checked,
    require,
    strictly_decreasing,
    whole,
)
from diffusion_math.schedule import Discrete, Schedule


class Grid(Protocol):
    """The signature of every grid function; start = None stands for the schedule's T.

    >>> import diffusion_math as dm
    >>> {name: len(grid(dm.VPLinear(), 10)) for name, grid in dm.GRIDS.items()}
    {'leading': 11, 'trailing': 11, 'linspace': 11, 'uniform_log_snr': 11, 'karras': 11}
    """

    def __call__(
        self, schedule: Schedule, steps: int, start: Number | None = None, end: Number = 0.0
    ) -> Float64[Tensor, " nodes"]: ...


@checked
def trailing(
    schedule: Schedule, steps: int, start: Number | None = None, end: Number = 0.0
) -> Float64[Tensor, " nodes"]:
    """Uniform from start to end: t_i = end + (start - end) (steps - i) / steps.

    On a `Discrete` schedule the ends must be whole, and nodes are rounded (halves to even).
    Derivation: (grid.1).
    Source: Lin et al. (arXiv:2305.08891) table 2, "trailing".

    >>> import diffusion_math as dm
    >>> dm.trailing(dm.Discrete.linear(), steps=4)
    tensor([1000.,  750.,  500.,  250.,    0.], dtype=torch.float64)
    >>> dm.trailing(dm.RectifiedFlow(), steps=4, start=0.5, end=0.1)
    tensor([0.5000, 0.4000, 0.3000, 0.2000, 0.1000], dtype=torch.float64)
    """
    start, end = _ends(schedule, steps, start, end, whole_ends=True)
    counts = torch.arange(steps, -1, -1, dtype=torch.float64, device="cpu")
    return _between(start, end, _rounded(schedule, end + (start - end) * counts / steps)[1:-1])


@checked
def leading(
    schedule: Schedule, steps: int, start: Number | None = None, end: Number = 0.0
) -> Float64[Tensor, " nodes"]:
    """Multiples of one stride above the least time, then end: it does not begin at start.

    t_i = end + t_min + (steps - 1 - i) stride with stride = (start - end) / steps, rounded down on
    a `Discrete` schedule (t_min = 1), whose ends must be whole; elsewhere steps must not exceed
    (start - end) / t_min. Source: Lin et al. (arXiv:2305.08891) table 2, "leading"; DDIM's own.
    Derivation: (grid.2).

    >>> import diffusion_math as dm
    >>> dm.leading(dm.Discrete.linear(), steps=4)
    tensor([751., 501., 251.,   1.,   0.], dtype=torch.float64)
    """
    start, end = _ends(schedule, steps, start, end, whole_ends=True)
    stride = (start - end) / steps
    wanted = f"at most (start - end) / t_min = {(start - end) / schedule.t_min:g}"
    require(steps == 1 or stride >= schedule.t_min, "steps", wanted, steps)
    stride = float(int(stride)) if isinstance(schedule, Discrete) else stride
    least = min(end + schedule.t_min, start)
    counts = torch.arange(steps - 1, 0, -1, dtype=torch.float64, device="cpu")
    inner = torch.cat(
        [least + counts * stride, torch.tensor([least], dtype=torch.float64, device="cpu")]
    )
    return _between(float(inner[0]), end, inner[1:])


@checked
def linspace(
    schedule: Schedule, steps: int, start: Number | None = None, end: Number = 0.0
) -> Float64[Tensor, " nodes"]:
    """`steps` uniform nodes from start to end + t_min, then end; one step is start, end.

    On a `Discrete` schedule (t_min = 1) the ends must be whole, and nodes are rounded.
    Derivation: (grid.3).
    Source: Lin et al. (arXiv:2305.08891) table 2, "linspace".

    >>> import diffusion_math as dm
    >>> dm.linspace(dm.Discrete.linear(), steps=4)
    tensor([1000.,  667.,  334.,    1.,    0.], dtype=torch.float64)
    """
    start, end = _ends(schedule, steps, start, end, whole_ends=True)
    if steps == 1:
        return _between(start, end)
    least = end + schedule.t_min
    require(least < start, "start", f"more than end + t_min = {least:g} for two steps", start)
    counts = torch.arange(steps - 1, -1, -1, dtype=torch.float64, device="cpu")
    nodes = least + _rounded(schedule, (start - least) * counts / (steps - 1))
    return _between(start, end, nodes[1:])


@checked
def uniform_log_snr(
    schedule: Schedule, steps: int, start: Number | None = None, end: Number = 0.0
) -> Float64[Tensor, " nodes"]:
    """Uniform in log-SNR, in which DPM-Solver++ is exact for a constant x0.

    An end below t_min (0 has an infinite log-SNR) is appended after the uniform nodes, which then
    end at t_min. A start above t_max (T where alpha_T = 0) comes before them; they begin at t_max.
    Derivation: (grid.4).
    Source: DPM-Solver (arXiv:2206.00927) section 3.4, also used by DPM-Solver++ (2211.01095).

    >>> import diffusion_math as dm
    >>> grid = dm.uniform_log_snr(dm.VPLinear(), steps=4)
    >>> grid
    tensor([1.0000, 0.6037, 0.0749, 0.0010, 0.0000], dtype=torch.float64)
    >>> dm.VPLinear().log_snr(grid[:-1])
    tensor([-10.0500,  -3.6615,   2.7270,   9.1154], dtype=torch.float64)
    """
    return _uniform_in(lambda level: level, lambda level: level, schedule, steps, start, end)


@checked
def karras(
    schedule: Schedule,
    steps: int,
    start: Number | None = None,
    end: Number = 0.0,
    rho: Number = 7.0,
) -> Float64[Tensor, " nodes"]:
    """Uniform in r^(1/rho) with r = sigma_t / alpha_t, the noise level in EDM's sense; rho > 0.

    Ends beyond [t_min, t_max] are handled as in `uniform_log_snr`. Raises ValueError for rho
    outside of [1e-3, 1e3], and where r^(1/rho) overflows.
    Derivation: (grid.6).
    Source: Karras et al. (arXiv:2206.00364) eq. 5.

    >>> import diffusion_math as dm
    >>> dm.karras(dm.VE(), steps=5)
    tensor([8.0000e+01, 1.7528e+01, 2.5152e+00, 1.6975e-01, 2.0000e-03, 0.0000e+00],
           dtype=torch.float64)
    """
    between("rho", rho, 1e-3, 1e3)
    least = abs(float(schedule.log_snr(schedule.t_max))) / 1400
    require(rho > least, "rho", f"a number above {least:g} (where r^(1/rho) overflows)", rho)
    return _uniform_in(
        lambda log_snr: torch.exp(-log_snr / (2 * rho)),
        lambda warped: -2 * rho * warped.log(),
        schedule,
        steps,
        start,
        end,
    )


GRIDS: dict[str, Grid] = Registry(
    {
        "leading": leading,
        "trailing": trailing,
        "linspace": linspace,
        "uniform_log_snr": uniform_log_snr,
        "karras": karras,
    }
)


def _uniform_in(
    warp: Callable[[Tensor], Tensor],
    unwarp: Callable[[Tensor], Tensor],
    schedule: Schedule,
    steps: int,
    start: Number | None,
    end: Number,
) -> Float64[Tensor, " nodes"]:
    """Nodes equally spaced in warp(log_snr), between the ends or the finite t_max and t_min.

    Derivation: (grid.7).
    """
    start, end = _ends(schedule, steps, start, end)
    if steps == 1:
        return _between(start, end)
    first, last = min(start, schedule.t_max), max(end, schedule.t_min)
    count = steps + 1 - (first != start) - (last != end)
    wanted = f"times around part of [t_min, t_max] for {steps} steps"
    require(last < first, "start, end", wanted, (start, end))
    # Two steps between two ends beyond have one inner node, which is put in the middle.
    ends = (0.0, 1.0) if count > 1 else (0.5, 0.5)
    parts = torch.linspace(*ends, count, dtype=torch.float64, device="cpu")
    low, high = schedule.log_snr(first), schedule.log_snr(last)
    log_snr = unwarp(warp(low) + (warp(high) - warp(low)) * parts).clamp(low, high)
    nodes = schedule.time(log_snr)
    if count > 1:  # exact where rounding in and out of the warp may have moved the last bit
        nodes[0], nodes[-1] = first, last
    return _between(start, end, nodes[int(first == start) : count - int(last == end)])


def _ends(
    schedule: Schedule, steps: int, start: Number | None, end: Number, whole_ends: bool = False
) -> tuple[float, float]:
    """(start, end) as floats; ValueError for invalid ends or numbers of steps."""
    whole("steps", steps, 1)
    start = schedule.T if start is None else float(start)
    between("start", start, 0, schedule.T)
    between("end", end, 0, schedule.T)
    require(end < start, "end", f"less than start = {start:g}", end)
    if isinstance(schedule, Discrete):
        most = max(1, int(start - end))
        require(steps <= most, "steps", f"at most start - end = {most}", steps)
        for name, value in (("start", start), ("end", end)):
            valid = value == int(value) if whole_ends else value == 0 or value >= 1
            wanted = "a whole number" if whole_ends else "0 or at least 1"
            require(valid, name, f"{wanted} on a discrete schedule", value)
    return start, float(end)


def _rounded(schedule: Schedule, nodes: Tensor) -> Tensor:
    """Whole numbers on a discrete schedule: distinct, as their spacing is at least 1."""
    return nodes.round() if isinstance(schedule, Discrete) else nodes


def _between(start: Number, end: Number, inner: Tensor | None = None) -> Tensor:
    """start, the inner nodes, end; ValueError where two nodes are equal in float64."""
    inner = torch.empty(0, dtype=torch.float64, device="cpu") if inner is None else inner
    nodes = torch.cat([inner.new_tensor([start]), inner, inner.new_tensor([end])])
    strictly_decreasing("steps (the grid they give)", nodes)
    return nodes
