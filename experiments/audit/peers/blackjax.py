"""blackjax's Markov kernels, by moves of exact samples; JAX in float64, numpy at the border."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from diffusion_math import langevin_law
from diffusion_math.gaussian import Gaussian
from diffusion_math.testing import assert_invariant, assert_stationary
from diffusion_math.testing.adaptors import arrays
from experiments.audit.formula import Formula, formulas_of

EULER = (
    'its docstring says "Euler solver for the diffusion equation of the SGHMC algorithm": '
    "explicit Euler keeps a density to the first order of the step only"
)
DEVIATION = (
    'random_walk.normal, which sigma is handed to, says "Vector or matrix that contains the '
    'standard deviation"; the docstring of normal_random_walk calls it the covariance matrix'
)
UNTRIED = {
    "adaptation, optimizers, pathfinder": "they tune, and keep no density",
    "smc, ns": "populations with weights, which no kernel of one chain is",
    "vi, svgd": "approximations of a density by a family or by particles",
    "laplace_hmc, laplace_mhmc, laplace_dhmc, laplace_dmhmc": "of an approximated density",
    "mclmc, csgld, sgnht": "unadjusted, and not affine: biased by construction",
    "diagnostics": "statistics of a chain",
}
"""What it exports and no row is about: why."""

Algorithm = Callable[[Any, Any], Any]
"""(blackjax, log-density) to what has `init` and `step`."""

ONES = np.ones(2)
WIDE = np.array([[4.0, 1.0], [1.0, 3.0]])
"""A covariance."""


def _metric(x: Any) -> Any:
    """A mass that depends on the position."""
    return 1 + 0.5 / (1 + x**2)


def _bent(x: Any) -> Any:
    """One that depends on it much."""
    return 0.3 + 3 * x**2


KERNELS: dict[str, Algorithm] = {
    "mala": lambda b, f: b.mala(f, 0.3),
    "normal_random_walk": lambda b, f: b.normal_random_walk(f, 0.8 * ONES),
    "barker": lambda b, f: b.barker(f, 0.9),
    "hmc": lambda b, f: b.hmc(f, 0.7, ONES, 3),
    "nuts": lambda b, f: b.nuts(f, 0.7, ONES),
    "rmh": lambda b, f: b.rmh(f, _skewed, _skewed_density),
    "irmh": lambda b, f: b.irmh(f, _independent, _independent_density),
    "mhmc": lambda b, f: b.mhmc(f, 0.7, ONES, 3),
    "dhmc": lambda b, f: b.dhmc(f, 0.7, ONES),
    "dmhmc": lambda b, f: b.dmhmc(f, 0.7, ONES),
    "hmc, dense mass": lambda b, f: b.hmc(f, 0.7, np.array([[1.0, 0.4], [0.4, 0.7]]), 3),
    "hmc, low-rank mass": lambda b, f: b.hmc(f, 0.7, _low_rank(), 3),
    "hmc, mclachlan": lambda b, f: b.hmc(
        f, 0.9, ONES, 3, integrator=import_module("blackjax.mcmc.integrators").mclachlan
    ),
    "rmhmc": lambda b, f: b.rmhmc(f, 0.5, _metric, 3),
    "ghmc": lambda b, f: b.ghmc(f, 0.7, ONES, 0.5, 0.3),
    "barker, dense mass": lambda b, f: b.barker(f, 0.9, np.array([[1.0, 0.4], [0.4, 0.7]])),
    "barker, metric of the position": lambda b, f: b.barker(f, 0.9, _bent),
    "slice_sampling": lambda b, f: b.slice_sampling(f, width=1.0),
    "slice_sampling, stepping out": lambda b, f: b.slice_sampling(
        f, interval=import_module("blackjax.mcmc.slice").stepping_out
    ),
    "coordinate_slice": lambda b, f: b.coordinate_slice(f),
    "gist_step_size": lambda b, f: b.gist_step_size(f, ONES, 0.7, 2),
    "gist_trajectory_length": lambda b, f: b.gist_trajectory_length(f, ONES, 0.5),
    "adjusted_mclmc": lambda b, f: b.adjusted_mclmc(f, 0.9, num_integration_steps=3),
    "adjusted_mclmc, partial refreshment": lambda b, f: b.adjusted_mclmc(
        f, 0.9, L_proposal_factor=1.0, num_integration_steps=3
    ),
    "adjusted_mclmc_dynamic": lambda b, f: b.adjusted_mclmc_dynamic(f, 0.9),
    "orbital_hmc": lambda b, f: b.orbital_hmc(f, 0.7, ONES, 4),
}
"""Each with a step that rejects proposals; rmhmc, adjusted_mclmc and McLachlan's HMC reject few."""
QUICK = 3
"""How many of these are enough for a look."""
LONG = {"rmhmc", "slice_sampling", "coordinate_slice", "gist_trajectory_length"}
"""Loops that are long: fewer chains."""


def _skewed(key: Any, x: Any) -> Any:
    """A proposal that is not symmetric."""
    return 0.8 * x + 0.9 * _jax()[0].random.normal(key, x.shape)


def _skewed_density(given: Any, to: Any) -> Any:
    return -(((to.position - 0.8 * given.position) / 0.9) ** 2).sum() / 2


def _independent(key: Any) -> Any:
    """A proposal that does not look at the position."""
    return 1.5 * _jax()[0].random.normal(key, (2,))


def _independent_density(given: Any, to: Any) -> Any:
    return -((to.position / 1.5) ** 2).sum() / 2


def _low_rank() -> Any:
    """An inverse mass matrix of two deviations and one direction that is stretched by 2."""
    metrics = import_module("blackjax.mcmc.metrics")
    numbers = (np.array([1.0, 0.8]), np.array([[0.6], [0.8]]), np.array([2.0]))
    return metrics.LowRankInverseMassMatrix(*map(_jax()[0].numpy.asarray, numbers))


def _jax() -> tuple[Any, Any]:
    """JAX in float64, and blackjax."""
    jax = import_module("jax")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)  # compiling takes longer than moving
    return jax, import_module("blackjax")


def _numbers(target: Any) -> tuple[Any, ...]:
    """Log-weights, means and precisions of its three components; a normal is three equal ones."""
    density = target.density
    weights, means = (np.asarray(one) for one in (density.log_weights, density.means))
    spreads = np.asarray(density.covariances)
    spreads = spreads if spreads.ndim == 3 else spreads[:, None, None] * np.eye(2)
    weights = weights - np.linalg.slogdet(2 * np.pi * spreads)[1] / 2 - np.log(3 / len(means))
    copies = 3 // len(means)
    return tuple(np.repeat(one, copies, 0) for one in (weights, means, np.linalg.inv(spreads)))


def _kernels(make: Algorithm) -> Callable[[Any], Callable[..., Any]]:
    """Of a target, one step of many chains; compiled once, whatever the target."""
    jax, blackjax = _jax()

    def one(numbers: Any, x: Any, key: Any) -> Any:
        weights, means, precisions = numbers

        def log_density(x: Any) -> Any:
            off = x - means
            squares = (off[:, :, None] * precisions * off[:, None, :]).sum((1, 2))
            return jax.scipy.special.logsumexp(weights - squares / 2)

        algorithm = make(blackjax, log_density)
        first, second, third = jax.random.split(key, 3)
        state, _ = algorithm.step(second, algorithm.init(x, first))
        if not hasattr(state, "weights"):
            return state.position
        choice = jax.random.choice(third, len(state.weights), p=state.weights)
        return state.positions[choice]

    many = jax.jit(jax.vmap(one, (None, 0, 0)))

    def of(target: Any) -> Callable[..., Any]:
        given = partial(many, _numbers(target))
        return lambda x, rng: arrays(lambda x: given(x, jax.random.split(rng, len(x))))(x)

    return of


def _invariant(make: Algorithm, count: int = 2**14) -> None:
    stream = _jax()[0].random.key
    assert_invariant(_kernels(make), moves=2, count=count, stream=stream)


def _with_prior(kind: str, mean: Any = (0.3, -0.2)) -> None:
    """Kernels of a normal prior and a likelihood: the target divided by that prior."""
    jax, _ = _jax()
    mean, spread = np.array(mean), WIDE

    def make(blackjax: Any, log_density: Callable[[Any], Any]) -> Any:
        prior = partial(jax.scipy.stats.multivariate_normal.logpdf, mean=mean, cov=spread)

        def likelihood(x: Any) -> Any:
            return log_density(x) - prior(x)

        if kind == "elliptical_slice":
            return blackjax.elliptical_slice(likelihood, mean=mean, cov=spread)
        return blackjax.mgrad_gaussian(likelihood, spread, mean=mean, step_size=0.5)

    _invariant(make)


def _small_density() -> None:
    """An orbit where the log-density is near -1000, as those of much data are."""
    jax, blackjax = _jax()
    algorithm = blackjax.orbital_hmc(lambda x: -1000 - (x**2).sum() / 2, 0.5, ONES, 4)
    state, _ = algorithm.step(jax.random.key(0), algorithm.init(jax.numpy.zeros(2)))
    weights = np.asarray(state.weights)
    assert np.isfinite(weights).all(), f"the orbit's weights are {weights.tolist()}"


TARGET = Gaussian(torch.tensor([0.7, -0.4]).double(), torch.tensor([1.0, 0.3]).double())


def _of_gradients(x: Any, batch: Any) -> Any:
    """Of TARGET, whatever the batch."""
    return (TARGET.mean.numpy() - x) / TARGET.variance.numpy()


def _sgld(temperature: float) -> None:
    _, blackjax = _jax()
    module = import_module("blackjax.sgmcmc.diffusions")
    algorithm = blackjax.sgld(_of_gradients)

    def kernel(x: Any, z: Any) -> Any:
        with patch.object(module, "generate_gaussian_noise", lambda key, like: z):
            return algorithm.step(None, x, None, 0.1, temperature)

    keeps = langevin_law.ula_stationary(TARGET, 0.1)
    assert_stationary(arrays(kernel), keeps.mean, temperature * keeps.variance.diag())


def _sghmc() -> None:
    """Without friction and without noise of gradients it is Hamiltonian Monte Carlo."""
    jax, blackjax = _jax()
    module = import_module("blackjax.sgmcmc.sghmc")
    algorithm = blackjax.sghmc(_of_gradients, num_integration_steps=10, alpha=0.0)

    def kernel(x: Any, z: Any) -> Any:
        with patch.object(module, "generate_gaussian_noise", lambda key, like: z):
            return algorithm.step(jax.random.key(0), jax.numpy.asarray(x), None, 0.1)

    assert_stationary(arrays(kernel), TARGET.mean, TARGET.variance.diag())


def _proposals(make: Algorithm) -> None:
    """Of a kernel that is told WIDE, and on a flat density: WIDE is its proposals' covariance."""
    jax, blackjax = _jax()
    algorithm = make(blackjax, lambda x: 0.0 * x.sum())

    def proposal(key: Any) -> Any:
        _, info = algorithm.step(key, algorithm.init(jax.numpy.zeros(2)))
        return info.proposal.position

    moved = jax.jit(jax.vmap(proposal))(jax.random.split(jax.random.key(0), 2**14))
    found = np.cov(np.asarray(moved).T)
    off = float(np.abs(found - WIDE).max())
    shown = f"{found.round(2).tolist()}, not {WIDE.tolist()}"
    assert off < 0.3, f"the covariance of the proposals is {shown}"


def subjects(quick: bool) -> Iterator[Formula]:
    """All kernels that are adjusted, and SGLD and SGHMC on a Gaussian."""
    _jax()
    names = list(KERNELS)[:QUICK] if quick else KERNELS
    each: dict[tuple[str, str], Callable[[], None]]
    each = {
        (name, "invariant"): partial(_invariant, KERNELS[name], 2**12 if name in LONG else 2**14)
        for name in names
    }
    for kind in () if quick else ("elliptical_slice", "mgrad_gaussian"):
        each[kind, "invariant"] = partial(_with_prior, kind)
    each |= {
        ("sgld", "stationary"): partial(_sgld, 1.0),
        ("sgld, temperature", "stationary"): partial(_sgld, 0.5),
        ("sghmc", "stationary"): _sghmc,
        ("normal_random_walk, sigma", "covariance"): partial(
            _proposals, lambda b, f: b.normal_random_walk(f, WIDE)
        ),
        ("barker, inverse_mass_matrix", "covariance"): partial(
            _proposals, lambda b, f: b.barker(f, 1.0, WIDE)
        ),
        ("orbital_hmc, weights", "finite"): _small_density,
    }
    yield from formulas_of(
        "blackjax", "defaults", each, {"sghmc": EULER, "normal_random_walk, sigma": DEVIATION}
    )
