"""What ULA keeps on a density that is no Gaussian, as its step size falls to 0 (C23)."""

from itertools import pairwise

import pytest
import torch

from diffusion_math.langevin import chain, ula
from tests.support.langevin_moves import LINE, SCHEDULE, last, score_of


@pytest.mark.claim("C23", "diffusion_math.langevin.ula")
def test_c23_ula_follows_any_distribution_as_delta_falls(measured):
    """What ula keeps on a mixture of two modes, without chance: its kernel on a grid, whose
    stationary density is at a distance c delta + O(delta^2) of q. So the distance halves with
    delta, and what is extrapolated to delta = 0, 2 pi(delta / 2) - pi(delta), is q to O(delta^2).

    The move's mean and deviation are read off `ula` itself, at noise 0 and 1. The moves' deviation
    is at least 8 nodes, of which the trapezoid rule is exact to rounding.
    """
    line = torch.linspace(-7, 8, 801, dtype=torch.float64)[:, None]
    log_q = LINE.log_density(SCHEDULE, line, 0)
    q = log_q.softmax(0)

    def stationary(delta):
        at_0, at_1 = (
            last(chain(ula(score_of(LINE), delta), line, 1, lambda x, t, s, z=z: z + 0 * x)).x
            for z in (0.0, 1.0)
        )
        kernel = (-((line.T - at_0) / (at_1 - at_0)).square() / 2).softmax(1)
        # pi K = pi and sum pi = 1
        equations = torch.cat([kernel.T - torch.eye(len(line)), torch.ones(1, len(line))])
        wanted = torch.zeros(len(line) + 1, 1, dtype=torch.float64)
        wanted[-1] = 1.0
        return torch.linalg.lstsq(equations, wanted).solution[:, 0]

    coarse, fine, finer = (stationary(delta) for delta in (0.08, 0.04, 0.02))
    apart = [float((pi - q).abs().sum() / 2) for pi in (coarse, fine, finer)]
    assert all(0.45 < later / earlier < 0.55 for earlier, later in pairwise(apart))
    rest = float((2 * finer - fine - q).abs().sum() / 2)
    assert rest < 0.3 * float((2 * fine - coarse - q).abs().sum() / 2)
    measured(
        rest, 1e-3, "total variation of ula's law from q, extrapolated from delta = 0.04, 0.02"
    )
