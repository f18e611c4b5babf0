"""Whether a sampler takes its noise from the function it is given, and from nowhere else."""

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from diffusion_math.testing.sampler import Sampler
from diffusion_math.testing.trial import Trial, trial

__all__ = ["NoiseUse", "noise_use"]

EQUAL = 1e-4
"""Relative difference of two runs below which they are equal."""


@final
@dataclass(frozen=True)
class NoiseUse:
    """What three short runs show.

    Attributes:
        fault: what is not as claimed, in a few words; empty where nothing is.
        detail: the same in a sentence.
        judged: whether exact moments and errors mean anything: a run is a function of x and noise.
    """

    fault: str
    detail: str
    judged: bool = True


def noise_use(sampler: Sampler) -> NoiseUse | None:
    """Compare a run with its repetition and with one of other noise; None where none can be run."""
    once, again, other = (trial(sampler, seed) for seed in (0, 0, 1))
    if once is None or again is None or other is None:
        return None
    change = _difference(once, again)
    random = f"two runs with one x and one noise differ by {change:.2g} of a state's size"
    if sampler.noisy and not once.calls:
        source = f"{random}: it draws its own" if change > EQUAL else "it draws none, or by a seed"
        return NoiseUse("never called", f"noise(x, t, s) is never called; {source}", False)
    if change > EQUAL:
        cause = "it draws noise of its own, or keeps something from the run before"
        return NoiseUse("runs differ", f"{random}: {cause}", False)
    effect = _difference(once, other)
    if not sampler.noisy and effect > EQUAL:
        return NoiseUse("noisy", f"noise(x, t, s) changes a state by {effect:.2g} of its size")
    return NoiseUse("", "")


def _difference(one: Trial, two: Trial) -> float:
    """The largest difference of a state from the same state of another run, relative to it."""
    if len(one.states) != len(two.states):
        return math.inf
    return max(_relative(a, b) for a, b in zip(one.states, two.states, strict=True))


def _relative(a: Tensor, b: Tensor) -> float:
    a, b = a.double().nan_to_num(), b.double().nan_to_num()
    off = float((a - b).abs().max())
    return off / max(float(a.abs().max()), float(b.abs().max())) if off else 0.0
