"""Warnings about arguments of a pipeline call without effect, or not those of the training."""

import warnings
from collections.abc import Callable, Sequence
from inspect import unwrap

from torch import Tensor

from diffusion_math.checks import Number
from diffusion_math.grid import trailing
from diffusion_math.schedule import Schedule
from diffusion_math.solvers import Solver, Step
from sd.config import ModelConfig
from sd.solver import own_solver
from sd.text.prompt import foreign_marks, words
from sd.text.tokenizer import Tokenizer

__all__ = [
    "warn_controls",
    "warn_distilled",
    "warn_guidance",
    "warn_interval",
    "warn_prompts",
    "warn_unfinished",
]

NEAR = 5.0
"""Times by which a grid may miss the nodes of a distilled model: a strength of 0.17 for 1/6."""

OUTSIDE = 4
"""Stack frames between a warning and the code that called the pipeline."""


def warn_prompts(tokenizer: Tokenizer, prompts: Sequence[str]) -> None:
    """Warn about words that the model does not know, and about marks that are read as words."""
    marks = {mark: what for text in prompts for mark, what in foreign_marks(text).items()}
    if marks:
        shown = ", ".join(f"{mark} ({what})" for mark, what in marks.items())
        warnings.warn(f"prompt: read as plain words, not as elsewhere: {shown}", stacklevel=OUTSIDE)
    unknown = dict.fromkeys(w for text in prompts for w in tokenizer.unknown_words(words(text)))
    if unknown:
        known = ", ".join(tokenizer.words)
        message = f"the model does not know {', '.join(unknown)}; the words it knows: {known}"
        warnings.warn(message, stacklevel=OUTSIDE)
    unused = tokenizer.unused_words
    if unused:
        named = ", ".join(map(repr, unused))
        message = f"no prompt so far has {named}; an embedding acts only where its word stands"
        warnings.warn(message, stacklevel=OUTSIDE)


def warn_guidance(do_cfg: bool, scale: Number, own: Number, **given: object) -> None:
    """Warn about arguments of guidance in a call without guidance.

    Args:
        do_cfg, scale: of the call.
        own: the model's default scale.
        given: other arguments by name; an empty one or None counts as not given.
    """
    if do_cfg and scale != 1:
        return
    idle = [name for name, value in given.items() if value]
    if not do_cfg and scale not in (1, own):
        idle.append("guidance_scale")
    if idle:
        why = "at guidance_scale=1" if do_cfg else "with do_cfg=False"
        warnings.warn(f"{', '.join(idle)}: no effect {why}", stacklevel=OUTSIDE - 1)


def warn_controls(weights: Sequence[Sequence[float]]) -> None:
    """Warn about controls that act in no step.

    Args:
        weights: of each control, its factor in each step.
    """
    idle = [str(place) for place, own in enumerate(weights, 1) if not any(own)]
    if idle:
        which = f"controls {', '.join(idle)} of {len(weights)}"
        message = f"{which}: no effect, since no step lies between start and end"
        warnings.warn(message, stacklevel=OUTSIDE - 1)


def warn_distilled(
    config: ModelConfig,
    schedule: Schedule,
    times: Tensor,
    solver: Callable[[Schedule], Step],
    scale: Number,
    strength: bool,
) -> None:
    """Warn if a distilled model is sampled otherwise than it was distilled for.

    Its grid may begin at any node of its own, as with a `strength` of 1/2, and differ by rounding
    (`NEAR`). A solver that is no name is the caller's own affair.
    """
    if not config.distilled:
        return
    own, named = trailing(schedule, config.sampling_steps), unwrap(solver)
    last = own[-len(times) :]
    near = len(times) == len(last) and bool(((times.to(own) - last).abs() <= NEAR).all())
    strange = {
        "guidance_scale": scale != config.guidance_scale,
        "solver": isinstance(named, Solver) and named != own_solver(config),
        "grid, steps, strength" if strength else "grid, steps": not near,
    }
    given = ", ".join(name for name, other in strange.items() if other)
    if given:
        nodes = ", ".join(f"{float(t):g}" for t in own)
        own_scale = f"guidance_scale={config.guidance_scale:g}"
        wanted = f"{own_scale}, solver={config.solver!r}, nodes {nodes}"
        if strength:
            parts = range(1, len(own))
            wanted += f" (strength {', '.join(f'{part / len(parts):.2g}' for part in parts)})"
        message = f"{given}: the model was distilled for {wanted}; elsewhere its images are worse"
        warnings.warn(message, stacklevel=OUTSIDE - 1)


def warn_unfinished(grid: str | Tensor) -> None:
    """Warn of times that end before clean data."""
    if not isinstance(grid, str) and grid[-1] > 0:
        message = f"grid: it ends at t = {float(grid[-1]):g}, so noise is left in the image"
        warnings.warn(f"{message}; to remove it, end at 0", stacklevel=OUTSIDE - 1)


def warn_interval(
    schedule: Schedule,
    times: Tensor,
    solver: Callable[[Schedule], Step],
    wanted: Sequence[Number],
) -> None:
    """Warn if the guidance interval `wanted` contains no noise level of the sampling.

    A solver with one evaluation a step makes it at the start of the step. Others also evaluate the
    denoiser between two nodes. For them, and for unknown solvers, the warning comes only if the
    whole interval lies beyond the nodes.
    """
    low, high = wanted
    alpha, sigma = schedule(times[:-1])
    levels = sigma / alpha
    inside = (low <= levels) & (levels <= high)
    between = low <= levels.max() and levels.min() <= high
    named = unwrap(solver)
    once = isinstance(named, Solver) and named.calls == 1
    if not bool(inside.any()) and (once or not bool(between)):
        span = f"{float(levels.min()):.3g} to {float(levels.max()):.3g}"
        message = f"guidance_interval: no step has a noise level in ({low}, {high}); theirs: {span}"
        warnings.warn(message, stacklevel=OUTSIDE - 1)
