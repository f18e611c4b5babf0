"""Schedules by name, and the rescaling to a zero terminal SNR against its published code."""

import pytest
import torch

from diffusion_math.schedule import TERMINAL_ALPHA
from sd.noise_schedule import SCHEDULES, named_schedule

diffusers = pytest.importorskip("diffusers")


@pytest.mark.parametrize("steps", [2, 3, 50, 1000, 5000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_zero_terminal_snr_is_the_published_one(name: str, steps: int) -> None:
    """alpha_t is diffusers' in float64 for t < T; the first is kept, the last all but 0."""
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    plain, found = named_schedule(name, steps), named_schedule(name, steps, True)
    times = torch.arange(1, steps + 1, dtype=torch.float64)
    alpha_t, sigma_t = found(times)
    theirs = (1 - rescale_zero_terminal_snr(plain.betas)).cumprod(0).sqrt()
    torch.testing.assert_close(alpha_t[:-1], theirs[:-1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alpha_t[0], plain(1.0)[0], rtol=1e-12, atol=0)
    assert 0 < alpha_t[-1] <= TERMINAL_ALPHA and theirs[-1] == 0
    torch.testing.assert_close(alpha_t**2 + sigma_t**2, torch.ones(steps).double())
    if steps > 2:
        assert not torch.allclose(
            plain(times)[0], alpha_t, rtol=1e-3, atol=0
        )  # what is not rescaled


def test_one_step_has_no_two_ends() -> None:
    with pytest.raises(ValueError, match="steps: wanted 2 or more for a zero terminal SNR, got 1"):
        named_schedule("linear", 1, zero_snr=True)
