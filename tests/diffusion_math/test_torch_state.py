"""The numbers do not depend on the state of torch around a call, nor on what was called before."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import diffusion_math as dm
from diffusion_math import _kept
from diffusion_math.noise import UnitNoise
from tests.support.precision_cases import CASES

pytestmark = pytest.mark.usefixtures("unchecked")


def converted(x: Tensor) -> Tensor:
    return dm.prediction.x0_from_eps(dm.VPLinear(), x, x, 0.5).square().sum()


def likelihood(x: Tensor) -> Tensor:
    return dm.densities.two_moons().log_density(dm.VPLinear(), x, 0.5).sum()


@pytest.mark.parametrize("function", [converted, likelihood])
def test_a_transform_leaves_nothing_of_its_own_behind(function: Callable[[Tensor], Tensor]) -> None:
    """Of nested transforms of torch.func, whose tensors are of no use after their end."""
    _kept.forget()
    x = torch.tensor([[0.5, -0.2]], dtype=torch.float64)
    hessian = torch.func.jacrev(torch.func.jacrev(function))
    assert torch.equal(hessian(x), hessian(x))


def test_a_mixture_is_first_used_in_a_transform() -> None:
    data, x = dm.densities.two_moons(), torch.tensor([[0.5, -0.2]], dtype=torch.float64)
    hessian = torch.func.jacrev(
        torch.func.jacrev(lambda x: data.log_density(dm.VPLinear(), x, 0.5).sum())
    )
    assert torch.equal(hessian(x), hessian(x))


def test_a_table_is_first_used_in_a_transform() -> None:
    schedule, x = dm.Discrete.linear(), torch.ones(1, 2, dtype=torch.float64)
    hessian = torch.func.jacrev(
        torch.func.jacrev(lambda x: dm.prediction.x0_from_eps(schedule, x, x, 5).square().sum())
    )
    assert torch.equal(hessian(x), hessian(x))


def test_the_adaptive_solver_has_the_gradient_of_its_steps() -> None:
    """Also of a row that is finished before the others.

    The fine grid is 1e-4 from the limit, the tolerance of 1e-5 gives 6e-5. A gradient through the
    step sizes is off by 0.5 or NaN, and more so for tighter tolerances.
    """
    schedule, denoise = dm.VPLinear(), dm.DENSITIES["ring"]().denoiser(dm.VPLinear())
    start = torch.tensor([[1.0, 0.5], [0.2, -0.3]], dtype=torch.float64)

    def gradient(step: dm.Step, grid: Tensor) -> Tensor:
        x = start.clone().requires_grad_()
        (found,) = torch.autograd.grad(dm.final(step, denoise, x, grid)[:, 0].sum(), x)
        return found

    fine = gradient(dm.flow_heun(schedule), dm.uniform_log_snr(schedule, 400))
    ends = torch.tensor([1.0, 1e-3, 0.0], dtype=torch.float64)
    adaptive = gradient(dm.solvers.bogacki_shampine(schedule, 1e-5, 1e-5), ends)
    torch.testing.assert_close(adaptive, fine, rtol=0, atol=5e-4)


def test_a_schedule_of_coarse_numbers_is_the_same_schedule() -> None:
    _kept.forget()
    plain = dm.VPLinear()(torch.tensor([0.5]))[0].item()
    assert dm.VPLinear(0.1, np.float16(20))(0.5)[0].item() == plain  # type: ignore[arg-type]
    assert dm.VPLinear()(0.5)[0].item() == plain
    assert isinstance(dm.VE(np.float32(80)).sigma_max, float)  # type: ignore[arg-type]


def test_a_level_of_a_table_is_the_caller_s_own() -> None:
    schedule = dm.Discrete.linear()
    before = schedule.log_snr(torch.tensor([5.0]))
    schedule.log_snr(np.array(5.0)).add_(1)  # type: ignore[arg-type]
    assert torch.equal(schedule.log_snr(torch.tensor([5.0])), before)


def test_an_empty_batch_is_sampled_up_to_any_level() -> None:
    """Also one that rounds up in float32."""
    schedule = dm.VE(14.6)
    denoise = dm.DENSITIES["ring"]().denoiser(schedule)
    grid = dm.karras(schedule, 3)
    assert dm.final(dm.ddim(schedule), denoise, torch.zeros(0, 2), grid).shape == (0, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_grid_is_in_float64_whatever_the_default(dtype: torch.dtype) -> None:
    schedule = dm.RectifiedFlow()
    plain = dm.karras(schedule, 2)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        assert torch.equal(dm.karras(schedule, 2), plain)
    finally:
        torch.set_default_dtype(before)


def test_a_covariance_is_not_of_autocast() -> None:
    noise, x = UnitNoise(torch.tensor([1.0, 0.0]), ()), torch.tensor([0.0, 1.001, 0.333])
    plain = noise.covariance(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(noise.covariance(x), plain)


@pytest.mark.parametrize("name", CASES)
def test_a_default_device_changes_nothing(name: str) -> None:
    """With "meta", what is made without a device has no numbers; with "cuda" it would be there."""

    def answers() -> list[Tensor]:
        _kept.forget()
        answer = CASES[name](lambda x: x.to(torch.float64))
        return [answer] if isinstance(answer, Tensor) else list(answer)

    wanted = answers()
    with torch.device("meta"):
        got = answers()
    assert all(torch.equal(*pair) for pair in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", dm.SOLVERS)
@pytest.mark.parametrize("grid", dm.GRIDS)
def test_a_default_device_is_not_a_sample_s(name: str, grid: str) -> None:
    def sampled() -> Tensor:
        _kept.forget()
        schedule = dm.Discrete.linear()
        x, noise = dm.start_noise(range(2), (2,), torch.float64), dm.from_seeds(range(2))
        nodes = dm.GRIDS[grid](schedule, 4)
        denoise = dm.DENSITIES["checkerboard"]().denoiser(schedule)
        return dm.final(dm.SOLVERS[name](schedule), denoise, x, nodes, noise)

    wanted = sampled()
    with torch.device("meta"):
        assert torch.equal(sampled(), wanted)


@pytest.mark.parametrize("name", dm.DENSITIES)
def test_a_default_device_is_not_a_density_s(name: str) -> None:
    def drawn() -> Tensor:
        return dm.DENSITIES[name]().sample(torch.Generator().manual_seed(0), 3)

    wanted = drawn()
    with torch.device("meta"):
        assert torch.equal(drawn(), wanted)
