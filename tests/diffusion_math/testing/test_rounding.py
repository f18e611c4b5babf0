"""The precision that a sampler is seen to compute in, and what its rounding is taken for."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion_math.grid import trailing
from diffusion_math.sample import trajectory
from diffusion_math.schedule import Discrete, RectifiedFlow, VPLinear
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.testing import (
    Sampler,
    UnsupportedError,
    assert_order,
    assert_sound,
    audit,
)
from diffusion_math.testing.problems import starts
from diffusion_math.testing.rounding import LEVELS, narrowest, rounded
from diffusion_math.testing.sampler import ours
from tests.support.wrong_samplers import GUESSED

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

SCHEDULE = VPLinear()


def ddim(
    before: Callable[[Tensor], Tensor] = lambda x: x,
    asked: Callable[[Tensor], Tensor] = lambda x: x,
    after: Callable[[Tensor], Tensor] = lambda x: x,
    off: float = 0.0,
) -> Sampler:
    """DDIM that rounds where it is told to, its levels off by a relative error."""

    def sample(denoise, x: Tensor, grid: Tensor, noise) -> Iterator[Tensor]:  # type: ignore[no-untyped-def]
        x = before(x)
        for t, s in pairwise(grid):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = SCHEDULE(t), SCHEDULE(s)
            x0 = denoise(asked(x), t)
            x = alpha_s * x0 + (1 + off) * sigma_s * (x - alpha_t * x0) / sigma_t
            yield after(x)

    return Sampler("mine", SCHEDULE, sample, lambda n: trailing(SCHEDULE, n), order=1)


WAYS = {
    "states": (ddim(before=Tensor.float), torch.float32),
    "states given back wider": (ddim(before=Tensor.float, after=Tensor.double), torch.float32),
    "the denoiser's x alone": (ddim(asked=Tensor.float), torch.float32),
    "the denoiser's x, seen in no state": (
        ddim(asked=Tensor.float, after=lambda x: x * (1 + 1e-13)),
        torch.float32,
    ),
    "half": (ddim(before=Tensor.half), torch.float16),
    "bfloat16": (ddim(before=Tensor.bfloat16, after=Tensor.double), torch.bfloat16),
    "nothing": (ddim(), torch.float64),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_precision_is_seen(way: str) -> None:
    sampler, dtype = WAYS[way]
    assert narrowest(sampler) == dtype


@pytest.mark.parametrize("only", [2, 4, 8])
def test_a_sampler_of_two_four_or_eight_steps_alone_is_seen(only: int) -> None:
    def grid(n: int) -> Tensor:
        if n != only:
            raise UnsupportedError(f"{n} steps")
        return trailing(SCHEDULE, n)

    assert narrowest(replace(ddim(before=Tensor.float), grid=grid)) == torch.float32


def test_one_of_two_inputs_of_the_denoiser_is_enough() -> None:
    two = replace(WAYS["the denoiser's x, seen in no state"][0], grouped=True)
    assert narrowest(replace(two, grid=lambda n: trailing(SCHEDULE, 2))) == torch.float32


def drawing(before: Callable[[Tensor], Tensor] = lambda x: x, own: float = 1.0) -> Sampler:
    """Each state is a share of the one before, and noise."""

    def sample(denoise, x: Tensor, grid: Tensor, noise) -> Iterator[Tensor]:  # type: ignore[no-untyped-def]
        x = before(x)
        for t, s in pairwise(grid):
            x = own * x + noise(x, t, s)
            yield x

    return Sampler("drawing", SCHEDULE, sample, lambda n: trailing(SCHEDULE, n), noisy=True)


def test_noise_is_of_the_state_s_precision() -> None:
    assert narrowest(drawing(before=Tensor.float)) == torch.float32
    assert narrowest(drawing(own=0.0)) == torch.float64


def test_looking_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    narrowest(drawing())
    assert torch.equal(torch.get_rng_state(), before)


def test_runs_begin_at_the_first_time_s_deviation() -> None:
    seen = []

    def sample(denoise, x, grid, noise):  # type: ignore[no-untyped-def]
        seen.append(x)
        return x

    schedule = RectifiedFlow()
    narrowest(Sampler("start", schedule, sample, lambda n: trailing(schedule, n) / 2))
    assert torch.equal(seen[0], 0.5 * starts())


def test_zeros_tell_nothing_and_one_number_does() -> None:
    """Every type holds 0."""

    def narrow(value: float) -> torch.dtype:
        def sample(denoise, x, grid, noise):  # type: ignore[no-untyped-def]
            only = torch.zeros_like(x)
            only[0, 0] = value
            return only

        return narrowest(replace(ddim(), sample=sample))

    assert (narrow(0.0), narrow(1 / 3)) == (torch.float64, torch.float64)
    assert narrow(float(torch.tensor(1 / 3, dtype=torch.float32))) == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [SCHEDULE, RectifiedFlow(), Discrete.scaled_linear()])
def test_no_solver_of_ours_is_taken_for_a_narrower_one(schedule) -> None:  # type: ignore[no-untyped-def]
    for sampler in ours(schedule):
        assert narrowest(sampler) == torch.float64
        assert rounded(sampler) is sampler


def in_float32(sampler: Sampler) -> Sampler:
    make = SOLVERS[sampler.name].make

    def sample(denoise, x, grid, noise):  # type: ignore[no-untyped-def]
        def narrow(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
            return noise(x, t, s).float()

        _, *states = trajectory(make(sampler.schedule), denoise, x.float(), grid, narrow)
        return [state.x for state in states]

    return replace(sampler, sample=sample)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddim", "ddpm", "pndm", "dpmpp_3m", "dpm2_ancestral", "lms"])
def test_a_right_sampler_in_float32_is_no_defect(name: str) -> None:
    """pndm has the largest rounding of all solvers."""
    [sampler] = ours(SCHEDULE, [name])
    found = audit(in_float32(sampler), counts=(1, 2, 3, 10), sweep=(2,))
    assert found.defects == ()
    told = [row.expected for row in found.rows if row.check == "levels"]
    assert told == ["at most 0.00049, rounding of float32"]


def test_orders_leave_rounding_out() -> None:
    """The finest errors of a third order are float32's rounding, which has no order."""
    [sampler] = ours(SCHEDULE, ["dpm_solver_3s"])
    narrow = in_float32(sampler)
    assert_order(narrow, 3)
    with pytest.raises(AssertionError, match="wanted order 3"):
        assert_order(
            replace(narrow, level_tolerance=1e-4), 3
        )  # declared, so the precision is float64's


def test_assertions_see_it_too() -> None:
    assert_order(WAYS["states"][0], 1)
    assert_sound(WAYS["states"][0])


def test_a_wrong_sampler_in_float32_is_a_defect_still() -> None:
    """Just beyond the rounding; and one inside, which float64 would tell."""
    eps = torch.finfo(torch.float32).eps

    def defects(**how) -> set[str]:  # type: ignore[no-untyped-def]
        return {row.check for row in audit(ddim(**how), counts=(10,), sweep=(2,)).defects}

    assert "levels" in defects(before=Tensor.float, off=LEVELS * eps)
    assert "levels" not in defects(before=Tensor.float, off=LEVELS * eps / 100)
    assert "levels" in defects(off=LEVELS * eps / 100)
    sample = GUESSED.sample
    narrow = replace(GUESSED, sample=lambda d, x, g, n: sample(d, x.float(), g, n))
    assert narrowest(narrow) == torch.float32
    assert {row.check for row in audit(narrow, counts=(10,), sweep=(2,)).defects} >= {"levels"}


def test_half_precision_is_said_to_tell_nothing() -> None:
    found = {row.check: row for row in audit(WAYS["half"][0], counts=(10,), sweep=(2,)).rows}
    assert found["levels"].verdict == "limit"
    assert found["levels"].note.startswith("float16 is too coarse to tell (n = 10: step ")


def test_what_is_declared_is_kept() -> None:
    for declared in (
        replace(WAYS["states"][0], level_tolerance=1e-12),
        replace(WAYS["half"][0], precision=0.1),
    ):
        assert rounded(declared) is declared
