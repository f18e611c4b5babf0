"""Chance comes from the arguments alone, in full precision, and the same every time."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion_math import loss, score_matching
from diffusion_math.densities import reverse_kernel
from diffusion_math.densities.toy import DENSITIES
from diffusion_math.noise import BrownianPath, from_generator, from_seeds, start_noise
from diffusion_math.schedule import Discrete, VPLinear
from tests.support.chance import pinned
from tests.support.mixtures import FORMS, mixture, normal, seeded

Draw = Callable[[torch.Generator], Tensor]

DRAWS: dict[str, Draw] = {
    **{name: lambda g, make=make: make().sample(g, 50) for name, make in DENSITIES.items()},
    **{form: lambda g, form=form: mixture(form).sample(g, 50) for form in FORMS},
    "x_0 given x_t": lambda g: reverse_kernel.sample_clean(
        mixture("diagonal"), g, VPLinear(), _points(), 0.5
    ),
    "x_s given x_t": lambda g: reverse_kernel.sample_reverse(
        mixture("diagonal"), g, VPLinear(), _points(), 0.5, 0.2
    ),
    "uniform times": lambda g: loss.uniform_times(VPLinear(), g, 50),
    "stratified times": lambda g: loss.stratified_times(VPLinear(), g, 50),
}
"""Everything that draws float64 numbers from a generator."""


def _points() -> Tensor:
    return normal(pinned(1), 50, 2)


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_the_generators_alone(name: str) -> None:
    """The same generator gives the same draws, another gives others, torch's own is not touched."""
    draw = DRAWS[name]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = draw(seeded(7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(draw(seeded(7)), first)
    assert not torch.equal(draw(seeded(8)), first)


PINNED_DRAWS = {
    "ring": [-0.01850792926774474, -2.0259543568011433],
    "grid25": [1.9876613804881704, -2.0173029045340956],
    "two_moons": [0.8349666333329906, -0.7050550366811762],
    "pinwheel": [0.8001454333190335, -0.8266377588534957],
    "spirals": [-0.5889885751990754, -1.9059292662756664],
    "checkerboard": [-1.5474918419244699, 0.34042712254572016],
    "banana": [-2.1566667485085818, 1.0091799430307944],
    "funnel": [-2.1566667485085818, -0.37459268514977956],
    "isotropic": [-1.1774585630012302, -1.5289233101643742],
    "diagonal": [-2.2717256026517667, 0.4886339284866106],
    "x_0 given x_t": [-2.168701260806836, -0.5419519256467238],
    "x_s given x_t": [-2.1089677397838695, 0.08788816303720715],
    "uniform times": [0.5653599557694411, 0.8116506066507059],
    "stratified times": [0.24014104947649756, 0.26012104947649756],
}
"""The last two numbers of 50 draws. (Those of full covariances hang on LAPACK's eigenvectors.)"""


@pytest.mark.parametrize("name", PINNED_DRAWS)
def test_draws_of_a_seed_are_the_draws_it_always_gave(name: str) -> None:
    """In float64 on the way too: a normal or uniform of float32 would be another number."""
    drawn = DRAWS[name](pinned(7)).double()[-2:].flatten()[-2:]
    wanted = torch.tensor(PINNED_DRAWS[name], dtype=torch.float64)
    torch.testing.assert_close(drawn, wanted, rtol=1e-10, atol=0)


def test_rademacher_signs_are_the_generators_alone() -> None:
    """Signs, in the dtype of x, from the generator given."""
    before, x = torch.get_rng_state(), torch.zeros(40, 3, dtype=torch.float64)
    first = score_matching.rademacher(seeded(5), x)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(score_matching.rademacher(seeded(5), x), first)
    assert set(first.flatten().tolist()) == {-1.0, 1.0}
    assert first.dtype == torch.float64


T, S = torch.tensor(0.75, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)

PINNED = {
    "start": (lambda: start_noise([3], [3])[0], [-0.32928601, 0.94350612, -0.10401827]),
    "step": (
        lambda: from_seeds([3])(torch.zeros(1, 3), T, S)[0],
        [0.70565557, -0.26127124, -0.14158297],
    ),
    "path": (
        lambda: BrownianPath((3,), T=1.0)(torch.zeros(1, 3), T, S)[0],
        [1.0341671, 1.0634801, 0.32434097],
    ),
}


@pytest.mark.parametrize("name", PINNED)
def test_a_seed_gives_the_picture_it_always_gave(name: str) -> None:
    """The numbers of a seed are part of the interface: published pictures name theirs."""
    call, wanted = PINNED[name]
    torch.testing.assert_close(call(), torch.tensor(wanted), rtol=1e-6, atol=1e-7)


def test_noise_of_seeds_keeps_what_it_is_given() -> None:
    """The state's dtype, an empty batch's shape; a generator's noise lies where the state does."""
    for dtype in (torch.float32, torch.float64):
        for noise in (from_seeds([1, 2]), BrownianPath((1, 2), T=1.0), from_generator(seeded(0))):
            z = noise(torch.zeros(2, 3, dtype=dtype), T, S)
            assert (z.dtype, z.shape) == (dtype, (2, 3))
        empty = from_seeds([])(torch.zeros(0, 3, dtype=dtype), T, S)
        assert (empty.dtype, empty.shape) == (dtype, (0, 3))
        empty = BrownianPath((), T=1.0)(torch.zeros(0, 3, dtype=dtype), T, S)
        assert (empty.dtype, empty.shape) == (dtype, (0, 3))


def test_seeds_tell_times_apart_that_differ_in_float64_only() -> None:
    """Times of equal float32 give other noise; -0.0 and 0.0 are one time."""
    x, near = torch.zeros(1, 3), S * (1 + 1e-9)
    noise = from_seeds([4])
    assert not torch.equal(noise(x, T, S), noise(x, T, near))
    assert not torch.equal(noise(x, 0.1 * T, 0.05 * T), noise(x, (0.1 + 1e-10) * T, 0.05 * T))
    zero = torch.tensor(0.0, dtype=torch.float64)
    assert torch.equal(noise(x, T, zero), noise(x, T, -zero))


def test_defaults() -> None:
    """The settings that papers name: min-SNR's gamma of 5; every time of a table alike."""
    schedule = VPLinear()
    t = torch.tensor([1e-3, 0.05, 0.5], dtype=torch.float64)
    assert loss.min_snr()(schedule, t).max() == 5
    assert loss.uniform(Discrete.linear(10), torch.tensor([1.0, 10.0])).tolist() == [1.0, 1.0]
    assert loss.uniform(schedule, t).dtype == torch.float64
