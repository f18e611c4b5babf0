"""A solver's step under torch.compile: the same numbers, and no warning."""

import pytest
import torch

from diffusion_math import densities
from diffusion_math.grid import trailing
from diffusion_math.noise import from_seeds, start_noise
from diffusion_math.sample import final
from diffusion_math.schedule import VPLinear
from diffusion_math.solvers.registry import SOLVERS

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpm", "heun", "edm_churn", "dpmpp_2m_sde", "pndm", "unipc"])
def test_a_compiled_step_has_the_same_numbers(name: str) -> None:
    """The backend runs what was traced as it is, so this takes no compiler."""
    schedule = VPLinear()
    denoise = densities.two_moons().denoiser(schedule)
    x, grid = start_noise(range(8), (2,), torch.float64), trailing(schedule, 6)
    step, noise = SOLVERS[name](schedule), from_seeds(range(8))
    torch._dynamo.reset()
    compiled = torch.compile(step, backend="eager")
    expected = final(step, denoise, x, grid, noise)
    torch.testing.assert_close(
        final(compiled, denoise, x, grid, noise), expected, rtol=1e-12, atol=1e-12
    )
