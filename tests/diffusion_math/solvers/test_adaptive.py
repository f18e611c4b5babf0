"""The adaptive solver: its pair, its error control, each sample for itself."""

import math

import pytest
import torch

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.grid import uniform_log_snr
from diffusion_math.noise import zeros
from diffusion_math.sample import trajectory
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.solvers import adaptive
from diffusion_math.solvers.adaptive import _solve, bogacki_shampine
from diffusion_math.solvers.step import State
from tests.support.solver_step import MIXTURE, X
from tests.support.tensors import f64

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

ONE = GaussianMixture(f64(0.0), f64([0.7]), f64(0.3))


def solve(schedule, tolerance, t, s, x, data=ONE, most=10_000):
    calls = []

    def denoise(x, time):
        calls.append(time)
        return data.posterior_mean(schedule, x, time)

    step = bogacki_shampine(schedule, tolerance, tolerance, most)
    return step(denoise, State(x, t), t, s, zeros).x, calls


@pytest.mark.parametrize(
    "schedule", [VPLinear(), VPCosine(), VE(), RectifiedFlow(), Discrete.linear()], ids=repr
)
def test_the_error_follows_the_tolerance(schedule):
    """A hundredth of the tolerance, about a fifth of the size: third order."""
    t = f64(schedule.T)[0]
    s = schedule.time(4.0) if not isinstance(schedule, Discrete) else f64(40)[0]
    x = schedule(t)[1] * f64([1.3], [-0.4])
    exact = ONE.probability_flow(schedule, x, t, s)
    errors, counts = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        got, calls = solve(schedule, tolerance, t, s, x)
        errors.append((got - exact).abs().max().item())
        counts.append(len(calls))
    assert errors[0] < 0.02 and errors[1] < 2e-4 and errors[2] < 5e-6
    assert counts[0] < counts[1] < counts[2]


def test_one_accepted_step_is_the_published_pair():
    """The straight chart of rectified flow is x against t: Bogacki and Shampine by hand."""
    schedule, t, s = RectifiedFlow(), f64(0.5)[0], f64(0.49)[0]
    x, seen = f64([1.0]), []

    def field(x, time):
        return (x - ONE.posterior_mean(schedule, x, time)) / time

    def step(x, t, h):
        k1 = field(x, t)
        k2 = field(x + h / 2 * k1, t + h / 2)
        k3 = field(x + 3 * h / 4 * k2, t + 3 * h / 4)
        return x + h * (2 / 9 * k1 + 1 / 3 * k2 + 4 / 9 * k3)

    def denoise(x, time):
        seen.append(float(time[0]))
        return ONE.posterior_mean(schedule, x, time)

    got = bogacki_shampine(schedule)(denoise, State(x, t), t, s, zeros).x
    first = 0.5 - 0.01 / 16
    wanted = step(x, t, f64(-0.01 / 16)[0])
    for a, b in ((first, first - 5 * 0.01 / 16), (first - 5 * 0.01 / 16, 0.49)):
        wanted = step(wanted, f64(a)[0], f64(b - a)[0])
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)
    assert seen[0] == pytest.approx(0.5) and seen[-1] == pytest.approx(0.49)
    assert len(seen) == 1 + 3 * 3  # first same as last


def test_a_row_takes_its_own_steps():
    """Alone and beside a row that needs many more steps a sample ends at the same place."""
    schedule, t, s = VPLinear(), f64(1)[0], f64(0.01)[0]
    together, _ = solve(schedule, 1e-4, t, s, X, MIXTURE)
    for i in range(len(X)):
        alone, _ = solve(schedule, 1e-4, t, s, X[i : i + 1], MIXTURE)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("wide", [1, 4, 64])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_the_error_is_a_mean_and_relative(wide, scale):
    """Equal entries take the steps of one; at no absolute tolerance, so does their multiple."""
    schedule, (t, s) = VPLinear(), f64(0.9, 0.1)
    calls = []

    def denoise(x, time):  # of N(0, 0.3 I)
        alpha, sigma = (value[:, None] for value in schedule(time))
        calls.append(time)
        return 0.3 * alpha / (0.3 * alpha**2 + sigma**2) * x

    step = bogacki_shampine(schedule, 1e-4, 1e-12)
    step(denoise, State(torch.full((1, wide), scale).double(), t), t, s, zeros)
    one = len(calls)
    calls.clear()
    step(denoise, State(f64([1.0]), t), t, s, zeros)
    assert one == len(calls) > 10


@pytest.mark.parametrize("error", [0.5, 1.5, 1e-3, 1e3])
def test_a_step_is_refused_above_the_tolerance_and_the_next_is_sized_by_its_error(error):
    """du/dtau = c tau^2 from 0: the pair's distance is c h^3 / 24, and the error with atol = 1."""
    start, stop = f64(1.0, 0.5)
    h = (stop - start) / 16
    c, asked = 24 * error / abs(h) ** 3, []

    def slope(u, place):
        asked.append(place[0])
        return (c * place**2)[:, None]

    with pytest.raises(RuntimeError):
        adaptive._solve(slope, f64([0.0]), start, stop, 1e-30, 1.0, 2)
    begin = start if error > 1 else start + h
    size = h * min(max(0.9 * error ** (-1 / 3), 0.2), 5)
    for place, share in zip(asked[4:], (1 / 2, 3 / 4, 1), strict=True):
        assert float(place) == pytest.approx(float(begin + share * size), abs=1e-12)


def by_hand(f, u, tau, stop, tolerance):
    """The pair in plain numbers, every attempt's first slope evaluated anew; u and its attempts."""
    h, attempts, refused = (stop - tau) / 16, 0, 0
    while tau != stop:
        h = min(h, stop - tau)
        k1 = f(u, tau)
        k2 = f(u + h / 2 * k1, tau + h / 2)
        k3 = f(u + 3 * h / 4 * k2, tau + 3 * h / 4)
        third = u + h * (2 * k1 + 3 * k2 + 4 * k3) / 9
        k4 = f(third, tau + h)
        off = h * (-5 * k1 / 72 + k2 / 12 + k3 / 9 - k4 / 8)
        error = abs(off) / (tolerance + tolerance * max(abs(u), abs(third)))
        if error <= 1:
            u, tau = third, stop if h == stop - tau else tau + h
        attempts, refused = attempts + 1, refused + (error > 1)
        h *= min(max(0.9 * max(error, 1e-12) ** (-1 / 3), 0.2), 5)
    return u, attempts, refused


def test_after_a_refusal_the_slope_is_still_the_start_s():
    """A step begins with the slope where it begins, whether the one before was taken or refused.

    With the slope at a refused step's end errors are twelve times as large, at twice the calls,
    and the order stays. A field whose turns force a dozen refusals; the same numbers by hand.
    """
    asked = []

    def field(u, tau):
        return 6 * math.cos(60 * tau) * (1 + u)

    def slope(u, place):
        asked.append(place)
        return 6 * torch.cos(60 * place)[:, None] * (1 + u)

    wanted, attempts, refused = by_hand(field, 0.3, 0.0, 1.0, 1e-6)
    got = _solve(slope, f64([0.3]), *f64(0.0, 1.0), 1e-6, 1e-6, 10_000)
    assert float(got) == pytest.approx(wanted, rel=1e-9)
    assert len(asked) == 1 + 3 * attempts and refused > 5
    exact = 1.3 * math.exp(math.sin(60) / 10) - 1
    assert float(got) == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("first", [1e-4, 3e-3, 6e-3, 8e-3, 0.013, 0.026])
def test_a_table_ends_at_its_first_time(first):
    """log(alpha / sigma) at the end, computed from tau, is beyond most of these by rounding."""
    schedule = Discrete.linear(10, first, 0.2)
    x, _ = solve(schedule, 1e-2, f64(2)[0], f64(1)[0], f64([1.3], [-0.4]))
    assert x.isfinite().all()


def test_too_many_steps_are_an_error():
    args = (VPLinear(), 1e-8, f64(1)[0], f64(0.01)[0], f64([1.0]))
    needed = (len(solve(*args)[1]) - 1) // 3
    solve(*args, most=needed)
    with pytest.raises(RuntimeError, match=f"most: the tolerances need more than {needed - 1}"):
        solve(*args, most=needed - 1)


def test_the_most_steps_are_named():
    with pytest.raises(RuntimeError, match=r"^most: the tolerances need more than 1 steps$"):
        solve(VPLinear(), 1e-8, f64(1)[0], f64(0.01)[0], f64([1.0]), most=1)


def test_it_refines_what_a_grid_leaves():
    """On [T, t_min, 0] the flow is solved to t_min, and the rest is the mean there."""
    schedule = VPLinear()
    grid = f64(1, schedule.t_min, 0)
    step = bogacki_shampine(schedule, 1e-8, 1e-8)
    _, middle, end = trajectory(step, ONE.denoiser(schedule), f64([0.5]), grid)
    exact = ONE.probability_flow(schedule, f64([0.5]), grid[0], grid[1])
    torch.testing.assert_close(middle.x, exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(end.x, ONE.posterior_mean(schedule, middle.x, grid[1]))
    assert len(uniform_log_snr(schedule, 2)) == 3


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0, 1e-3), "rtol"), ((2, 1e-3), "rtol"), ((1e-3, 0), "atol"), ((1e-3, 1e-3, 0), "most")],
)
def test_illegal_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"{name}: wanted"):
        bogacki_shampine(VPLinear(), *arguments)


@pytest.mark.parametrize(("error", "good"), [(0.3, True), (1.0, True), (1.5, False)])
def test_sizes_are_float64_of_float32_errors_up_to_the_tolerance_itself(error, good):
    """An error of 1 is good. In float32 the next size would be 1e-8 of itself off."""
    error, h = torch.tensor([[error]]), -1 / 32
    asked = []

    def slope(u, place):
        asked.append(place)
        return -8 * error / h * (len(asked) == 4)

    with pytest.raises(RuntimeError):
        _solve(slope, torch.zeros(1, 1), *f64(1.0, 0.5), 1e-30, 1.0, 2)
    size = h * min(max(0.9 * error.item() ** (-1 / 3), 0.2), 5)
    begin = 1 + h if good else 1
    assert asked[4].item() == pytest.approx(begin + size / 2, rel=1e-14)


def test_a_step_as_long_as_what_is_left_is_the_last():
    """It lands on the end itself: -0.9 and where the second step ends round, and their sum would.

    The error of the second step is looked for of which the third has just this size.
    """
    start, stop = f64(1.0, 0.1)
    size = (stop - start) / 16
    second = start + size
    size, third = 5 * size, second + 5 * size
    left = stop - third
    near = (0.9 / (left / size)) ** 3 * (1 + 2**-52 * torch.arange(-64, 65).double())
    error = near[size * (0.9 * near ** (-1 / 3)) == left][1]  # with one such on either side
    assert third + left != stop
    asked = []

    def slope(u, place):
        asked.append(place.item())
        return (-8 * error / size if len(asked) == 7 else f64(0.0)[0]).expand(1, 1)

    _solve(slope, f64([0.0]), start, stop, 1e-30, 1.0, 10)
    assert len(asked) == 1 + 3 * 3 and asked[-1] == stop


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_denoiser_is_asked_and_taken_in_the_dtype_of_the_state(dtype):
    """Its answer in another dtype is rounded to the walk's own, float32 at least, before use."""
    schedule, asked = VPLinear(), []

    def denoise(x, t, to=None):
        asked.append(x.dtype)
        answer = ONE.posterior_mean(schedule, x.double(), t)
        return answer if to is None else answer.to(to)

    state, wide = (
        State(f64([0.5], [1.0]).to(dtype), f64(1.0)[0]),
        torch.promote_types(dtype, torch.float32),
    )
    step = bogacki_shampine(schedule)
    found = step(denoise, state, *f64(1.0, 0.3), zeros).x
    assert set(asked) == {dtype} and found.dtype == dtype
    same = step(lambda x, t: denoise(x, t, wide), state, *f64(1.0, 0.3), zeros).x
    assert found.equal(same)


def test_ten_thousand_steps_are_the_most_where_none_are_said(monkeypatch):
    said = []
    monkeypatch.setattr(adaptive, "_solve", lambda *args: said.append(args[-3:]) or args[1])
    state = State(f64([0.5]), f64(1.0)[0])
    bogacki_shampine(VPLinear())(lambda x, t: x, state, *f64(1.0, 0.3), zeros)
    assert said == [(1e-3, 1e-3, 10_000)]
