"""Chance comes from the arguments alone, in full precision, and the same every time."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion_math import loss, path, score_matching
from diffusion_math.density import DENSITIES
from diffusion_math.noise import BrownianPath, from_generator, from_seeds, start_noise
from diffusion_math.schedule import Discrete, VPLinear
from tests.diffusion_math.mixtures import FORMS, mixture, normal, seeded

Draw = Callable[[torch.Generator], Tensor]

DRAWS: dict[str, Draw] = {
    **{name: lambda g, make=make: make().sample(g, 50) for name, make in DENSITIES.items()},
    **{form: lambda g, form=form: mixture(form).sample(g, 50) for form in FORMS},
    "x_0 given x_t": lambda g: path.draw_clean(mixture("full"), g, VPLinear(), _points(), 0.5),
    "x_s given x_t": lambda g: path.draw_reverse(
        mixture("full"), g, VPLinear(), _points(), 0.5, 0.2
    ),
    "uniform times": lambda g: loss.uniform_times(VPLinear(), g, 50),
    "stratified times": lambda g: loss.stratified_times(VPLinear(), g, 50),
}
"""Everything that draws float64 numbers from a generator."""


def _points() -> Tensor:
    return normal(seeded(1), 50, 2)


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


@pytest.mark.parametrize("name", DRAWS)
def test_draws_have_all_the_digits_of_float64(name: str) -> None:
    """No normal or uniform was drawn in float32 on the way: the mantissas are full.

    Of 50 float64 numbers all but a few are none in float32; of float32 sums a larger part is.
    """
    drawn = DRAWS[name](seeded(3))
    assert drawn.dtype == torch.float64
    # A float32 draw that is scaled has 24 random bits times a constant; multiples of a draw's own
    # rounding betray it: uniforms in float32 are multiples of 2^-24, in float64 they are not.
    assert (drawn != drawn.float().double()).double().mean() > 0.9


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
    """0.1 and its neighbour give other noise; -0.0 and 0.0 are one time."""
    x, near = torch.zeros(1, 3), torch.nextafter(S, T)
    noise = from_seeds([4])
    assert not torch.equal(noise(x, T, S), noise(x, T, near))
    assert not torch.equal(noise(x, 0.1 * T, 0.05 * T), noise(x, (0.1 + 1e-12) * T, 0.05 * T))
    zero = torch.tensor(0.0, dtype=torch.float64)
    assert torch.equal(noise(x, T, zero), noise(x, T, -zero))


def test_defaults() -> None:
    """The settings that papers name: min-SNR's gamma of 5; every time of a table alike."""
    schedule = VPLinear()
    t = torch.tensor([1e-3, 0.05, 0.5], dtype=torch.float64)
    assert loss.min_snr()(schedule, t).max() == 5
    assert loss.uniform(Discrete.linear(10), torch.tensor([1.0, 10.0])).tolist() == [1.0, 1.0]
    assert loss.uniform(schedule, t).dtype == torch.float64
