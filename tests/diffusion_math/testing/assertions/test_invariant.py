"""`assert_stationary` and `assert_invariant` pass right kernels and tell wrong ones.

Seeds are fixed inside the assertion: nothing here depends on chance.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import diffusion_math as dm
from diffusion_math import langevin, langevin_law
from diffusion_math.gaussian import Gaussian
from diffusion_math.testing.assertions.invariant import Target, assert_invariant
from diffusion_math.testing.assertions.stationary import NOISES, assert_stationary
from diffusion_math.testing.draws import drawn
from diffusion_math.testing.mistakes.diagnosis import MistakeError

FLOATS = [torch.float32, torch.float64]
MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
C = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
Kernel = Callable[[Tensor, Tensor], Tensor]


def ornstein(h: float = 0.3, factor: float = 1.0, power: float = 1.0) -> Kernel:
    """The exact move of dx = -(x - m) dt + sqrt(2 C) dW."""
    keep = float(np.exp(-h))
    values, vectors = torch.linalg.eigh((1 - keep**2) * C)
    root = vectors @ torch.diag(values ** (power / 2)) @ vectors.T * factor

    def kernel(x: Tensor, z: Tensor) -> Tensor:
        m = MEAN.to(x)
        return m + keep * (x - m) + z @ root.to(x)

    return kernel


def ula(delta: float) -> Kernel:
    def kernel(x: Tensor, z: Tensor) -> Tensor:
        move = langevin.ula(lambda x: -(x - MEAN.to(x)) / torch.tensor([1.0, 0.5]).to(x), delta)
        return move(langevin.Particles(x), lambda x, t, s: z).x

    return kernel


@pytest.mark.parametrize("dtype", FLOATS)
def test_right_affine_kernels_pass(dtype: torch.dtype) -> None:
    assert_stationary(ornstein(), MEAN, C, dtype=dtype)
    target = Gaussian(MEAN[None], torch.tensor([[1.0, 0.5]], dtype=torch.float64))
    found = langevin_law.ula_stationary(target, 0.1)
    assert_stationary(ula(0.1), found.mean[0], torch.diag(found.variance[0]), dtype=dtype)


def test_a_kernel_that_draws_its_noise_passes() -> None:
    kernel = ornstein()
    assert_stationary(drawn(lambda x: kernel(x, torch.randn_like(x))), MEAN, C)


def test_positions_and_velocities_of_baoab_pass() -> None:
    target = Gaussian(torch.zeros(1, 1).double(), torch.tensor([[0.7]], dtype=torch.float64))
    position, velocity = langevin_law.baoab_stationary(target, 0.4)
    move = langevin.baoab(lambda x: -x / 0.7, 0.4, 1.0)

    def kernel(x: Tensor, z: Tensor) -> Tensor:
        state = langevin.Particles(x[:, :1], 1, velocity=x[:, 1:])
        after = move(state, lambda x, t, s: z[:, :1])
        assert after.velocity is not None
        return torch.cat([after.x, after.velocity], 1)

    covariance = torch.diag(torch.cat([position.variance[0], velocity.variance[0]]))
    assert_stationary(kernel, torch.zeros(2).double(), covariance)


PLANTED = {
    "the noise is too small by sqrt(2): sqrt(step) in the place of sqrt(2 step)": ornstein(
        factor=2**-0.5),
    "the noise is too large by sqrt(2): 2 step in the place of step": ornstein(factor=2**0.5),
    "the noise is half of what it should be": ornstein(factor=0.5),
    "the noise is twice what it should be": ornstein(factor=2.0),
    "there is no noise": ornstein(factor=0.0),
    "the noise is the square of what it should be: a variance in a deviation's place": ornstein(
        power=2.0),
    "the noise is the root of what it should be": ornstein(power=0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_each_known_noise_is_named(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(MistakeError, match="what it keeps is the covariance") as caught:
        assert_stationary(PLANTED[name], MEAN, C, dtype=dtype)
    assert [one.name for one in caught.value.mistakes] == [name]


def test_the_bias_of_unadjusted_langevin_is_told_with_what_it_keeps() -> None:
    with pytest.raises(MistakeError, match=r"what it keeps is the covariance \[1.05263 "):
        assert_stationary(ula(0.1), MEAN, torch.diag(torch.tensor([1.0, 0.5]).double()))


def test_a_wrong_mean_is_told() -> None:
    with pytest.raises(MistakeError, match="the mean after a move differs"):
        assert_stationary(ornstein(), MEAN + 0.01, C, dtype=torch.float32)


def test_what_is_not_affine_is_told() -> None:
    with pytest.raises(AssertionError, match="is not affine in x and z"):
        assert_stationary(lambda x, z: x**2 + z, MEAN, C)
    with pytest.raises(AssertionError, match="moves nothing"):
        assert_stationary(lambda x, z: x, MEAN, C)


def mala(step: float, ratio: bool = True, forget: bool = False) -> Callable[[Target], Any]:
    """Our move, or one as it is written out, with the proposal's ratio left out."""

    def make(target: Target) -> Any:
        def kernel(x: Tensor, rng: torch.Generator) -> Tensor:
            z = torch.randn(x.shape, generator=rng, dtype=x.dtype)
            y = x + step * target.score(x) + (2 * step) ** 0.5 * z
            log_ratio = target.log_density(y) - target.log_density(x)
            if ratio:
                back = x - y - step * target.score(y)
                log_ratio += (z.square().sum(1) / 2) - back.square().sum(1) / (4 * step)
            u = torch.rand(len(x), generator=rng, dtype=x.dtype)
            return torch.where(((u.log() < log_ratio) | forget)[:, None], y, x)

        return kernel

    return make


def our_mala(target: Target) -> Any:
    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        return target.log_density(x), target.score(x)

    move = langevin.mala(both, 0.3)

    def kernel(x: Tensor, rng: torch.Generator) -> Tensor:
        return move(langevin.Particles(x), dm.noise.from_generator(rng)).x

    return kernel


def hmc(leaps: int, half: float = 0.5) -> Callable[[Target], Any]:
    """Hamiltonian moves; a first kick of another size than h / 2 keeps no volume's mirror."""

    def make(target: Target) -> Any:
        def kernel(x: Tensor, rng: torch.Generator) -> Tensor:
            h = 0.35
            v = torch.randn(x.shape, generator=rng, dtype=x.dtype)
            y, w = x, v
            w = w + half * h * target.score(y)
            for leap in range(leaps):
                y = y + h * w
                w = w + (h if leap < leaps - 1 else h / 2) * target.score(y)
            energy = target.log_density(y) - target.log_density(x)
            energy += (v.square().sum(1) - w.square().sum(1)) / 2
            u = torch.rand(len(x), generator=rng, dtype=x.dtype)
            return torch.where((u.log() < energy)[:, None], y, x)

        return kernel

    return make


@pytest.mark.parametrize("dtype", FLOATS)
def test_right_kernels_pass(dtype: torch.dtype) -> None:
    for make in (our_mala, mala(0.3), hmc(4)):
        assert_invariant(make, count=2**14, dtype=dtype)


def test_a_kernel_of_numpy_passes() -> None:
    def make(target: Target) -> Any:
        def walk(x: Tensor, rng: np.random.Generator) -> np.ndarray:
            y = x.numpy() + 0.8 * rng.standard_normal(x.shape)
            ratio = target.log_density(y) - target.log_density(x)
            return np.where((np.log(rng.random(len(x))) < ratio.numpy())[:, None], y, x.numpy())

        return walk

    assert_invariant(make, count=2**14, stream=np.random.default_rng)


@pytest.mark.parametrize("make", [mala(0.3, ratio=False), mala(0.3, forget=True), hmc(4, 1.0)])
def test_wrong_kernels_are_told(make: Callable[[Target], Any]) -> None:
    with pytest.raises(AssertionError, match=r"kernel: does not keep a normal, in 5 moves"):
        assert_invariant(make, count=2**15)


def test_a_mistake_that_a_normal_does_not_show_is_told_by_the_mixture() -> None:
    def make(target: Target) -> Any:
        """Moves exactly as the normal of the density's own moments."""
        mean, covariance = target.density.moments()
        root = torch.linalg.cholesky(covariance)

        def kernel(x: Tensor, rng: torch.Generator) -> Tensor:
            z = torch.randn(x.shape, generator=rng, dtype=x.dtype)
            return mean + 0.6 * (x - mean) + 0.8 * z @ root.T

        return kernel

    with pytest.raises(AssertionError, match="does not keep a mixture"):
        assert_invariant(make, count=2**14)


def test_kernels_of_no_move_or_of_other_noise_are_told() -> None:
    with pytest.raises(AssertionError, match="moves none of 4096 samples"):
        assert_invariant(lambda target: lambda x, rng: x, count=4096)
    with pytest.raises(AssertionError, match="draws noise that is not of rng"):
        assert_invariant(lambda target: lambda x, rng: x + torch.randn_like(x), count=4096)


def test_bad_arguments_are_value_errors() -> None:
    for bad in ({"moves": 0}, {"count": 3}, {"rate": 0.0}):
        with pytest.raises(ValueError, match=r"^\w+: wanted .*, got "):
            assert_invariant(our_mala, **bad)  # type: ignore[arg-type]
    for wrong in (C[:1], C.triu()):
        with pytest.raises(ValueError, match=r"^covariance: wanted .*, got "):
            assert_stationary(ornstein(), MEAN, wrong)
