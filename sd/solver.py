"""The solver of a call: the model's own, one by name, or the caller's function."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from inspect import signature
from typing import TypeAlias

from diffusion_math.checks import require
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.one_step import ddim
from diffusion_math.solvers.registry import SOLVERS, Solver
from diffusion_math.solvers.step import Step
from sd.config import ModelConfig

__all__ = ["Maker", "own_solver", "solver_of"]

Maker: TypeAlias = Callable[[Schedule], Step]
"""A solver, or any function of a schedule that returns a step."""


def own_solver(config: ModelConfig) -> Solver:
    """The model's own solver, with the model's `eta`; the same object for the same `eta`."""
    return SOLVERS[config.solver] if config.eta == 0 else _stochastic_ddim(config.eta)


def solver_of(config: ModelConfig, given: str | Maker | None) -> Maker:
    """The solver of that name, or the given function; the model's own if it is named, or None.

    Raises ValueError, naming `solver`, for another name, and for what can't be called.
    """
    if given is None or given == config.solver:
        return own_solver(config)
    if isinstance(given, str) and given in SOLVERS:
        return SOLVERS[given]
    wanted = f"one of {', '.join(SOLVERS)}, or a function of a schedule that returns a step"
    require(callable(given), "solver", wanted, repr(given))
    require(_takes_one(given), "solver", wanted, "one that does not take a schedule alone")
    return given  # type: ignore[return-value]


def _takes_one(function: object) -> bool:
    """Whether it can be called with one argument, as a step that is made already can't."""
    try:
        signature(function).bind(None)  # type: ignore[arg-type]
    except TypeError:
        return False
    except ValueError:  # it has no signature to look at
        return True
    return True


@cache
def _stochastic_ddim(eta: float) -> Solver:
    return replace(SOLVERS["ddim"], make=partial(ddim, eta=eta), noisy=True)
