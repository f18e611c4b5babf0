"""Cells of the plane: integrals of polynomials, counts and their edges, rectangles."""

import math

import numpy as np
import pytest
import torch

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import VPLinear
from experiments.common.quadrature import (
    LEAST_EXPECTED,
    Cells,
    cells_about,
    chi_square,
    density_over,
)

CELLS = Cells(torch.tensor([0.0, 1.0, 3.0]).double(), torch.tensor([-1.0, 0.0, 0.5, 2.0]).double())


def normal(std: float, mean: float = 0.0) -> GaussianMixture:
    means = torch.tensor([[mean, 0.0]], dtype=torch.float64)
    return GaussianMixture(torch.zeros(1), means, torch.tensor([std**2]))


def test_a_density_is_laid_out_by_rows_of_the_second_coordinate() -> None:
    line = np.array([-1.0, 0.0, 2.0])
    found = density_over(line, line, normal(1.0, 0.5), VPLinear(), 0)
    assert found.shape == (3, 3)
    wanted = math.exp(-(1.5**2) / 2 - 0.5) / (2 * math.pi)  # at (2, -1)
    assert found[0, 2] == pytest.approx(wanted)
    assert found[2, 0] == pytest.approx(math.exp(-(1.5**2) / 2 - 2) / (2 * math.pi))


@pytest.mark.parametrize("order", [2, 6])
def test_a_rule_integrates_polynomials_cell_by_cell(order: int) -> None:
    """x^(2 order - 1) y^2 over each cell, with the second coordinate's cells running faster."""
    rule = CELLS.rule(order) if order != 6 else CELLS.rule()
    assert rule.points.shape == (6 * order**2, 2)
    power = 2 * order - 1
    values = rule.points[:, 0] ** power * rule.points[:, 1] ** 2 * rule.weights
    wanted = [
        [
            (b ** (power + 1) - a ** (power + 1)) / (power + 1) * (d**3 - c**3) / 3
            for c, d in ((-1, 0), (0, 0.5), (0.5, 2))
        ]
        for a, b in ((0, 1), (1, 3))
    ]
    torch.testing.assert_close(CELLS.sums(values), torch.tensor(wanted).double(), rtol=1e-5, atol=0)


def test_a_point_on_an_edge_counts_above_it_and_outside_nowhere() -> None:
    points = torch.tensor(
        [
            *[[0.0, -1.0]] * 1, *[[0.5, 0.0]] * 2, *[[0.5, 1.0]] * 3,
            *[[1.0, -0.5]] * 4, *[[2.9, 0.25]] * 5, *[[2.0, 0.5]] * 6,
            [-0.1, 0.0], [3.0, 0.0], [0.5, -1.1], [0.5, 2.0], [4.0, 0.0], [0.5, 9.0],
        ]
    ).double()  # fmt: skip
    assert CELLS.counts(points).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_rectangles_hold_eight_deviations_in_cells_of_two() -> None:
    """From -8 sigma to 8 sigma of the widest, 16 / 2 cells and one for a width of exactly two."""
    cells = cells_about(normal(0.5, 3.0))
    assert (cells.first[0], cells.first[-1]) == (-1.0, 7.0)
    assert (cells.second[0], cells.second[-1]) == (-4.0, 4.0)
    assert len(cells.first) == len(cells.second) == 1 + 1 + 8
    assert len(cells_about(normal(0.5), width=0.9).first) == 1 + 1 + 17
    assert len(cells_about(normal(0.5), width=0.01, most=30).first) == 31
    assert len(cells_about(normal(0.5), width=0.01).first) == 1001


def test_the_widest_deviation_tells_the_ends_and_the_least_the_cells() -> None:
    covariances = torch.tensor([[[4.0, 0.0], [0.0, 1.0]]]).double()
    cells = cells_about(GaussianMixture(torch.zeros(1), torch.zeros(1, 2), covariances))
    assert cells.second[-1] == 16.0 and len(cells.second) == 1 + 1 + 16
    faint = torch.tensor([0.0, -33.0]).double()
    means = torch.tensor([[0.0, 0.0], [100.0, 0.0]]).double()
    cells = cells_about(GaussianMixture(faint, means, torch.ones(2)))
    assert cells.first[-1] == pytest.approx(8.0)
    faint = torch.tensor([0.0, -32.0]).double()
    cells = cells_about(GaussianMixture(faint, means, torch.ones(2)))
    assert cells.first[-1] == pytest.approx(108.0)


def seen(counts: list[list[int]]) -> torch.Tensor:
    """Points at the cells' middles, so many of each."""
    middles = [
        [
            (float(CELLS.first[i : i + 2].mean()), float(CELLS.second[j : j + 2].mean()))
            for j in range(3)
        ]
        for i in range(2)
    ]
    rows = [middles[i][j] for i in range(2) for j in range(3) for _ in range(counts[i][j])]
    return torch.tensor(rows).double()


@pytest.mark.parametrize(
    ("shares", "counts", "value", "freedom"),
    [
        # 32, 32 and four times 16, which are together a cell of 64.
        ([[0.25, 0.25, 0.125], [0.125] * 3], [[40, 24, 10], [22, 16, 16]], 4.0, 2),
        # 32, 32, 48 and one of 16, which joins the first of the two that expect least: 48, 32, 48.
        ([[0.25, 0.25, 0.375], [0.125, 0, 0]], [[38, 26, 48], [16, 0, 0]], 1.875, 2),
        # 20 is enough: a cell of 20, and a rest of 20 in four cells of 5.
        ([[0.5, 0.25, 0.0625], [0.0625] * 3], [[40, 22, 3], [5, 5, 5]], 0.4, 2),
        # Six of 2: one cell of all draws.
        ([[0.125] * 3, [0.125] * 3], [[3, 3, 2], [2, 2, 4]], 0.0, 0),
    ],
)
def test_pearsons_sum_joins_cells_that_expect_little(
    shares: list[list[float]], counts: list[list[int]], value: float, freedom: int
) -> None:
    found = chi_square(CELLS, seen(counts), torch.tensor(shares).double(), 1e-6)
    assert LEAST_EXPECTED == 20 and found.freedom == freedom
    assert found.value == pytest.approx(value) and found.limit > found.value
