"""C01 and C31 on a known density: three learned maps, and the code of a plain autoencoder.

Nothing exact is known of what trained networks give, so the rates here are those of a normal law
of each estimate with the error it states: the suite's only ones that hold for large samples alone.
"""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from diffusion_math.densities.toy import ring
from diffusion_math.metrics import Estimate, energy_distance
from experiments.families.generators import FAMILIES, Budget, Trained, autoencoder
from tests.support.chance import rare, spend
from tests.support.measuring import Measured
from tests.support.mixtures import seeded

DATA = ring()
BUDGET = Budget(steps=1000, batch=128, parameters=8000, seed=0)
COUNT = 6000


def distance(x: Tensor, y: Tensor) -> Estimate:
    """The mean of the energy distances of three parts: an estimate for a third of the time."""
    parts = [energy_distance(*both) for both in zip(x.chunk(3), y.chunk(3), strict=True)]
    error = sum(part.error**2 for part in parts) ** 0.5 / 3
    return Estimate(sum(part.value for part in parts) / 3, error)


def normal() -> Tensor:
    return torch.randn(COUNT, 2, generator=seeded(3))


def drawn(trained: Trained) -> Tensor:
    with torch.no_grad():
        return trained.sample(normal(), seeded(4))


@pytest.mark.chance(6e-9, "an untrained map, farther from the data than the normal")
@pytest.mark.claim("C01", "experiments.families.generators.diffusion")
@pytest.mark.parametrize("family", FAMILIES)
def test_c01_each_family_maps_noise_to_the_data(measured: Measured, family: str) -> None:
    """Energy distance of f(z) from the data over that of one normal with the data's moments.

    0.5 is the bar of the experiment `families`. The trained map is a function of its own seed, so
    chance is in the 6000 points drawn: estimates of a normal law, whose error is their own. With
    these few updates the three measure 0.35 or less, six errors below. An untrained map of each
    family lies farther than the normal does.
    """
    fresh = DATA.sample(seeded(1), COUNT)
    fitted = distance(normal() * fresh.std(0) + fresh.mean(0), fresh)
    bell = fitted.value
    untrained = FAMILIES[family](Budget(1, 2, BUDGET.parameters, 0), DATA)
    far = distance(drawn(untrained), fresh)
    assert far.value > bell
    assert rare(float(stats.norm.sf((far.value - bell) / (far.error + fitted.error))))
    spend(1e-9)
    trained = FAMILIES[family](BUDGET, DATA)
    assert trained.parameters <= BUDGET.parameters
    off = distance(drawn(trained), fresh).value / bell
    measured(off, 0.5, "energy distance of draws from the data, over one fitted normal's")


@pytest.mark.chance(3e-9, "codes that are alike: no difference beyond eight of its errors")
@pytest.mark.claim("C31", "experiments.families.generators.autoencoder")
def test_c31_a_plain_code_is_not_to_be_drawn_from(measured: Measured) -> None:
    """The VAE's code is nearer to N(0, I), and normal draws decode into the data by it alone.

    Measured: the VAE's decoded draws over the plain autoencoder's, in energy distance; and the
    plain code, given the normal's mean and covariance, is far from normal beyond chance.
    """
    fresh = DATA.sample(seeded(1), COUNT)
    plain, vae = autoencoder(BUDGET, DATA), FAMILIES["VAE"](BUDGET, DATA)
    assert plain.code is not None and vae.code is not None
    with torch.no_grad():
        codes = [one.code(fresh.float(), seeded(5)) for one in (plain, vae)]  # type: ignore[misc]
        back = distance(drawn(plain), fresh), distance(drawn(vae), fresh)
    apart = [distance(code, normal()) for code in codes]
    far, error = apart[0].value - apart[1].value, math.hypot(*(one.error for one in apart))
    bar = 8 * error
    assert far > bar  # it is 15 errors
    spend(2e-9)
    assert rare(float(stats.norm.sf(bar / error)))
    ratio = back[1].value / back[0].value
    measured(
        ratio, 0.5, "decoded normal draws' distance from the data, VAE's over the plain code's"
    )
