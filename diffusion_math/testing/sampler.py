"""What is audited: a sampler on a grid of times, and what is claimed of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from diffusion_math.checks import described, require, whole
from diffusion_math.denoiser import Denoiser
from diffusion_math.grid import trailing
from diffusion_math.noise import Noise
from diffusion_math.sample import trajectory
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.solvers.step import Step

__all__ = ["InvalidSamplerError", "Sampler", "UnsupportedError", "of_step", "ours"]

SampleFunction: TypeAlias = Callable[[Denoiser, Tensor, Tensor, Noise], Tensor | Iterable[Tensor]]
"""`(denoise, x, grid, noise) -> the last x`, or all of them: after each step, the start left out.

`x` is `(batch, *event)`, a sample of x_t at grid[0]; `grid` falls strictly; noise(x, t, s) gives
the standard normals of the step from t to s; denoise(x_t, t) is E[x_0 | x_t].
"""


class UnsupportedError(ValueError):
    """A setting that a sampler openly refuses: a limit, not a defect."""


class InvalidSamplerError(ValueError):
    """A sampler's grid or its states are not what `Sampler` says: of other types or shapes."""


@final
@dataclass(frozen=True)
class Sampler:
    """A sampler under audit.

    Attributes:
        name: what it is called in the report.
        schedule: what its times mean.
        sample: see `SampleFunction`.
        grid: number of steps -> its own grid, the last node where it says sampling ends.
        order: claimed: of the flow's solution, or weak order where `noisy`.
        noisy: whether it draws noise.
        any_grid: whether it takes any grid; if not, it is run on those of `grid` alone.
        exact: whether what it gives back on data without spread is claimed to have the level of
            each node exactly, as all solvers do that are exact for a constant x0.
        precision: relative rounding of its arithmetic, 1.2e-7 in float32. Orders are fitted to the
            errors above 30 times this; what is smaller is taken for rounding.
        grouped: whether its grid shows fewer nodes than the requested steps, because
            several of its steps go from one to the next.
        level_tolerance: relative error of a noise level that is taken for rounding. Declare both
            where rounding is not seen in torch, as of a float32 table in numpy: 1e-7 and 5e-4.
        rounding: the dtype whose rounding `precision` and `level_tolerance` are, where `audit` has
            found it. Left at their defaults they are found: see `diffusion_math.testing.rounding`.

    Raises ValueError for an attribute of another type, such as a str for a bool.
    """

    name: str
    schedule: Schedule
    sample: SampleFunction
    grid: Callable[[int], Tensor]
    order: int = 1
    noisy: bool = False
    any_grid: bool = True
    exact: bool = True
    precision: float = 1e-13
    level_tolerance: float = 1e-9
    grouped: bool = False
    rounding: str = ""

    def __post_init__(self) -> None:
        got: Any = self.schedule  # what is given may be anything
        wanted = "a schedule of diffusion_math.schedule"
        require(isinstance(got, Schedule), "schedule", wanted, described(got))
        for name in ("sample", "grid"):
            got = getattr(self, name)
            require(callable(got), name, "a function", described(got))
        for name in ("precision", "level_tolerance"):
            got = getattr(self, name)
            require(isinstance(got, int | float) and got >= 0, name, "a number of at least 0", got)
        for name in ("noisy", "any_grid", "exact", "grouped"):
            got = getattr(self, name)
            require(isinstance(got, bool), name, "True or False", repr(got))
        require(isinstance(self.name, str), "name", "a str", described(self.name))
        whole("order", self.order, 1, 8)

    def times(self, n: int) -> Tensor:
        """Its own grid of n steps, in float64.

        Raises InvalidSamplerError for what is no 1-D tensor.
        """
        with _exits():
            grid: Any = self.grid(n)  # of code that is audited
        right = isinstance(grid, Tensor) and grid.ndim == 1 and not grid.is_complex()
        _require(right, f"{self.name}: grid({n})", "a 1-D tensor of times", described(grid))
        times: Tensor = grid.detach().to("cpu", torch.float64)
        return times

    def states(self, denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> list[Tensor]:
        """The states at grid[1:], or the last alone where the sampler shows no others.

        The sampler may change the x and the grid that it is given, and a state that it has shown.

        Raises InvalidSamplerError where their number is neither, where one is no floating-point
        tensor of x's shape, or the grid rises somewhere.
        """
        falls = grid.ndim == 1 and len(grid) > 1 and bool((grid[1:] <= grid[:-1]).all())
        _require(falls, "grid", "2 times or more that do not rise", grid)
        with _exits():
            found: Any = self.sample(denoise, x.clone(), grid.clone(), noise)
        one = isinstance(found, Tensor)
        _require(
            one or isinstance(found, Iterable), f"{self.name}: states", "tensors", described(found)
        )
        with _exits():
            shown = [found] if one else islice(found, len(grid))  # a generator may not end
            states = [_kept(state) for state in shown]
        wanted = f"1 state or one for each of {len(grid) - 1} steps"
        got = len(states) if len(states) < len(grid) else f"{len(states)} or more"
        _require(len(states) in (1, len(grid) - 1), f"{self.name}: states", wanted, got)
        wanted = f"floating-point tensors of x's shape {tuple(x.shape)}"
        for state in states:
            right = isinstance(state, Tensor) and state.shape == x.shape
            right = right and state.is_floating_point()
            _require(right, f"{self.name}: states", wanted, described(state))
        return [state.cpu() for state in states]

    def end(self, denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> Tensor:
        """The last state."""
        return self.states(denoise, x, grid, noise)[-1]


def _kept(state: Any) -> Any:
    """A state as it is now: the sampler may write the next one into it."""
    return state.detach().clone() if isinstance(state, Tensor) else state


@contextmanager
def _exits() -> Iterator[None]:
    """Within, `sys.exit()` is an error like any other: it ends a run of code that is audited."""
    try:
        yield
    except SystemExit as error:
        told = RuntimeError(f"sys.exit({error.code!r}) was called")
        raise told.with_traceback(error.__traceback__) from None


def _require(condition: bool, argument: str, wanted: str, got: object) -> None:
    """Raise InvalidSamplerError unless the condition holds."""
    try:
        require(condition, argument, wanted, got)
    except ValueError as error:
        raise InvalidSamplerError(str(error)) from None


def of_step(name: str, make: Callable[[Schedule], Step], schedule: Schedule) -> Sampler:
    """A sampler of a step of `diffusion_math.solvers.one_step`'s kind, on trailing grids."""

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> Iterable[Tensor]:
        _, *states = trajectory(make(schedule), denoise, x, grid, noise)
        return [state.x for state in states]

    return Sampler(name, schedule, sample, lambda n: trailing(schedule, n))


def ours(schedule: Schedule, names: Sequence[str] = tuple(SOLVERS)) -> list[Sampler]:
    """`diffusion_math`'s own samplers with their claims. Raises ValueError for an unknown name."""
    from dataclasses import replace

    found = []
    for name in names:
        require(name in SOLVERS, "names", f"names among {', '.join(SOLVERS)}", name)
        claimed = SOLVERS[name]
        bare = of_step(name, claimed.make, schedule)
        loose = name in ("ddpm_large", "langevin_corrected")
        found.append(replace(bare, order=claimed.order, noisy=claimed.noisy, exact=not loose))
    return found
