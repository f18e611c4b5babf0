"""The prediction that leads a DDIM step along a teacher's path, and its training."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math import distillation, prediction
from diffusion_math.loss import training_loss
from diffusion_math.sample import final, trajectory
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.solvers import ddim, dpmpp_2m
from tests.support.inpainted import CORRELATED
from tests.support.tensors import f64, normal

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own

SCHEDULES = [VPLinear(), VPCosine(), VE(), RectifiedFlow(), Discrete.scaled_linear(1000)]
PLACES = st.floats(0.0, 1.0)


def between(schedule, share):
    """A time at that share of the schedule's domain, whole on a table."""
    t = share * float(schedule.T)
    return f64(round(t) if isinstance(schedule, Discrete) else t)[0]


@given(st.sampled_from(SCHEDULES), PLACES, PLACES)
def test_the_ddim_step_leads_there(schedule, first, second):
    """(distillation.2) inverts (distillation.1), on every schedule, between any two times."""
    s, t = (
        between(schedule, 0.9 * first),
        between(schedule, 0.9 * first + 0.1 * (0.1 + 0.9 * second)),
    )
    x_t, x_s = normal(3, 2).double(), normal(3, 2, seed=1).double()
    if float(s) < float(schedule.t_min):
        s = torch.zeros_like(s)
    x0 = distillation.target(schedule, x_t, x_s, t, s)
    end = final(ddim(schedule), lambda x, time: x0, x_t, torch.stack([t, s]))
    scale = 1 + float(x0.abs().max())
    torch.testing.assert_close(end, x_s, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_at_the_last_step_it_is_the_end_of_the_path(schedule):
    x_t, x_s = normal(2, 3).double(), normal(2, 3, seed=1).double()
    t = between(schedule, 0.4)
    torch.testing.assert_close(distillation.target(schedule, x_t, x_s, t, t * 0), x_s)


def test_a_student_that_predicts_it_takes_the_teachers_path_in_few_calls():
    """Four DDIM steps end where sixty-four of the teacher do; four of the teacher do not."""
    schedule = VPCosine()
    denoise = CORRELATED.denoiser(schedule)
    fine = torch.linspace(0.95, 0.0, 65, dtype=torch.float64)
    x = normal(50, 2).double()
    path = [state.x for state in trajectory(dpmpp_2m(schedule), denoise, x, fine)][::16]
    coarse = fine[::16]
    calls = []

    def student(x_t, t):
        calls.append(t)
        place = len(calls) - 1
        return distillation.target(schedule, x_t, path[place + 1], t, coarse[place + 1])

    end = final(ddim(schedule), student, x, coarse)
    torch.testing.assert_close(end, path[-1])
    plain = final(ddim(schedule), denoise, x, coarse)
    assert len(calls) == 4 and float((plain - end).abs().max()) > 0.1


@pytest.mark.parametrize("schedule", [VPLinear(), RectifiedFlow(), VE()])
def test_its_noise_is_the_mean_slope_of_the_path(schedule):
    """eps = (x_s / alpha_s - x_t / alpha_t) / (sigma_s / alpha_s - sigma_t / alpha_t)."""
    t, s = between(schedule, 0.8), between(schedule, 0.3)
    x_t, x_s = normal(3, 2).double(), normal(3, 2, seed=1).double()
    x0 = distillation.target(schedule, x_t, x_s, t, s)
    (a, b), (c, d) = schedule(t), schedule(s)
    slope = (x_s / c - x_t / a) / (d / c - b / a)
    torch.testing.assert_close(prediction.eps_from_x0(schedule, x_t, x0, t), slope)


@pytest.mark.parametrize("kind", ["x0", "eps", "v"])
def test_the_ordinary_loss_is_zero_at_it_alone(kind):
    """The pair (x0, eps) is clean data and noise of x_t; each example has times of its own."""
    schedule = Discrete.scaled_linear(1000)
    t, s = f64(900.0, 500.0, 40.0), f64(700.0, 100.0, 0.0)
    x_t, x_s = normal(3, 2).double(), normal(3, 2, seed=1).double()
    x0 = distillation.target(schedule, x_t, x_s, t, s)
    eps = prediction.eps_from_x0(schedule, x_t, x0, t)
    wanted = prediction.target(schedule, kind, x0, eps, t)

    def network(x, time, off=0.0):
        torch.testing.assert_close(x, x_t)
        assert torch.equal(time, t - 1)
        return wanted + off

    assert float(training_loss(schedule, network, kind, x0, eps, t).max()) < 1e-24
    wrong = training_loss(schedule, lambda x, time: network(x, time, 0.1), kind, x0, eps, t)
    torch.testing.assert_close(wrong, torch.full((3,), 0.02, dtype=torch.float64))


def test_invalid_arguments_raise():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=re.escape("t, s: wanted a signal-to-noise ratio that")):
        distillation.target(VPLinear(), x, x, 0.3, 0.3)
    with pytest.raises(ValueError, match=re.escape("t, s: wanted a signal-to-noise ratio that")):
        distillation.target(VPLinear(), x, x, f64(0.3, 0.5), f64(0.2, 0.6))
    with pytest.raises(ValueError, match="x_s: wanted"):
        distillation.target(VPLinear(), x, torch.zeros(2, 4), 0.5, 0.2)
