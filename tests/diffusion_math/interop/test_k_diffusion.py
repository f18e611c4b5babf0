"""k-diffusion's functions made of our solvers: the same samples, what a callback is told."""

import pytest
import torch

from diffusion_math.interop import SAMPLERS
from diffusion_math.noise import from_generator
from diffusion_math.sample import final
from diffusion_math.schedule import VE
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.testing.problems import MIXTURE, starts

SIGMAS = torch.cat([torch.logspace(1, -1.5, 9, dtype=torch.float64), torch.zeros(1)])


def model(x, sigma):
    assert sigma.shape == x.shape[:1] and sigma.dtype == x.dtype
    return MIXTURE.denoiser(VE(10.0))(x, sigma.double()).to(x.dtype)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_samples_are_those_of_our_own_loop(name, dtype):
    x = (10 * starts()).to(dtype)
    ours, theirs = (from_generator(torch.Generator().manual_seed(3)) for _ in range(2))
    wanted = final(
        SOLVERS[name].make(VE(10.0)), MIXTURE.denoiser(VE(10.0)), x.double(), SIGMAS, ours
    )
    got = SAMPLERS[f"sample_{name}"](
        model, x, SIGMAS.to(dtype), noise_sampler=lambda t, s: theirs(x.double(), t, s).to(dtype)
    )
    assert got.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance)


def test_a_callback_is_told_each_step_and_the_model_its_extra_arguments():
    told, scales = [], []

    def scaled(x, sigma, scale):
        scales.append(scale)
        return scale * x

    x = torch.ones(2, 3)
    sigmas = torch.tensor([4.0, 2.0, 1.0, 0.0])
    end = SAMPLERS["sample_heun"](scaled, x, sigmas, {"scale": 0.5}, told.append, True)
    assert [each["i"] for each in told] == [0, 1, 2]
    assert [float(each["sigma"]) for each in told] == [4.0, 2.0, 1.0]
    assert all(torch.equal(each["denoised"], 0.5 * each["x"]) for each in told)
    assert torch.equal(told[0]["x"], x) and set(scales) == {0.5}
    assert end.shape == x.shape


def test_noise_is_drawn_where_none_is_given():
    x, sigmas = torch.ones(2, 3), torch.tensor([4.0, 2.0, 0.0])
    sample = SAMPLERS["sample_ddpm"]
    assert sample.__name__ == "sample_ddpm"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ends = [sample(lambda x, sigma: 0.5 * x, x, sigmas) for _ in range(2)]
    assert not torch.equal(*ends)


def test_sigmas_that_rise_are_refused():
    with pytest.raises(ValueError, match="strictly decreasing"):
        SAMPLERS["sample_ddim"](model, torch.ones(1, 2), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("sigmas", [[0.0, 1.0, 10.0], [10.0], [10.0, 10.0, 0.0], [1.0, -1.0]])
def test_sigmas_that_do_not_fall_are_refused(sigmas):
    with pytest.raises(ValueError, match="sigmas: wanted two or more, strictly decreasing"):
        SAMPLERS["sample_dpmpp_2m"](model, torch.ones(1, 2), torch.tensor(sigmas))
