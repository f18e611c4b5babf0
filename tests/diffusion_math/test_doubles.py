"""What is promised in float64 is computed there, whatever the dtype of what comes in.

A value that passes through float32 is off by 6e-8 of itself. Cases are of binary numbers that it
holds, or of numbers that it does not, so that the rounding would be seen.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from diffusion_math import gaussian, grid, langevin, likelihood, loss
from diffusion_math.densities.banana_funnel import funnel
from diffusion_math.densities.checkerboard import Checkerboard
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.toy import grid25, spirals
from diffusion_math.fitting import grids
from diffusion_math.fitting.shortest_path import kl_upper_bound
from diffusion_math.gaussian import Gaussian
from diffusion_math.guidance_law import gaussian_guided
from diffusion_math.schedule import Discrete, VPCosine, VPLinear

ROUNDING = 64 * torch.finfo(torch.float64).eps
FLOATS = torch.tensor([[0.5, -1.0], [2.0, 0.25], [0.75, 1.0]], dtype=torch.float32)
DOUBLES = FLOATS.double()
VP = VPLinear()
TIMES = torch.tensor([1.0, 0.5, 0.25, 0.125], dtype=torch.float64)
HALF = torch.tensor(0.5, dtype=torch.float64)
MIXTURE = GaussianMixture(torch.zeros(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.ones(2))


def same(found: Tensor, wanted: Tensor) -> None:
    assert found.dtype == wanted.dtype == torch.float64
    torch.testing.assert_close(found, wanted, rtol=ROUNDING, atol=ROUNDING)


def normal(x: Tensor) -> Tensor:
    return -x.square().sum(1) / 2 - math.log(2 * math.pi)


def narrow(x: Tensor, t: Tensor) -> Tensor:
    """A network of float32 weights: another dtype is refused, as by a linear layer."""
    return x @ (torch.eye(2, dtype=torch.float32) / 2)


def test_boards_of_two_widths_are_one_board() -> None:
    """q of width w at x is that of width 1 at x / w, divided by w^2."""
    narrow, unit = Checkerboard(width=0.3, std=0.03), Checkerboard(std=0.1)
    x = DOUBLES * 0.3
    found = narrow.log_density(VP, x, 0)
    torch.testing.assert_close(found, unit.log_density(VP, DOUBLES, 0) - 2 * math.log(0.3))


def test_a_board_works_in_float64() -> None:
    same(
        Checkerboard().log_density(VP, FLOATS, HALF), Checkerboard().log_density(VP, DOUBLES, HALF)
    )


def test_lattices_and_turns_are_exact() -> None:
    same(grid25(spacing=0.3).means.amax(0), torch.tensor([0.6, 0.6], dtype=torch.float64))
    first, second, third = spirals(arms=3).means.split(32)
    turn = torch.tensor([[-0.5, -math.sqrt(0.75)], [math.sqrt(0.75), -0.5]], dtype=torch.float64)
    same(first @ turn.T, second)
    same(second @ turn.T, third)


def test_waves_are_orthogonal_to_rounding() -> None:
    """cos(pi m (i - 1/2) / n), the DCT's columns, sum to 0 over all gaps; the shift is known."""
    gaps = 7
    shift = torch.cos(math.pi * torch.arange(1.0, 7.0, dtype=torch.float64) * (gaps - 0.5) / gaps)
    same(grids.cosines(gaps, 6).sum(0), -gaps * shift)


@pytest.mark.parametrize("time", [0.1, 0.7])
def test_times_are_compared_in_float64(time: float) -> None:
    """float32 rounds 0.1 up and 0.7 down: two equal times would differ, and two different agree."""
    later = time * (1 + 1e-12)
    with pytest.raises(ValueError, match="s < t"):
        gaussian.transition(VP, DOUBLES, time, time)
    with pytest.raises(ValueError, match="s < t"):
        gaussian.posterior(VP, DOUBLES, DOUBLES, time, time)
    gaussian.transition(VP, DOUBLES, time, later)
    gaussian.posterior(VP, DOUBLES, DOUBLES, later, time)


def test_rates_are_those_of_the_time_in_float64() -> None:
    for time in (0.1, 0.7):
        same(
            loss.variational(VP, time),
            loss.variational(VP, torch.tensor(time, dtype=torch.float64)),
        )


def test_a_stride_that_float32_does_not_hold() -> None:
    nodes = grid.leading(VPCosine(), 10)
    same(nodes[:-1].diff(), torch.full((9,), -0.1, dtype=torch.float64))


def test_none_of_a_mixture_is_refused_as_a_value() -> None:
    with pytest.raises(ValueError, match="means"):
        MIXTURE.among([])


def test_a_reverse_kernel_of_a_float32_point() -> None:
    """Of full covariances too, whose matrices multiply nothing in another dtype."""
    covariances = torch.tensor([[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 3.0]]])
    full = GaussianMixture(torch.zeros(2), MIXTURE.means, covariances)
    same(full.reverse(VP, FLOATS[0], 0.5).means, full.reverse(VP, DOUBLES[0], 0.5).means)
    same(MIXTURE.reverse(VP, FLOATS[0], 0.5).means, MIXTURE.reverse(VP, DOUBLES[0], 0.5).means)


def test_gaussians_of_float32_are_guided_in_float64() -> None:
    def pair(dtype: torch.dtype) -> Gaussian:
        mean = torch.tensor([0.5, -1.0], dtype=dtype)
        v_u, v_c = torch.tensor(2.0, dtype=dtype), torch.tensor(0.5, dtype=dtype)
        return gaussian_guided(Gaussian(mean, v_u), Gaussian(-mean, v_c), 3.0)

    found, wanted = pair(torch.float32), pair(torch.float64)
    same(found.variance, wanted.variance)
    same(found.mean.double(), wanted.mean)


def test_a_chain_counts_and_tells_time_exactly() -> None:
    """Times are float64 and counts whole numbers, or long chains would lose their place."""
    times: list[Tensor] = []

    def source(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        times.extend([t, s])
        return torch.zeros_like(x)

    move = langevin.mala(lambda x: (-x.square().sum(1) / 2, -x), 0.1)
    *_, last = langevin.chain(move, DOUBLES, 2, source)
    assert {time.dtype for time in times} == {torch.float64}
    assert last.accepted is not None and last.accepted.dtype == torch.int64


def test_a_ladder_of_float32_is_climbed_in_float64() -> None:
    def climbed(dtype: torch.dtype) -> Tensor:
        levels = torch.tensor([0.7, 0.1], dtype=torch.float32).to(dtype)
        move = langevin.annealed(lambda x, sigma: -x / (1 + sigma**2), levels, 1, 0.1)
        *_, last = langevin.chain(move, DOUBLES, 2, lambda x, t, s: torch.ones_like(x))
        return last.x

    same(climbed(torch.float32), climbed(torch.float64))


@pytest.mark.parametrize("probed", [False, True])
def test_a_flow_is_followed_in_float64(probed: bool) -> None:
    """A float32 start and float32 probes are those numbers in float64; the network sees float32."""
    seen: set[torch.dtype] = set()

    def followed(x: Tensor, probes: Tensor | None) -> likelihood.FlowDensity:
        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            seen.add(x_t.dtype)
            alpha, sigma = VP(t)
            return x_t.double() * alpha / (alpha**2 + sigma**2)

        said = likelihood.flow_log_density(VP, denoise, x, normal, probes=probes, rtol=1e-6)
        return said

    probes = torch.ones(1, *FLOATS.shape) if probed else None
    found = followed(FLOATS, probes)
    assert found.log_density.dtype == torch.float64 and found.end.dtype == torch.float32
    wanted = followed(DOUBLES, None if probes is None else probes.double())
    assert seen == {torch.float32, torch.float64}
    torch.testing.assert_close(found.log_density, wanted.log_density, rtol=1e-5, atol=1e-5)


def test_a_flow_is_at_its_own_tau() -> None:
    """The network is asked at the time whose sigma / (alpha + sigma) is tau, to rounding."""
    times: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        times.append(t)
        return x

    for tau in (0.1, 0.3, 0.7):
        likelihood._straight_flow(VP, denoise, tau, VP.t_min, VP.T, DOUBLES)(DOUBLES)
        alpha, sigma = VP(times[-1])
        assert float(sigma / (alpha + sigma)) == pytest.approx(tau, rel=1e-12)


def test_a_path_of_a_float32_network_costs_what_it_does_in_float64() -> None:
    nodes = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)

    def cost(x: Tensor, denoise) -> Tensor:  # type: ignore[no-untyped-def]
        return kl_upper_bound(VP, denoise, x, nodes, torch.Generator().manual_seed(0))

    found = cost(FLOATS, narrow)
    same(found, cost(FLOATS, lambda x, t: narrow(x, t).double()))
    torch.testing.assert_close(found, cost(DOUBLES, lambda x, t: x / 2), rtol=1e-5, atol=0)


def test_the_ends_of_a_flow_are_times_of_its_schedule() -> None:
    """The log-SNR of an end, taken from its tau, is rounded: beyond the end on many a table."""
    first = torch.linspace(1e-4, 0.01, 40, dtype=torch.float64)
    tables = [Discrete(torch.cat([one[None], torch.tensor([0.02, 0.03])])) for one in first]
    for table in [*tables, *(Discrete.linear(steps=steps) for steps in range(2, 60))]:
        for time in (1.0, table.T):
            alpha, sigma = table(time)
            tau = float(sigma / (alpha + sigma))
            field = likelihood._straight_flow(table, lambda x, t: x, tau, 1.0, table.T, DOUBLES)
            assert field(DOUBLES).isfinite().all()


class DoublesOnly(TorchFunctionMode):
    """While it is entered, every floating number that a function of torch returns is a float64."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        floating = [
            x for x in tree_leaves(found) if isinstance(x, Tensor) and x.is_floating_point()
        ]
        assert all(x.dtype == torch.float64 for x in floating), func
        return found


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "calculate",
    [
        lambda: funnel().log_density(VP, DOUBLES, HALF),
        lambda: grids.fit_grid_of(lambda grid: grid[None, 1:-1] ** 2, VP, DOUBLES[:1], TIMES),
    ],
    ids=["a funnel", "a grid"],
)
def test_every_number_on_the_way_is_a_float64(calculate: Callable[[], Tensor]) -> None:
    with DoublesOnly():
        calculate()
