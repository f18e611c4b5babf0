"""Coefficients that are kept: computed once, never stale, never shared."""

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from diffusion_math._kept import forget, kept, scalar
from diffusion_math.sample import final
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear
from diffusion_math.solvers.registry import SOLVERS
from tests.support.tensors import f64

SCHEDULES = [Discrete.scaled_linear(40), VPLinear(), VPCosine(), VE(), RectifiedFlow()]
by_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


class Trained(Schedule):
    """A flow whose noise has an exponent: a schedule that training changes."""

    T, t_min, t_max, scale = 1.0, 1e-3, 0.999, 1.0

    def __call__(self, t):
        time = torch.as_tensor(t, dtype=torch.float64)
        return 1 - time, time**self.scale

    def log_snr(self, t):
        alpha_t, sigma_t = self(t)
        return 2 * (alpha_t.log() - sigma_t.log())

    def time(self, log_snr):
        """By bisection: the log-SNR falls."""
        low, high = torch.zeros(()).double(), torch.ones(()).double()
        for _ in range(60):
            middle = (low + high) / 2
            above = bool(self.log_snr(middle) > log_snr)
            low, high = (middle, high) if above else (low, middle)
        return (low + high) / 2


@pytest.fixture
def calls() -> Iterator[tuple]:
    """A function that counts its calls."""
    seen: list[tuple] = []

    @kept
    def function(schedule: Schedule, t: object, eta: float = 0.0) -> torch.Tensor:
        seen.append((t, eta))
        return schedule(t)[1]

    return function, seen


def test_a_value_is_computed_once_for_a_time(calls) -> None:
    """Whether the time is a number or a tensor, in any dtype; other settings are other values."""
    function, seen = calls
    schedule = VE()
    for t in (0.5, f64(0.5)[0], torch.tensor(0.5, dtype=torch.float32)):
        assert function(schedule, t) == 0.5
    assert seen == [(0.5, 0.0)]
    function(VE(), 0.5), function(VE(60.0), 0.5), function(schedule, 0.5, 1.0)
    assert seen == [(0.5, 0.0), (0.5, 0.0), (0.5, 1.0)]  # VE() equals VE()


def test_arguments_by_name_are_those_by_place(calls) -> None:
    function, seen = calls
    for t in (f64(0.5)[0], f64(0.5)[0]):
        assert function(schedule=VE(), t=t) == function(VE(), t) == function(VE(), t=t) == 0.5
    assert len(seen) == 1
    changing = Trained()
    assert function(t=0.5, schedule=changing) == 0.5
    changing.scale = 2.0
    assert function(t=0.5, schedule=changing) == 0.25
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'time'"):
        function(VE(), time=0.5)


def test_times_of_a_batch_are_computed_anew(calls) -> None:
    function, seen = calls
    for _ in range(2):
        assert function(VE(), f64(0.5, 1.0)).tolist() == [0.5, 1.0]
    assert len(seen) == 2


@pytest.mark.parametrize("name", ["ddim", "ddpm", "heun", "dpmpp_2m", "unipc", "plms", "lms"])
def test_a_schedule_that_changes_is_followed(name: str) -> None:
    """After training has changed it, a step that has been used is that of a new schedule."""
    schedule, grid, x = Trained(), f64(0.8, 0.6, 0.4, 0.2), f64([1.0, -2.0])
    noise = lambda x, t, s: torch.ones_like(x)  # noqa: E731
    step, denoise = SOLVERS[name](schedule), lambda x, t: x.sin() * t
    before = final(step, denoise, x, grid, noise)
    schedule.scale = 2.0
    fresh = Trained()
    fresh.scale = 2.0
    after = final(step, denoise, x, grid, noise)
    assert torch.equal(after, final(SOLVERS[name](fresh), denoise, x, grid, noise))
    assert (after - before).abs().max() > 1e-3


@by_schedule
def test_a_value_is_the_caller_s_own(schedule: Schedule) -> None:
    """To change it in place changes no later one."""
    t = schedule.T / 2
    for read in (schedule, schedule.log_snr):
        before = [one.clone() for one in torch.atleast_1d(*_all(read(t)))]
        for one in _all(read(t)):
            one.add_(1)
        assert all(map(torch.equal, before, torch.atleast_1d(*_all(read(t)))))


@by_schedule
def test_a_value_kept_in_inference_mode_has_gradients_outside(schedule: Schedule) -> None:
    t = 0.35 * schedule.T if not isinstance(schedule, Discrete) else 13.0
    with torch.inference_mode():
        schedule(t), schedule.log_snr(t)
    x = f64(1.0, 2.0).requires_grad_()
    alpha_t, sigma_t = schedule(t)
    (alpha_t * x + sigma_t * schedule.log_snr(t) * x.square()).sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())


def test_a_table_of_levels_ends_with_its_last_user() -> None:
    schedule = Discrete.linear(50)
    schedule(5.0), VPLinear()(0.5)
    gone = weakref.ref(schedule)
    del schedule
    gc.collect()
    assert gone() is None


@by_schedule
def test_what_a_fake_mode_computes_is_not_kept(schedule: Schedule) -> None:
    """Fake tensors have no numbers, and a later call would be given one."""
    forget()
    t = 15.0 if isinstance(schedule, Discrete) else 0.37
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert any(
            type(one) is not torch.Tensor for one in (*schedule(t), scalar(t, torch.float32))
        )
    found = *schedule(t), scalar(t, torch.float32)
    assert {type(one) for one in found} == {torch.Tensor}


def test_what_is_forgotten_is_computed_again(calls) -> None:
    function, seen = calls
    for _ in range(2):
        function(VE(), 0.5)
    forget()
    function(VE(), 0.5)
    assert len(seen) == 2


def test_a_message_names_what_was_given() -> None:
    for t in (1.5, f64(1.5)[0]):
        with pytest.raises(ValueError, match=r"^t: wanted every entry in \[0, 1\], got 1\.5$"):
            VPLinear()(t)


def _all(found: object) -> tuple[torch.Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)  # type: ignore[return-value]
