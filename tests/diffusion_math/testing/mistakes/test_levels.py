"""Levels of code under test: what is read, what is refused, what rounding is taken for."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from diffusion_math.schedule import VE, Discrete, RectifiedFlow
from diffusion_math.testing.mistakes.levels import Levels, Rows, neighbours, pairs_of

SCHEDULE = Discrete.linear(20)


def test_positions_go_from_clean_data_to_the_most_noise() -> None:
    levels = Levels.read(lambda i: SCHEDULE(i + 1), range(20))
    alpha, sigma = SCHEDULE(torch.arange(21))
    assert levels.times == (None, *range(20))
    assert torch.equal(levels.alpha, alpha) and torch.equal(levels.sigma, sigma)
    step = levels.at(Rows(torch.tensor([3, 20]), torch.tensor([0, 19])))
    assert torch.equal(step.alpha_t, alpha[[3, 20]]) and torch.equal(step.sigma_s, sigma[[0, 19]])


@pytest.mark.parametrize(
    "times", [np.arange(1, 4), torch.arange(1, 4), [np.int64(1), np.int64(2), np.int64(3)]]
)
def test_times_of_any_library_become_plain_numbers(times) -> None:  # type: ignore[no-untyped-def]
    levels = Levels.read(SCHEDULE, times)
    assert levels.times == (None, 1, 2, 3)
    assert all(type(time) is int for time in levels.times[1:])


@pytest.mark.parametrize(
    ("kind", "eps"),
    [
        (float, 2.0**-52),
        (np.float32, 2.0**-23),
        (np.float64, 2.0**-52),
        (torch.tensor, 2.0**-23),
        (lambda value: torch.tensor(value, dtype=torch.float16), 2.0**-10),
        (Fraction, 2.0**-52),
    ],
)
def test_the_rounding_is_that_of_the_numbers(kind, eps: float) -> None:  # type: ignore[no-untyped-def]
    assert Levels.read(lambda t: (kind(0.5), kind(0.5)), [1]).eps == eps


@pytest.mark.parametrize(
    ("levels", "times", "message"),
    [
        (SCHEDULE, [], "times: wanted at least one time"),
        (SCHEDULE, [1, 1], "times: wanted each time once"),
        (SCHEDULE, [1, 3, 2], "times: wanted a signal-to-noise ratio that falls .* rise up to 2"),
        (SCHEDULE, [0, 1], r"levels\(0\): wanted finite alpha >= 0 and sigma > 0, got \(1.0, 0.0"),
        (lambda t: (float("nan"), 1.0), [1], r"levels\(1\): wanted finite"),
        (lambda t: (1.0, float("inf")), [1], r"levels\(1\): wanted finite"),
        (lambda t: (-1.0, 1.0), [1], r"levels\(1\): wanted finite alpha >= 0"),
        (lambda t: 0.5, [7], r"levels\(7\): wanted \(alpha, sigma\), got 0.5"),
        (lambda t: (0.5,), [7], r"levels\(7\): wanted \(alpha, sigma\)"),
        (lambda t: [][t], [7], r"levels\(7\): wanted \(alpha, sigma\), got IndexError: list index"),
        (lambda t: (None, 1.0), [7], r"levels\(7\): wanted \(alpha, sigma\), got \(None, 1.0\)"),
    ],
)
def test_no_levels_are_refused_by_name(levels, times: list[int], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=f"^{message}"):
        Levels.read(levels, times)


def test_the_last_time_may_have_no_signal() -> None:
    assert Levels.read(RectifiedFlow(), [0.5, 1.0]).alpha.tolist() == [1.0, 0.5, 0.0]


def test_neighbours_end_at_clean_data() -> None:
    rows = neighbours(Levels.read(SCHEDULE, [2, 5, 9]))
    assert rows.t.tolist() == [1, 2, 3] and rows.s.tolist() == [0, 1, 2]


def test_pairs_are_found_by_their_times() -> None:
    rows = pairs_of(Levels.read(SCHEDULE, [2, 5, 9]), [(9, 2), (5, 2)])
    assert rows.t.tolist() == [3, 2] and rows.s.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "at least one pair"),
        ([(5, 3)], r"two of the times each, got \(5, 3\)"),
        ([(5, None)], "two of the times each"),
        ([(9, 5, 2)], "two of the times each"),
        ([(2, 5)], r"s less noisy than t in each \(t, s\), got \(2, 5\)"),
        ([(5, 5)], "s less noisy than t"),
    ],
)
def test_no_pairs_are_refused_by_name(given: list, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=f"pairs: wanted {message}"):
        pairs_of(Levels.read(SCHEDULE, [2, 5, 9]), given)


def test_rounding_grows_where_sigma_is_what_alpha_leaves_of_one() -> None:
    levels = Levels.read(SCHEDULE, range(1, 21))
    wanted = 1e-7 * (1 + (levels.alpha[1:] / levels.sigma[1:]) ** 2)
    torch.testing.assert_close(levels.rounding(1e-7)[1:], wanted)
    straight = Levels.read(RectifiedFlow(), [0.01, 0.5, 1.0]).rounding(1e-7)
    torch.testing.assert_close(straight, 1e-7 * torch.tensor([1, 100, 2, 1]).double())
    for times in ([1.0, 2.0], [0.01, 0.02]):  # the second is no process of 1 - alpha^2
        flat = torch.full((3,), 1e-7, dtype=torch.float64)
        assert torch.equal(Levels.read(VE(), times).rounding(1e-7), flat)


def test_nudged_levels_are_off_by_rounding_in_both_directions() -> None:
    levels = Levels.read(VE(), [1.0, 2.0, 4.0])
    changes = torch.stack([one.sigma / levels.sigma - 1 for one in levels.nudged(1e-6)])[:, 1:]
    torch.testing.assert_close(changes.abs(), torch.full_like(changes, 5e-7), rtol=1e-6, atol=0)
    assert ((changes > 0).any(0) & (changes < 0).any(0)).all()
    again = torch.stack([one.alpha - levels.alpha for one in levels.nudged(1e-6)])
    torch.testing.assert_close(again.abs(), torch.full_like(again, 1e-6), rtol=1e-6, atol=0)
