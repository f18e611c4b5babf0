"""Samplers of other conventions: exact levels, their order, their noise; wrong ones are found."""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import diffusion_math as dm
from diffusion_math.testing import (
    Sampler,
    UnsupportedError,
    adaptors,
    assert_order,
    audit,
    conformance,
)
from diffusion_math.testing.noise_use import noise_use
from diffusion_math.testing.order import weak_order

pytestmark = pytest.mark.usefixtures("unchecked")
COUNTS = (1, 2, 5, 10)
LADDER = (20, 40, 80)


def heun(D: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """EDM's algorithm 1 (arXiv:2206.00364), with sigma as a batch."""
    for sigma, after in pairwise(sigmas):
        slope = (x - D(x, sigma.expand(len(x)))) / sigma
        end = x + (after - sigma) * slope
        if after > 0:
            end = x + (after - sigma) * (slope + (end - D(end, after.expand(len(x)))) / after) / 2
        x = end
    return x


def ancestral(D: Any, x: Tensor, sigmas: Tensor, wrong: float = 1.0) -> Tensor:
    """k-diffusion's sample_euler_ancestral."""
    for sigma, after in pairwise(sigmas):
        up = (after**2 * (sigma**2 - after**2) / sigma**2).sqrt()
        down = (after**2 - up**2).sqrt()
        x = x + (down - sigma) * (x - D(x, sigma)) / sigma
        x = x + wrong * up * torch.randn_like(x)
    return x


@pytest.mark.parametrize("noisy", [False, True])
def test_an_audit_sees_what_is_done_with_the_noise(noisy: bool) -> None:
    for claimed in (False, True):
        sample = adaptors.of_edm(ancestral if noisy else heun)
        grid = partial(dm.karras, dm.VE(10.0))
        found = noise_use(Sampler("mine", dm.VE(10.0), sample, grid, noisy=claimed))
        assert found is not None and found.fault == ("noisy" if noisy and not claimed else "")


def worst(sampler: Sampler) -> float:
    return conformance.levels(sampler, COUNTS).worst


@pytest.mark.parametrize("schedule", [None, dm.VPLinear(), dm.RectifiedFlow()], ids=str)
def test_edms_convention_on_any_schedule(schedule: Any) -> None:
    own = dm.VE(10.0) if schedule is None else schedule
    start = 0.9 * own.T
    grid = partial(dm.uniform_log_snr, own)
    mine = Sampler("heun", own, adaptors.of_edm(heun, schedule), lambda n: grid(n, start), 2)
    assert worst(mine) < 1e-7  # x / alpha is 100 where x is 1, and sigma falls to 1e-3
    x = torch.ones(1, 2, dtype=torch.float64)
    shown = mine.states(lambda x, t: 0 * x, x, mine.times(5), dm.noise.zeros)
    assert len(shown) == 5  # every node was seen


def test_edms_convention_has_its_order() -> None:
    grid = partial(dm.karras, dm.VE(10.0))
    assert_order(Sampler("heun", dm.VE(10.0), adaptors.of_edm(heun), grid, 2), 2, LADDER)


def test_noise_that_is_drawn_is_the_steps() -> None:
    grid = partial(dm.karras, dm.VE(10.0))
    mine = Sampler("ancestral", dm.VE(10.0), adaptors.of_edm(ancestral), grid, 1, noisy=True)
    assert worst(mine) < 1e-9
    assert weak_order(mine, LADDER, False).order > 0.65
    wrong = adaptors.of_edm(partial(ancestral, wrong=1.1))
    assert worst(Sampler("wrong", dm.VE(10.0), wrong, grid, 1, noisy=True)) > 1e-3


def test_a_sigma_between_two_nodes() -> None:
    def middle(D: Any, x: Tensor, sigmas: Tensor) -> Tensor:
        for sigma, after in pairwise(sigmas):
            between = (sigma + after) / 2
            half = x + (between - sigma) * (x - D(x, sigma)) / sigma
            x = x + (after - sigma) * (half - D(half, between)) / between
        return x

    schedule = dm.VPLinear()
    sample = adaptors.of_edm(middle, schedule)
    mine = Sampler("middle", schedule, sample, partial(dm.uniform_log_snr, schedule), 2)
    assert worst(mine) < 1e-9


def test_a_sampler_that_writes_its_state_in_place_is_right() -> None:
    def euler(v: Any, x: Tensor, times: Tensor) -> Tensor:
        for t, s in pairwise(times):
            x += (s - t) * v(x, t)
        return x

    flow = dm.RectifiedFlow()
    mine = Sampler("euler", flow, adaptors.of_velocity(euler), partial(dm.trailing, flow))
    assert worst(mine) < 1e-9
    assert_order(mine, 1, LADDER)


def evaluated_once(D: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """A second-order predictor whose corrected states D never sees (UniPC's form, in x0)."""
    x0, before, last = D(x, sigmas[0]), None, 1.0
    for sigma, after in pairwise(sigmas):
        if after == 0:
            return x0
        h = (sigma / after).log()
        slope = 0 if before is None else (x0 - before) / last
        guess = after / sigma * x - (-h).expm1() * (x0 + h / 2 * slope)
        new = D(guess, after)
        x = after / sigma * x - (-h).expm1() * (x0 + new) / 2
        before, x0, last = x0, new, h
    return x


def test_a_predictor_is_not_shown_as_a_state() -> None:
    grid = partial(dm.karras, dm.VE(10.0))
    x = torch.ones(2, 2, dtype=torch.float64)

    def shown(sampler: Any, order: int, schedule: Any = None) -> int:
        mine = Sampler("mine", dm.VE(10.0), adaptors.of_edm(sampler), grid, order)
        return len(mine.states(lambda x, t: x.sin(), x, mine.times(5), dm.noise.zeros))

    assert shown(evaluated_once, 2) == 1
    assert shown(heun, 2) == shown(ancestral, 1) == 5
    mine = Sampler("once", dm.VE(10.0), adaptors.of_edm(evaluated_once), grid, 2)
    checks = {row.check: row.verdict for row in audit(mine, sweep=(5,), counts=(1, 2, 5)).rows}
    assert set(checks.values()) == {"sound"} and "order of a step" not in checks


def test_a_predictor_of_a_velocity_is_not_shown_as_a_state() -> None:
    def once(v: Any, x: Tensor, times: Tensor) -> Tensor:
        slope = v(x, times[0])
        for t, s in pairwise(times):
            after = v(x + (s - t) * slope, s)
            x, slope = x + (s - t) * (slope + after) / 2, after
        return x

    flow = dm.RectifiedFlow()
    mine = Sampler(
        "once", flow, adaptors.of_velocity(once), lambda n: dm.trailing(flow, n, end=0.1)
    )
    x = torch.ones(2, 2, dtype=torch.float64)
    assert len(mine.states(lambda x, t: x.sin(), x, mine.times(5), dm.noise.zeros)) == 1


@pytest.mark.parametrize("data_at", [0, 1])
def test_velocities_either_way(data_at: int) -> None:
    def euler(v: Any, x: Tensor, times: Tensor) -> Tensor:
        assert (times[-1] > times[0]) == (data_at == 1)
        for t, s in pairwise(times):
            x = x + (s - t) * v(x, t.expand(len(x)))
        return x

    flow = dm.RectifiedFlow()
    sample = adaptors.of_velocity(euler, data_at)
    mine = Sampler("euler", flow, sample, partial(dm.trailing, flow), 1)
    assert worst(mine) < 1e-9
    assert_order(mine, 1, LADDER)
    turned = adaptors.of_velocity(
        lambda v, x, times: euler(lambda x, t: -v(x, t), x, times), data_at
    )
    assert worst(Sampler("turned", flow, turned, mine.grid, 1)) > 0.1
    with pytest.raises(ValueError, match=r"^data_at: wanted 0 or 1, got 2"):
        adaptors.of_velocity(euler, 2)


class Scheduler:
    """As MONAI's and diffusers' DDIM, `trailing`, in numpy's tables."""

    def __init__(self, result: str = "tuple", shift: int = 0, first: float = 1.0) -> None:
        self.result, self.shift = result, shift
        self.alphas_cumprod = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
        self.final_alpha_cumprod = torch.tensor(first) if first == 1 else self.alphas_cumprod[0]

    def set_timesteps(self, n: int) -> None:
        if n > 500:
            raise ValueError("at most 500")
        self.timesteps = torch.from_numpy(
            np.round(np.linspace(1000, 0, n + 1)[:-1]).astype(int) - 1
        )

    def step(self, eps: Tensor, t: Tensor, x: Tensor, sign: int = 1) -> Any:
        before = [*self.timesteps.tolist(), -1][self.timesteps.tolist().index(t) + 1] + self.shift
        a = self.alphas_cumprod[t]
        b = self.alphas_cumprod[before] if before >= 0 else self.final_alpha_cumprod
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        state = b.sqrt() * x0 + sign * (1 - b).sqrt() * eps
        if self.result == "tuple":
            return state, x0
        return state if self.result == "bare" else SimpleNamespace(prev_sample=state)


@pytest.mark.parametrize("result", ["tuple", "object", "bare"])
def test_schedulers_on_their_own_times(result: str) -> None:
    mine = adaptors.of_scheduler("ddim", partial(Scheduler, result))
    assert not mine.any_grid and mine.times(4).tolist() == [1000, 750, 500, 250, 0]
    assert worst(mine) < 1e-9
    assert conformance.image_to_image(mine, 10).worst < 1e-9
    assert conformance.grid_faults(mine, (1, 3, 600)).refused == 1


def test_a_scheduler_of_a_shifted_index_is_found() -> None:
    assert worst(adaptors.of_scheduler("shifted", partial(Scheduler, shift=1))) > 1e-4
    turned = adaptors.of_scheduler("turned", Scheduler, sign=-1)  # of one distribution on a point
    with pytest.raises(AssertionError, match="turned: wanted order 1"):
        assert_order(turned, 1, LADDER)


def test_the_last_node_is_the_first_index_where_the_scheduler_says_so() -> None:
    mine = adaptors.of_scheduler("ddim", partial(Scheduler, first=0.5))
    assert mine.times(2).tolist() == [1000, 500, 1]
    assert worst(mine) < 1e-9


class ZeroTerminal(Scheduler):
    """The same of v, with alphas_cumprod that end at 0."""

    def __init__(self, zeros: int = 1) -> None:
        super().__init__("bare")
        alpha = self.alphas_cumprod.sqrt()
        alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
        alpha[-zeros:] = 0
        self.alphas_cumprod = alpha.square()

    def step(self, v: Tensor, t: Tensor, x: Tensor, sign: int = 1) -> Tensor:
        before = [*self.timesteps.tolist(), -1][self.timesteps.tolist().index(t) + 1]
        a = self.alphas_cumprod[t]
        b = self.alphas_cumprod[before] if before >= 0 else self.final_alpha_cumprod
        x0, eps = a.sqrt() * x - (1 - a).sqrt() * v, a.sqrt() * v + (1 - a).sqrt() * x
        return b.sqrt() * x0 + (1 - b).sqrt() * eps


def test_a_table_of_zero_terminal_snr_is_taken() -> None:
    mine = adaptors.of_scheduler("zero", ZeroTerminal, predicts="v")
    assert worst(mine) < 1e-9
    assert_order(mine, 1, LADDER)


def test_a_table_that_is_0_before_its_end_is_one_line() -> None:
    wanted = r"^make: wanted alphas_cumprod that fall .* alone, got \[0\.0\] at index \[998\]$"
    with pytest.raises(ValueError, match=wanted):
        adaptors.of_scheduler("zeros", partial(ZeroTerminal, 2), predicts="v")


@pytest.mark.parametrize("result", [{"prev_sample": 0}, (), None])
def test_what_a_step_gives_back_is_told(result: Any) -> None:
    class Mine(Scheduler):
        def step(self, eps: Tensor, t: Tensor, x: Tensor, sign: int = 1) -> Any:
            return result

    mine = adaptors.of_scheduler("mine", Mine)
    wanted = "step: wanted x, a tuple with x first, or an object with prev_sample, got "
    assert wanted in conformance.levels(mine, (3,)).words


def test_other_grids_are_refused() -> None:
    mine = adaptors.of_scheduler("ddim", Scheduler)
    x = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(UnsupportedError, match="on its own times alone"):
        mine.states(lambda x, t: x, x, torch.tensor([900.0, 3, 0]).double(), dm.noise.zeros)


DIFFUSERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "DDIM": ("DDIMScheduler", {"prediction_type": "epsilon"}, {}),
    "DDIM of v": ("DDIMScheduler", {"prediction_type": "v_prediction"}, {"predicts": "v"}),
    "DDIM of x0": ("DDIMScheduler", {"prediction_type": "sample"}, {"predicts": "x0"}),
    "DDPM": ("DDPMScheduler", {}, {"noisy": True}),
    "Euler, divided by alpha": ("EulerDiscreteScheduler", {}, {}),
    "Euler of v": (
        "EulerDiscreteScheduler",
        {"prediction_type": "v_prediction"},
        {"predicts": "v"},
    ),
    "Euler, ancestral": ("EulerAncestralDiscreteScheduler", {}, {"noisy": True}),
    "DPM-Solver++": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, {"order": 2}),
    "rectified flow": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers_schedulers(name: str) -> None:
    import diffusers

    kind, config, claim = DIFFUSERS[name]
    given = {"timestep_spacing": "trailing"} | config if "Flow" not in kind else config
    given |= {"clip_sample": False} if kind.startswith("DD") else {}
    mine = adaptors.of_scheduler(name, partial(getattr(diffusers, kind), **given), **claim)
    assert worst(mine) < 2e-3  # float32 of tables, and of sigma / alpha = 150
    assert conformance.image_to_image(mine, 10).worst < 2e-3


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_scheduler_with_pairs_of_calls_is_told() -> None:
    from diffusers import HeunDiscreteScheduler

    with pytest.raises(
        ValueError, match=r"^make: wanted a scheduler of one call a level, got times"
    ):
        adaptors.of_scheduler("Heun", HeunDiscreteScheduler)


def test_what_is_no_scheduler_is_told() -> None:
    with pytest.raises(ValueError, match=r"^make: wanted a scheduler with set_timesteps, got dict"):
        adaptors.of_scheduler("none", dict)
    bare = SimpleNamespace(set_timesteps=print, step=print)
    with pytest.raises(ValueError, match=r"^make: wanted .* alphas_cumprod or sigmas, got Simple"):
        adaptors.of_scheduler("none", lambda: bare)
    with pytest.raises(ValueError, match=r"^predicts: wanted one of eps, .*, got 'noise'"):
        adaptors.of_scheduler("ddim", Scheduler, predicts="noise")


def churned(D: Any, x: Tensor, sigmas: Tensor, churn: float = 4.0, twice: bool = False) -> Tensor:
    """Euler after EDM's churn: noise is added before the network is evaluated."""
    gamma = min(churn / (len(sigmas) - 1), 2**0.5 - 1)
    for sigma, after in pairwise(sigmas):
        hat = sigma * (1 + gamma * bool(after > 0))
        x = x + (hat**2 - sigma**2).sqrt() * torch.randn_like(x)
        x = x + 0 * torch.randn_like(x) if twice else x
        x = x + (after - hat) * (x - D(x, hat)) / hat
    return x


def test_noise_that_is_added_before_the_network_is_evaluated() -> None:
    schedule = dm.VE(160.0)
    grid = lambda n: dm.karras(schedule, n, start=80.0)  # noqa: E731
    mine = Sampler("churned", schedule, adaptors.of_edm(churned), grid, 1, noisy=True)
    assert conformance.levels(mine, (1, 2, 5)).worst < 1e-9
    assert weak_order(mine, LADDER, False).order > 0.65


def test_two_draws_in_a_step_are_told() -> None:
    sample = adaptors.of_edm(partial(churned, twice=True))
    grid = dm.VE(10.0).sigma_max * torch.tensor([0.9, 0.5, 0.0], dtype=torch.float64)
    with pytest.raises(AssertionError, match="wanted one draw of a normal in each of 2 steps"):
        sample(lambda x, t: 0 * x, torch.ones(1, 2).double(), grid, lambda x, t, s: x)


@pytest.mark.parametrize("mistake", [0.0, 1e-6])
def test_a_step_that_amplifies_rounding_is_right(mistake: float) -> None:
    """Heun's step from sigma = 80 to 0.002 amplifies the rounding of a state a million times."""
    schedule = dm.VE()

    def own(D: Any, x: Tensor, sigmas: Tensor) -> Tensor:
        return heun(D, x, sigmas) * (1 + mistake)

    sample = adaptors.of_edm(own)
    mine = Sampler("heun", schedule, sample, lambda n: dm.karras(schedule, n), 2)
    found = conformance.levels(mine, (1, 2, 5, 10)).worst
    assert (found > mine.level_tolerance) == bool(mistake)
