"""The step of a ribbon's integral: as its rule says, cell by cell in plain numbers."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion_math.densities.banana_funnel import Ribbon, banana, funnel
from diffusion_math.schedule import VE, RectifiedFlow, Schedule, VPLinear
from tests.support.mixtures import seeded

Parts = tuple[Tensor, Tensor, Tensor, Tensor]

DEVIATION = 28 / 186
"""The step, in standard deviations of u given x_t, from -14 to 14 of them."""


def halvings_by_hand(ribbon: Ribbon, x: float, y: float, alpha: float, sigma: float) -> int:
    """log2 of the largest excess of a cell of non-negligible mass, rounded up, at least 0.

    A cell's -log mass is bounded from below by its ends, where y - alpha f may come nearer to 0 by
    alpha |f'| du in between. A cell counts if that is less than 45 above the least node's. Its
    excess is the move of alpha f in deviations of the noise over 4, and log V's growth over 2.5.
    """
    S, s = alpha**2 * ribbon.std**2 + sigma**2, ribbon.std
    z = [-14 + DEVIATION * i for i in range(187)]
    u = [alpha * s**2 / S * x + sigma * s / math.sqrt(S) * node for node in z]
    nodes = []
    for at, node in zip(u, z, strict=True):
        f, slope, g, growth = (float(part) for part in ribbon.across(torch.tensor(at).double()))
        nodes.append((at, node**2, y - alpha * f, abs(slope), alpha**2 * g + sigma**2, abs(growth)))
    least = min((z2 + off**2 / V + math.log(V)) / 2 for _, z2, off, _, V, _ in nodes)
    worst = 1.0
    for a, b in pairwise(nodes):
        du, smallest, largest = b[0] - a[0], min(a[4], b[4]), max(a[4], b[4])
        moved = alpha * max(a[3], b[3]) * du
        nearest = max(min(abs(a[2]), abs(b[2])) - moved, 0)
        bound = (min(a[1], b[1]) + nearest**2 / largest + math.log(smallest)) / 2
        if bound < least + 45:
            bends = moved / math.sqrt(smallest) / DEVIATION
            grows = max(alpha**2 * one[5] / one[4] for one in (a, b)) * du / DEVIATION
            worst = max(worst, math.sqrt(1 + bends**2) / 4 + grows / 2.5)
    return math.ceil(math.log2(worst))


def uneven(u: Tensor) -> Parts:
    """A wave whose width grows with it."""
    g = (3 * u.sin()).exp() / 50
    return 2 * (3 * u).sin(), 6 * (3 * u).cos(), g, 3 * u.cos() * g


def counted(ribbon: Ribbon) -> tuple[Ribbon, list[int]]:
    """The same ribbon, and at how many u its row was evaluated, call by call."""
    numbers: list[int] = []

    def across(u: Tensor) -> Parts:
        numbers.append(u.shape[1])
        return ribbon.across(u)

    return Ribbon(ribbon.std, across), numbers


RIBBONS = {
    "banana": banana(),
    "thin banana": banana(3.0, 1.2, 0.01),
    "banana of noise alone": banana(30.0, 0.5, 1e-6),
    "funnel": funnel(),
    "Neal's funnel": funnel(3.0),
    "wide funnel": funnel(10.0),
    "wave": Ribbon(2.0, uneven),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", RIBBONS)
@pytest.mark.parametrize("schedule", [RectifiedFlow(), VE(), VPLinear()], ids=repr)
def test_the_step_follows_its_rule(name: str, schedule: Schedule) -> None:
    """Cells are 186 2^k, for rows in the ribbon, off it, and far away, at nine noise levels."""
    ribbon, generator = RIBBONS[name], seeded(3)
    for part in (1e-4, 1e-3, 0.01, 0.05, 0.1, 0.3, 0.5, 0.9, 1.0):
        t = part * schedule.T
        alpha, sigma = (float(value) for value in schedule(t))
        noise = torch.randn(4, 2, generator=generator, dtype=torch.float64)
        far = torch.tensor([0.0, 1.0, 5.0, 30.0], dtype=torch.float64)[:, None]
        for row in (alpha * ribbon.sample(generator, 4) + far * sigma * noise).tolist():
            k = halvings_by_hand(ribbon, *row, alpha, sigma)
            one, numbers = counted(ribbon)
            one.log_density(schedule, torch.tensor([row]).double(), t)
            assert numbers == [187, 186 * 2**k + 1]


def test_clean_data_have_one_node() -> None:
    one, numbers = counted(banana())
    x = torch.tensor([[0.3, -1.0], [2.0, 0.7]], dtype=torch.float64)
    assert one.posterior_mean(VPLinear(), x, 0)[:, 0].equal(x[:, 0])
    assert set(numbers) == {1}


@pytest.mark.usefixtures("unchecked")
def test_twelve_halvings_are_legal() -> None:
    """f = c u is a Gaussian: exact at a slope that asks for steps between 2^-12 and 2^-11."""
    schedule, t, c = RectifiedFlow(), 0.5, 16_000.0

    def across(u: Tensor) -> Parts:
        return c * u, torch.full_like(u, c), torch.full_like(u, 0.3), torch.zeros_like(u)

    one, numbers = counted(Ribbon(1.0, across))
    alpha, sigma = (float(value) for value in schedule(t))
    x = torch.tensor([[0.4, 0.4 * c]], dtype=torch.float64)
    found = one.log_density(schedule, x, t).item()
    assert numbers[1:] == [186 * 2**12 + 1]
    # Of y given x: mean c alpha^2 x / S, variance (c alpha sigma)^2 / S + 0.3 alpha^2 + sigma^2.
    S = alpha**2 + sigma**2
    mean, variance = (
        c * alpha**2 * 0.4 / S,
        (c * alpha * sigma) ** 2 / S + 0.3 * alpha**2 + sigma**2,
    )
    squares = 0.4**2 / S + (0.4 * c - mean) ** 2 / variance
    assert found == pytest.approx(
        -(squares + math.log(4 * math.pi**2 * S * variance)) / 2, rel=1e-9
    )


def test_what_no_step_resolves_is_told_how_many_halvings_it_asks_for() -> None:
    steep = banana(1e6, 1.0, 1e-6)
    k = halvings_by_hand(steep, 0.0, 0.0, 0.5, 0.5)
    with pytest.raises(ValueError, match=rf"^across: wanted .* / 2\^12 deviations, got 2\^{k}$"):
        steep.log_density(RectifiedFlow(), torch.zeros(1, 2), 0.5)
