"""Where results lie: with their inputs, whatever the default device; coefficients on the CPU.

The meta device stands in for an accelerator. It holds shapes and no numbers, and what mixes it with
the CPU is refused, as on a real one. As the default device it catches a tensor that is made without
a device of its own; as the input's it catches a result that does not come along.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion_math import langevin, metrics, noise, score_matching
from diffusion_math.denoiser import network_time
from diffusion_math.densities import banana_funnel
from diffusion_math.densities.checkerboard import Checkerboard
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.fitting.grids import flattened
from diffusion_math.guidance import limited
from diffusion_math.likelihood import flow_log_density
from diffusion_math.noise import BrownianPath, UnitNoise
from diffusion_math.schedule import VE, Discrete, VPLinear, shape_like
from diffusion_math.solvers.adaptive import bogacki_shampine
from diffusion_math.solvers.step import State
from tests.support.fake_accelerator import Elsewhere, away

X = torch.tensor([[0.5, -1.0], [2.0, 0.25], [0.0, 1.0]], dtype=torch.float64)
HALF, ONE = torch.tensor(0.5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
THREE = torch.tensor([3.0, 7.0, 9.0], dtype=torch.float64)
BETAS = torch.full((5,), 0.1, dtype=torch.float64)
LADDER = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
VP, TABLE = VPLinear(), Discrete.linear()
MIXTURE = GaussianMixture(torch.zeros(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.ones(2))
BANANA = banana_funnel.banana()
BOARD = Checkerboard()


def generator() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(0)


def target(x: Tensor) -> tuple[Tensor, Tensor]:
    return -x.square().sum(1) / 2, -x


def moved(x: Tensor) -> Tensor:
    move = langevin.mala(target, 0.1)
    drawn = noise.from_generator(generator())
    *_, last = langevin.chain(move, x, 2, drawn)
    return last.x


MADE: dict[str, Callable[[], Tensor]] = {
    "alpha": lambda: VP(0.5)[0],
    "alpha of a table": lambda: TABLE(3)[0],
    "log-SNR": lambda: VP.log_snr(0.5),
    "time": lambda: VP.time(0.5),
    "time of a table": lambda: TABLE.time(-0.5),
    "a table": lambda: Discrete(BETAS)(3)[0],
    "noise": lambda: noise.from_generator(generator())(X, ONE, HALF),
    "probes": lambda: score_matching.rademacher(generator(), X, 2),
    "a divergence": lambda: score_matching.implicit(lambda x: -x, X),
    "a mixture's part": lambda: MIXTURE.among([1]).means,
    "a ribbon": lambda: BANANA.log_density(VP, X, HALF),
}


@pytest.mark.parametrize("name", MADE)
def test_the_default_device_does_not_matter(name: str) -> None:
    """Results are those of torch's own default, on the CPU, where their inputs lie."""
    wanted = MADE[name]()
    with torch.device("meta"):
        made = MADE[name]()
    assert made.device.type == "cpu"
    torch.testing.assert_close(made, wanted, rtol=0, atol=0)


AWAY: dict[str, Callable[[Tensor], Tensor]] = {
    "unit vectors": lambda x: UnitNoise(LADDER, (2,)).start(x[0], 1.0),
    "a chain": moved,
    "a covariance": lambda x: score_matching.tweedie_covariance(lambda y: -y, x, HALF),
    "a coefficient": lambda x: shape_like(HALF, x),
    "a coefficient a row": lambda x: shape_like(THREE, x),
    "a network's time": lambda x: network_time(TABLE, x, THREE),
    "noise": lambda x: noise.from_generator(generator())(x, ONE, HALF),
    "noise from seeds": lambda x: noise.from_seeds([1, 2, 3])(x, ONE, HALF),
    "a Brownian path": lambda x: BrownianPath((1, 2, 3), 1.0)(x, ONE, HALF),
    "limited guidance": lambda x: limited(lambda x, t: x, lambda x, t: -x, VE(80.0), (4.0, 8.0))(
        x, THREE
    ),
    "a checkerboard": lambda x: BOARD.posterior_mean(VP, x, HALF),
}


@pytest.mark.parametrize("name", AWAY)
def test_results_lie_where_the_input_does(name: str) -> None:
    found = AWAY[name](X.to("meta"))
    assert found.device.type == "meta"
    assert found.shape == AWAY[name](X).shape and found.dtype == AWAY[name](X).dtype


def adapted(x: Tensor) -> Tensor:
    """Rows of which some steps are refused, from a denoiser that answers on the CPU."""
    step = bogacki_shampine(VP, 1e-4, 1e-4)
    return step(lambda x, t: 2 * x.cpu().sin(), State(x, ONE), ONE, HALF, noise.required).x


def density(x: Tensor) -> Tensor:
    """A flow's log-density, with probes; the network and the prior see the accelerator alone."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert away(x) is away(signs)
        return x / 2

    def log_prior(x: Tensor) -> Tensor:
        assert away(x) is away(signs)
        return -x.square().sum(1)

    signs = torch.sign(x)[None]
    return flow_log_density(
        VP, denoise, x, log_prior, s=0.5, probes=signs, rtol=0.1, atol=0.1
    ).log_density


CALCULATED: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "distances, which scipy takes": (lambda x: metrics.pairwise_distances(x, x + 1), False),
    "a table of betas": (lambda x: Discrete(x.abs() / 4).betas, False),
    "adaptive steps": (adapted, True),
    "a flow's log-density": (density, False),
    "the squares that a fit makes least": (lambda x: flattened(x), False),
}


@pytest.mark.parametrize("name", CALCULATED)
@pytest.mark.usefixtures("unchecked")
def test_numbers_are_brought_to_the_cpu_and_back(name: str) -> None:
    """The same numbers for inputs on an accelerator: on the CPU, or there, as the case says."""
    calculate, comes_back = CALCULATED[name]
    x = X[:, 0] + 1 if name == "a table of betas" else X
    with Elsewhere():
        found = calculate(x.to("cuda"))
        assert away(found) is comes_back
    torch.testing.assert_close(found, calculate(x), rtol=0, atol=0)
