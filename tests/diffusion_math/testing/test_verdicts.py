"""Each check's verdict at its own edge: just inside it is sound, just beyond it is not.

The subjects know the exact solutions and are wrong by a stated amount: by h^p after a ladder's walk
or a single step, by a share of a node's spread or of its mean.
"""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from diffusion_math.grid import trailing, uniform_log_snr
from diffusion_math.schedule import RectifiedFlow, VPLinear
from diffusion_math.testing import Sampler, audit
from diffusion_math.testing.moments import exact_moments
from diffusion_math.testing.order import STOP, flow_order, mean_step, strong_order
from diffusion_math.testing.problems import flow
from diffusion_math.testing.verdicts import SLACK
from tests.support.powered_samplers import powered
from tests.support.tensors import f64
from tests.support.wrong_samplers import right

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

SCHEDULE = VPLinear()
NEAR = 1e-3
HAIR = 0.01


def verdict(sampler, check, **how):
    rows = audit(sampler, **{"counts": (5,), "sweep": (5,), "ladder": (16, 32, 64), **how}).rows
    [row] = [row for row in rows if row.check == check]
    return row.verdict


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(
    ("check", "lacking", "noisy"),
    [("order", "whole", False), ("weak order", "whole", True),
     ("order of a step", "step", False)],
)  # fmt: skip
def test_an_order_may_lack_so_much_and_no_more(order, check, lacking, noisy):
    for lack, wanted in ((SLACK - HAIR, "sound"), (SLACK + HAIR, "defect")):
        subject = powered(order, **{lacking: order - lack}, noisy=noisy)
        assert verdict(subject, check, ladder=(32, 64, 128)) == wanted


@pytest.mark.parametrize(
    ("order", "whole", "uneven", "wanted"),
    [
        (2, 2, 2 - SLACK + HAIR, "sound"),
        (2, 2, 2 - SLACK - HAIR, "limit"),
        (2, 2, 1 - SLACK + HAIR, "limit"),
        (2, 2, 1 - SLACK - HAIR, "defect"),
        (1, 1, 1 - SLACK + HAIR, "sound"),
        (1, 1, 1 - SLACK - HAIR, "defect"),
        (2, 1.7, 1.7 - SLACK + HAIR, "limit"),  # measured against the claim
        (2, 1.5, 1 - SLACK + HAIR, "defect"),  # a defect on even steps already
        (2, 0.4, 0.4 - SLACK + HAIR, "defect"),
        (1, 3, 1 - SLACK + HAIR, "sound"),  # but no more than is claimed
    ],
)
@pytest.mark.parametrize("noisy", [False, True])
def test_uneven_steps_may_lower_an_order_so_far(order, whole, uneven, wanted, noisy):
    subject = powered(order, whole=whole, uneven=uneven, noisy=noisy)
    check = "weak order" if noisy else "order"
    assert verdict(subject, f"{check}, uneven steps") == wanted


@pytest.mark.parametrize(("first", "wanted"), [(1.4 - HAIR, "limit"), (1.4 + HAIR, "defect")])
def test_a_first_step_excuses_what_it_explains(first, wanted):
    """Order 2.05 where 3 is claimed: a first step of order 1.4 - SLACK or less would cap it so."""
    subject = powered(3, whole=2.05, first=first)
    assert verdict(subject, "order") == wanted


def exactly(deviation=0.0, mean=0.0, last=0.0, drawn=0.0, late=False):
    """On data that is a point every node's level to rounding, but for the share of its deviation
    and of its mean that one node is off by, or the last; `late`: in runs from the middle alone."""

    def sample(denoise, x, grid, noise):
        alpha, sigma = SCHEDULE(grid)
        x0 = denoise(x, grid[0])
        z = (x - alpha[0] * x0) / sigma[0]
        off = float(not late or grid[0] < SCHEDULE.T)
        for k in range(1, len(grid)):
            a, s, end = alpha[k], sigma[k], k == len(grid) - 1
            wide = s * (1 + off * deviation * (k == 1)) + off * last * end
            shift = off * mean * max(float(s), 0.01) * (end if s == 0 else k == 1)
            fresh = off * drawn * noise(x, grid[k - 1], grid[k]) if drawn and end else 0.0
            yield a * x0 + wide * z + shift + fresh

    noisy = bool(drawn)
    subject = right("ddpm" if noisy else "ddim")
    return replace(subject, sample=sample, level_tolerance=NEAR)


@pytest.mark.parametrize("flaw", ["deviation", "mean", "last", "drawn"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_level_may_be_off_by_the_share_that_is_near(flaw, sign):
    for share, wanted in ((1 - HAIR, "sound"), (1 + HAIR, "defect")):
        off = {flaw: sign * share * NEAR}
        assert verdict(exactly(**off), "levels") == wanted
        late = exactly(**off, late=True)
        assert (verdict(late, "levels"), verdict(late, "image-to-image")) == ("sound", wanted)
    assert verdict(exactly(), "levels") == verdict(exactly(), "image-to-image") == "sound"


def test_noise_left_on_clean_data_is_told_as_a_deviation():
    for share, wanted in ((1 - HAIR, "sound"), (1 + HAIR, "defect")):
        assert verdict(exactly(drawn=share * NEAR), "last noise") == wanted
        assert verdict(exactly(last=share * NEAR), "last noise") == wanted


def test_grids_at_the_ends_of_the_schedule():
    """n steps that fall from T to 0 are sound; a hair beyond an end, or one step more, is not."""
    T = SCHEDULE.T
    for first, last, steps, wanted in (
        (T, 0.0, 5, "sound"),
        (T * (1 + 1e-12), 0.0, 5, "defect"),
        (T, -1e-12, 5, "defect"),
        (T, 0.0, 6, "defect"),
        (T, 0.0, 4, "defect"),
    ):
        grid = torch.linspace(first, last, steps + 1, dtype=torch.float64)
        subject = replace(right("ddim"), grid=lambda n, grid=grid: grid)
        assert verdict(subject, "grid", counts=(1,), ladder=(4, 8, 16)) == wanted
    few = replace(right("ddim"), grid=lambda n: f64(T, 0.0), grouped=True)
    assert verdict(few, "grid", counts=(1,), ladder=(4, 8, 16)) == "sound"
    assert (
        verdict(replace(few, grid=lambda n: f64(T)), "grid", counts=(1,), ladder=(4, 8, 16))
        == "defect"
    )


def test_one_state_that_is_not_finite_is_enough():
    """The largest number is finite, and what is beyond it is not."""
    for value, wanted in ((1.7e308, "sound"), (math.inf, "defect"), (math.nan, "defect")):

        def sample(denoise, x, grid, noise, value=value):
            return [torch.full_like(x, value if k == 2 else 0.0) for k in range(len(grid) - 1)]

        assert verdict(replace(right("ddim"), sample=sample), "finite") == wanted


def test_the_exact_law_of_an_affine_walk():
    """A start of full covariance C, then x <- A x + b + B z twice: A C A^T + B B^T each time.

    A factor of C taken for its transpose has another covariance, unless C is diagonal.
    """
    C = f64([2.0, 1.2, 0.3], [1.2, 1.0, -0.1], [0.3, -0.1, 0.5])
    A, B = (
        f64([0.9, 0.2, 0.0], [-0.4, 1.1, 0.3], [0.0, 0.5, 0.7]),
        f64([1.0, 0, 0], [2, 3, 0], [0, 1, 4]),
    )
    b, mean = f64(1.0, -2.0, 0.5), f64(0.3, 0.2, -1.0)

    def sample(denoise, x, grid, noise):
        for t, s in pairwise(grid):
            x = x @ A.T + b + noise(x, t, s) @ B.T
            yield x

    sampler = Sampler("affine", SCHEDULE, sample, lambda n: trailing(SCHEDULE, n), noisy=True)
    found = exact_moments(sampler, lambda x, t: x, mean, C, f64(1.0, 0.5, 0.0))
    for k in range(2):
        mean, C = A @ mean + b, A @ C @ A.T + B @ B.T
        torch.testing.assert_close(found.means[k], mean, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(found.covariances[k], C, rtol=1e-13, atol=1e-12)
    assert found.times == ((1.0, 0.5), (0.5, 0.0))


def test_a_mean_step_is_one_of_as_many_as_there_are():
    """0.5 in log-SNR each; a first step from pure noise has no length, and is not counted."""
    grid = SCHEDULE.time(torch.linspace(-3, 1, 9, dtype=torch.float64))
    assert mean_step(SCHEDULE, grid) == pytest.approx(0.5, rel=1e-9)
    path = RectifiedFlow()
    from_noise = torch.cat([f64(1.0), path.time(torch.linspace(-3, 1, 9, dtype=torch.float64))])
    assert mean_step(path, from_noise) == pytest.approx(0.5, rel=1e-9)


def test_errors_and_sizes_of_a_ladder_are_those_of_the_walk():
    """The root mean square over starts, at the mean step, so that the constant is told too."""
    found = flow_order(powered(2, whole=1.7), (16, 32, 64))
    assert found.sizes == pytest.approx([7 / n for n in (16, 32, 64)], rel=1e-6)
    assert found.errors == pytest.approx([(7 / n) ** 1.7 for n in (16, 32, 64)], rel=1e-6)


def test_an_error_between_two_nodes_is_read_at_the_level_of_the_ladder():
    """On its own grids, with an error of e^(log-SNR / 2) h^2 wherever it is: at log-SNR 3."""

    def sample(denoise, x, grid, noise):
        snr, h = SCHEDULE.log_snr(grid), 1 / (len(grid) - 1)
        for s, level in zip(grid[1:-1], snr[1:-1], strict=True):
            yield flow(SCHEDULE, s[None])[0] + math.exp(float(level) / 2) * h**2
        yield x

    sampler = Sampler(
        "own", SCHEDULE, sample, lambda n: uniform_log_snr(SCHEDULE, n), any_grid=False
    )
    found = flow_order(sampler, (16, 32, 64))
    wanted = [math.exp(STOP / 2) / n**2 for n in (16, 32, 64)]
    assert found.errors == pytest.approx(wanted, rel=1e-6)


def test_the_strong_order_is_of_the_distance_along_one_path():
    """Ends of W + h^p: the distance to eight times the steps is h^p - (h_last)^p on every path
    (to the rounding of its times).

    Noise that is drawn anew at each number of steps has a distance that does not fall.
    """

    def sample(power, path):
        def walked(denoise, x, grid, noise):
            total = torch.zeros_like(x)
            for t, s in pairwise(grid):
                total = total + (t - s).sqrt() * (noise(x, t, s) if path else noise(x, t, t / 2))
            return total + 1 / (len(grid) - 1) ** power

        return walked

    def subject(power, path=True):
        grid = lambda n: trailing(SCHEDULE, n)  # noqa: E731
        return Sampler("W", SCHEDULE, sample(power, path), grid, noisy=True)

    for power in (0.5, 1.0):
        found = strong_order(subject(power), (8, 16, 32), paths=4)
        wanted = [1 / n**power - 1 / 256**power for n in (8, 16, 32)]
        assert found.errors == pytest.approx(wanted, rel=1e-4)
    assert strong_order(subject(1.0, path=False), (8, 16, 32), paths=4).errors[-1] > 0.1
