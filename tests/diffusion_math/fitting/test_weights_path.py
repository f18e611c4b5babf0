"""The flow between the nodes of a fine walk: exact at nodes and for cubics, fourth order else."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.fitting.weights import FinePath
from diffusion_math.grid import uniform_log_snr
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from tests.support.mixtures import normal, seeded

SCHEDULES = [VPLinear(), Discrete.scaled_linear(), VE(), VPCosine()]


@given(
    schedule=st.sampled_from([*SCHEDULES, RectifiedFlow()]),
    share=st.floats(0, 1),
    coefficients=st.lists(st.floats(-3, 3), min_size=4, max_size=4),
)
def test_a_path_is_exact_at_nodes_and_for_cubics(schedule, share, coefficients):
    grid = uniform_log_snr(schedule, 9)
    inner = schedule.log_snr(grid[1:-1]) / 10

    def cubic(level):
        return sum(c * level**k for k, c in enumerate(coefficients)) * torch.ones(2, 3).double()

    ends = [torch.full((2, 3), 7.0, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)]
    path = FinePath(grid, [ends[0], *(cubic(level) for level in inner), ends[1]])
    if schedule.log_snr(grid[0]).isfinite():
        path.states[0][:] = cubic(schedule.log_snr(grid[0]) / 10)
    for t, state in zip(*path, strict=True):
        assert path.at(schedule, t) is state
    level = inner[0] + share * (inner[-1] - inner[0])
    most = schedule.log_snr(grid[-2])  # share = 1 may round beyond it
    t = schedule.time((10 * level).clamp(max=most)).clamp(grid[-2], grid[1])
    found = path.at(schedule, t)
    exact = cubic(schedule.log_snr(t) / 10)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)


def test_a_path_between_its_nodes_is_the_flow():
    """One Gaussian, whose flow is known at every time, from eleven nodes a power of h apart."""
    schedule = VPLinear()
    data = GaussianMixture(torch.zeros(1), torch.tensor([[0.7, -0.4]]), torch.tensor([0.09]))
    starts, times = normal(seeded(11), 6, 2), torch.linspace(0.9, 0.1, 7, dtype=torch.float64)
    worst = []
    for nodes in (12, 23):
        grid = uniform_log_snr(schedule, nodes - 1, 1.0, 0.05)
        flow = [starts, *(data.probability_flow(schedule, starts, 1.0, float(t)) for t in grid[1:])]
        exact = [data.probability_flow(schedule, starts, 1.0, float(t)) for t in times]
        got = [FinePath(grid, flow).at(schedule, t) for t in times]
        worst.append(max(float((a - b).abs().max()) for a, b in zip(got, exact, strict=True)))
    assert worst[1] < 1e-3 and math.log2(worst[0] / worst[1]) > 3


def test_the_four_nodes_are_the_nearest_on_either_side():
    """Two above and two below, at the ends the last four: of a quartic, what is left is its own.

    x(l) - p(l) = (l - l_0) (l - l_1) (l - l_2) (l - l_3) for x = l^4, which no other four nodes
    give; off-centre it is up to 1.8 times as large in the middle.
    """
    schedule = VPLinear()
    levels = torch.linspace(-4, 4, 10, dtype=torch.float64)
    path = FinePath(
        schedule.time(levels), [level**4 * torch.ones(1, 1).double() for level in levels]
    )
    for cell in range(9):
        for share in (0.1, 0.5, 0.9):
            here = levels[cell] + share * (levels[cell + 1] - levels[cell])
            first = min(max(cell - 1, 0), 6)
            left = (here - levels[first : first + 4]).prod()
            got = path.at(schedule, schedule.time(here))
            assert abs(float(here**4 - got) - float(left)) < 1e-9
