"""Networks of every kind, seen as denoisers, against the exact mixture."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math import denoiser, prediction
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.fitting import _memo
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear

SCHEDULES = [
    Discrete.linear(50),
    Discrete.cosine(7),
    Discrete.linear(1),
    VPLinear(),
    VPCosine(),
    VE(),
    RectifiedFlow(),
]
KINDS = {
    "eps": (denoiser.from_eps, prediction.eps_from_x0),
    "v": (denoiser.from_v, prediction.v_from_x0),
    "score": (denoiser.from_score, prediction.score_from_x0),
    "flow": (denoiser.from_flow, prediction.flow_from_x0),
    "x0": (denoiser.from_x0, lambda schedule, x_t, x0, t: x0),
}
MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7]).log(),
    torch.tensor([[1.0, -1.0], [-0.5, 0.5]]),
    torch.tensor([0.2, 0.4]),
)


def inner_time(schedule, part):
    """A time strictly inside the legal range, whole on a discrete schedule."""
    if isinstance(schedule, Discrete):
        return float(1 + math.floor(part * (schedule.T - 1)))
    return schedule.t_min + part * (schedule.t_max - schedule.t_min)


@pytest.mark.parametrize("kind", KINDS)
@given(
    schedule=st.sampled_from(SCHEDULES),
    parts=st.lists(st.floats(0, 1), min_size=0, max_size=4),
    one_time=st.booleans(),
)
def test_a_perfect_network_of_any_kind_is_the_posterior_mean(kind, schedule, parts, one_time):
    """Each wrapper undoes its parameterisation, at one time and at a time per sample.

    Tolerance: x0 out of eps or score is divided by alpha_t >= 1e-3 here, so float64's 2e-16 of
    numbers up to 80 (VE) may grow to 2e-11.
    """
    from_kind, view = KINDS[kind]
    times = torch.tensor([inner_time(schedule, part) for part in parts], dtype=torch.float64)
    x_t = torch.linspace(-2, 2, 2 * len(parts), dtype=torch.float64).reshape(-1, 2)
    t = times[0] if one_time and len(parts) else times
    shift = 1 if isinstance(schedule, Discrete) else 0

    def network(x, time):
        assert time.shape == (len(x),)
        torch.testing.assert_close(time, (t - shift).expand(len(x)), rtol=0, atol=0)
        return view(schedule, x, MIXTURE.posterior_mean(schedule, x, time + shift), time + shift)

    got = from_kind(network, schedule)(x_t, t)
    torch.testing.assert_close(got, MIXTURE.posterior_mean(schedule, x_t, t), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("right", lambda x, score, alpha, sigma: (x + sigma**2 * score) / alpha),
        ("flipped sign", lambda x, score, alpha, sigma: (x - sigma**2 * score) / alpha),
        ("sigma for sigma^2", lambda x, score, alpha, sigma: (x + sigma * score) / alpha),
        ("lost alpha", lambda x, score, alpha, sigma: x + sigma**2 * score),
    ],
)
def test_tweedie_is_told_from_its_wrong_versions(name, formula):
    """from_score computes the right formula, and differs from each wrong one."""
    schedule, t = VPLinear(), torch.tensor(0.4, dtype=torch.float64)
    x = torch.tensor([[0.3, -1.2], [2.0, 0.1]], dtype=torch.float64)
    score = MIXTURE.score(schedule, x, t)
    got = denoiser.from_score(lambda x, time: score, schedule)(x, t)
    assert torch.allclose(formula(x, score, *schedule(t)), got, rtol=1e-12) == (name == "right")


def test_a_discrete_network_is_fed_t_minus_one():
    """Schedule times 1..T are the network's 0..T - 1, the first and the last included."""
    schedule, seen = Discrete.linear(1000), []

    def network(x, time):
        seen.append(time.tolist())
        return x

    denoise = denoiser.from_eps(network, schedule)
    x = torch.zeros(2, 3)
    for t in (1, 1000):
        denoise(x, torch.tensor(float(t)))
    denoise(x, torch.tensor([1, 1000]))
    assert seen == [[0.0, 0.0], [999.0, 999.0], [0.0, 999.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_times_survive_the_network_s_dtype(dtype):
    """Every index up to 999 arrives exactly (bfloat16 itself would round 999 to 1000)."""
    schedule = Discrete.linear(1000)
    t = torch.arange(1, 1001, dtype=torch.float64)
    time = denoiser.network_time(schedule, torch.zeros(1000, 1, dtype=dtype), t)
    assert time.tolist() == list(range(1000))
    x = torch.ones(1000, 1, dtype=dtype)
    assert denoiser.from_eps(lambda x, time: x, schedule)(x, t).dtype == dtype


def test_a_time_with_gradients_hands_them_on():
    t = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x0 = denoiser.from_x0(lambda x, time: x * time[:, None], VPLinear())(torch.ones(2, 3), t)
    x0.sum().backward()
    assert t.grad == 6


@pytest.mark.parametrize("t", [0.0, [1.0, 0.0]])
def test_clean_data_has_no_index(t):
    """At t = 0 a discrete network would be fed -1: an error, not a wrap-around."""
    with pytest.raises(ValueError, match=r"t: wanted every entry in \[1, 10\], got 0"):
        denoiser.from_eps(lambda x, time: x, Discrete.linear(10))(
            torch.zeros(2, 2), torch.tensor(t)
        )


def test_times_of_another_batch_are_rejected():
    """t must be () or (batch,)."""
    with pytest.raises(ValueError, match="t: wanted shape"):
        denoiser.from_v(lambda x, time: x, VPLinear())(torch.zeros(2, 2), torch.tensor([0.1] * 3))


def test_an_answer_is_kept_for_the_same_question_alone():
    asked = []

    def denoise(x_t, t):
        asked.append((x_t, t))
        return x_t + t

    once, x, t = _memo.Once(denoise), torch.ones(2), torch.tensor(0.5)
    assert once(x, t) is once(x, t) and len(asked) == 1
    assert once(2 * x, t).equal(2 * x + t) and once(x, t / 2).equal(x + t / 2)
    assert len(asked) == 3
