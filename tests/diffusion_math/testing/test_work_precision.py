"""Work and precision, on a subject whose calls and error are written down."""

import re
import time

import pytest
import torch

from diffusion_math.grid import trailing
from diffusion_math.noise import zeros
from diffusion_math.schedule import VPLinear
from diffusion_math.testing import Sampler
from diffusion_math.testing.order import ladder
from diffusion_math.testing.problems import flow
from diffusion_math.testing.work_precision import work

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes have tests of their own

SCHEDULE = VPLinear()


def subject(seen, **how):
    """Three calls of the denoiser a step, and an error of h^2."""

    def sample(denoise, x, grid, noise):
        seen.append((x, grid, noise))
        for t in grid[1:]:
            for _ in range(3):
                denoise(x, t)
        off = (7 / (len(grid) - 1)) ** 2
        return flow(SCHEDULE, grid[-1:])[0].repeat(len(x) // 16, 1) + off

    return Sampler("subject", SCHEDULE, sample, lambda n: trailing(SCHEDULE, n), **how)


@pytest.mark.parametrize("copies", [1, 3])
def test_work_is_counted_and_timed_and_the_error_is_that_of_the_end(copies):
    seen, begun = [], time.perf_counter()
    few, many = work(subject(seen), (2, 4), copies) if copies > 1 else work(subject(seen), (2, 4))
    taken = time.perf_counter() - begun
    assert (few.steps, few.calls, many.steps, many.calls) == (2, 6, 4, 12)
    assert (few.error, many.error) == pytest.approx((3.5**2, 1.75**2))
    assert 0 < few.seconds + many.seconds < taken
    for (x, grid, noise), wanted in zip(seen, ladder(subject([]), (2, 4)), strict=True):
        assert torch.equal(grid, wanted) and noise is zeros
        assert torch.equal(x, flow(SCHEDULE, grid[:1])[0].repeat(copies, 1))


@pytest.mark.parametrize("how", [{"noisy": True}, {"any_grid": False}])
def test_another_sampler_is_refused(how):
    said = "sampler: wanted a deterministic one that takes any grid, got subject"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        work(subject([], **how))
