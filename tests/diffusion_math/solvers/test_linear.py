"""Tables of weights as steps: their times, events of every shape."""

import pytest
import torch

from diffusion_math.sample import trajectory
from diffusion_math.solvers.linear import from_weights
from tests.support.mixtures import normal, seeded

GRID = torch.tensor([3.0, 2.0, 0.5, 0.0], dtype=torch.float64)
WEIGHTS = normal(seeded(1), 3, 4).tril(1)


@pytest.mark.parametrize("event", [(), (1,), (4,), (2, 3)])
def test_a_walk_s_states_have_their_times_and_numbers(event: tuple[int, ...]) -> None:
    """x_{i+1} = a_i x_i + sum_j b_ij x0_j for any event, that of one number included."""
    x = starts = normal(seeded(2), 5, *event)
    seen: list[torch.Tensor] = []
    walk = list(trajectory(from_weights(GRID, WEIGHTS), lambda x, t: x.sin() * t, starts, GRID))
    assert [float(state.t) for state in walk] == GRID.tolist()
    for i, state in enumerate(walk[1:]):
        seen.append(x.sin() * GRID[i])
        x = WEIGHTS[i, 0] * x + sum(WEIGHTS[i, 1 + j] * value for j, value in enumerate(seen))
        torch.testing.assert_close(state.x, x, rtol=1e-13, atol=1e-13)
