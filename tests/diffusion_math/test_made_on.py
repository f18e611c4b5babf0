"""A step and a denoiser on two schedules are refused; functions of the user's own are not asked."""

import re
from functools import partial

import pytest
import torch

from diffusion_math import denoiser
from diffusion_math._made_on import made_on
from diffusion_math.densities.toy import DENSITIES
from diffusion_math.grid import trailing
from diffusion_math.guidance import cfg, limited
from diffusion_math.sample import final, inversion, trajectory
from diffusion_math.schedule import Discrete, VPCosine, VPLinear
from diffusion_math.solvers.one_step import ddim
from diffusion_math.solvers.registry import SOLVERS

ONE, OTHER = VPLinear(), VPCosine()
X, GRID = torch.ones(1, 2), trailing(ONE, steps=4)
DENOISERS = {
    name: getattr(denoiser, f"from_{name}") for name in ("x0", "eps", "v", "score", "flow")
}
REFUSED = f"denoise: wanted a denoiser on the schedule of the step, {ONE}, got {OTHER}"


def network(x, t):
    return 0 * x


@pytest.mark.parametrize("name", SOLVERS)
def test_each_solver_is_refused_a_denoiser_of_another_schedule(name):
    """At the call, before any step; the message names both schedules."""
    with pytest.raises(ValueError, match=f"^{re.escape(REFUSED)}$"):
        trajectory(SOLVERS[name](ONE), denoiser.from_x0(network, OTHER), X, GRID)


@pytest.mark.parametrize("name", [*DENOISERS, *DENSITIES, "cfg", "limited"])
def test_each_denoiser_knows_its_schedule(name):
    def on(schedule):
        if name in DENSITIES:
            return DENSITIES[name]().denoiser(schedule)
        plain = DENOISERS.get(name, denoiser.from_eps)(network, schedule)
        guided = cfg(plain, plain, 2.0)
        return {"cfg": guided, "limited": limited(guided, plain, schedule, (0, 1))}.get(name, plain)

    assert set(made_on(on(ONE))) == {ONE}
    assert next(trajectory(ddim(ONE), on(ONE), X, GRID)).x is X
    for run in (trajectory, final):
        with pytest.raises(ValueError, match=r"^denoise: wanted a denoiser on the schedule"):
            run(ddim(ONE), on(OTHER), X, GRID)


def test_of_a_guided_pair_each_is_compared():
    pair = denoiser.from_eps(network, ONE), denoiser.from_eps(network, OTHER)
    for conditional, unconditional in (pair, pair[::-1]):
        with pytest.raises(ValueError, match=r"got VPCosine\(\)$"):
            trajectory(ddim(ONE), cfg(conditional, unconditional, 2.0), X, GRID)


def test_inversion_is_refused_too():
    with pytest.raises(ValueError, match=re.escape(REFUSED)):
        inversion(ddim(ONE), denoiser.from_eps(network, OTHER), X, GRID[:-1])


def test_what_the_user_wrote_is_not_asked():
    """It may convert between schedules, as EDM's preconditioning does."""
    inner = denoiser.from_eps(network, OTHER)

    def converting(x, t):
        return inner(x, t)

    def on(schedule, x, t):
        return x

    def step(denoise, state, t, s, noise):
        return ddim(OTHER)(denoise, state, t, s, noise)

    for denoise in (converting, partial(on, OTHER), cfg(converting, converting, 2.0)):
        assert list(made_on(denoise)) == []
        assert next(trajectory(ddim(ONE), denoise, X, GRID)).x is X
    assert next(trajectory(step, denoiser.from_eps(network, ONE), X, GRID)).x is X


def test_schedules_of_equal_noise_levels_are_one():
    """A beta schedule built twice, or rounded to float32; at another last beta it is another."""
    first = Discrete.scaled_linear()
    grid = torch.tensor([1000.0, 500.0, 1.0, 0.0], dtype=torch.float64)
    rounded = Discrete(first.betas.float())
    for second in (Discrete.scaled_linear(), rounded):
        trajectory(ddim(first), denoiser.from_eps(network, second), X, grid)
    near = Discrete.scaled_linear(last=0.01201)
    with pytest.raises(ValueError, match=r"^denoise: wanted a denoiser on the schedule"):
        trajectory(ddim(first), denoiser.from_eps(network, near), X, grid)


def test_a_node_that_is_no_time_of_the_other_is_said_by_the_denoiser():
    discrete = DENSITIES["ring"]().denoiser(Discrete.linear(10))
    with pytest.raises(ValueError, match=r"^t: wanted 0 or a time in"):
        list(trajectory(ddim(ONE), discrete, X, GRID))
