"""Every public function that takes events, called in a dtype: the registry of `test_precision`.

A case is told the dtype's cast and returns tensors.
"""

from functools import partial

import torch

from diffusion_math import (
    _batching,
    denoiser,
    distillation,
    elbo,
    gaussian,
    langevin,
    langevin_law,
    likelihood,
    loss,
    metrics,
    noise,
    prediction,
    sample,
    schedule,
    score_matching,
    solvers,
    variance,
)
from diffusion_math.densities import banana_funnel, reverse_kernel, second_order
from diffusion_math.densities.checkerboard import Checkerboard
from diffusion_math.fitting import _memo, grids, shortest_path, weights
from diffusion_math.gaussian import Gaussian
from diffusion_math.solvers import adams, adaptive, exponential, linear, one_step, stochastic
from tests.support.chance import pinned
from tests.support.precision import (
    FEW,
    GRID,
    LABELLED,
    MIX,
    ONE,
    PLANE,
    START,
    TABLE,
    TARGET,
    TIMES,
    UNITS,
    WAY,
    WEIGHTS,
    WIDE,
    A,
    B,
    C,
    S,
    T,
    X,
    Y,
    Z,
    at,
    both,
    ended,
    energy,
    fine,
    halved,
    held,
    last,
    linear_end,
    narrow,
    normals,
    replayed,
    turned,
)
from tests.support.precision_conditions import CONDITIONS
from tests.support.precision_interop import INTEROP

LEVELS = exponential.Level.at(WAY, T), exponential.Level.at(WAY, S)
CASES = {
    **CONDITIONS,
    **INTEROP,
    "adams.lms": partial(ended, adams.lms),
    "adams.plms": partial(ended, adams.plms),
    "adaptive.bogacki_shampine": partial(ended, adaptive.bogacki_shampine),
    "checkerboard.Checkerboard.log_density": lambda to: Checkerboard().log_density(
        WAY, to(PLANE), T
    ),
    "checkerboard.Checkerboard.score": lambda to: Checkerboard().score(WAY, to(PLANE), T),
    "checkerboard.Checkerboard.posterior_mean": lambda to: Checkerboard().posterior_mean(
        WAY, to(PLANE), T
    ),
    "checkerboard.Checkerboard.denoiser": lambda to: Checkerboard().denoiser(WAY)(to(PLANE), T),
    "_batching.combined": lambda to: _batching.combined((T, to(X)), (TIMES, to(Y))),
    "second_order.score_jacobian": lambda to: second_order.score_jacobian(MIX, WAY, to(A), T),
    "second_order.posterior_covariance": lambda to: second_order.posterior_covariance(
        MIX, WAY, to(A), T
    ),
    "_memo.Once.__call__": lambda to: _memo.Once(halved)(to(X), T),
    **{
        f"denoiser.{name}": lambda to, name=name: getattr(denoiser, name)(halved, WAY)(to(X), T)
        for name in ("from_x0", "from_eps", "from_v", "from_score", "from_flow")
    },
    "elbo.reverse_step": lambda to: both(elbo.reverse_step(WAY, halved, to(X), T, S)),
    "elbo.prior_term": lambda to: elbo.prior_term(WAY, to(X)),
    "elbo.step_term": lambda to: elbo.step_term(WAY, halved, to(X), to(Y), T, S),
    "elbo.quantized_log_probability": lambda to: elbo.quantized_log_probability(
        narrow(Gaussian(Y, T), to), to(X.sign())
    ),
    "elbo.reconstruction_term": lambda to: elbo.reconstruction_term(
        WAY, halved, to(X), to(Y), S, log_likelihood=Gaussian.log_density
    ),
    "elbo.bound": lambda to: (
        elbo.bound(
            WAY,
            halved,
            to(X),
            torch.tensor([1.0, 0.5, 0.0], device="cpu").double(),
            replayed,
            log_likelihood=Gaussian.log_density,
        ).nats
    ),
    "elbo.continuous_integrand": lambda to: elbo.continuous_integrand(WAY, halved, to(X), to(Z), 0),
    "exponential.exponential_step": lambda to: exponential.exponential_step(
        "x0", to(X), *LEVELS, [(WAY.log_snr(T) / 2, to(Y))], 1.0, to(Z)
    ),
    "exponential.exponential_terms": lambda to: _batching.combined(
        *exponential.exponential_terms("x0", to(X), *LEVELS, [(WAY.log_snr(T) / 2, to(Y))])
    ),
    "exponential.singlestep": partial(ended, partial(exponential.singlestep, order=3)),
    "exponential.stages": lambda to: exponential.stages(
        WAY, 2, "x0", halved, to(X), T, exponential.Level.at(WAY, S)
    ),
    "exponential.stage_terms": lambda to: _batching.combined(
        *exponential.stage_terms(WAY, 2, "eps", halved, to(X), T, exponential.Level.at(WAY, S))
    ),
    "exponential.multistep": partial(ended, partial(exponential.multistep, order=2, eta=1.0)),
    "exponential.unipc": partial(ended, exponential.unipc),
    "exponential.dpmpp_2m": partial(ended, exponential.dpmpp_2m),
    "weights.FinePath.at": lambda to: fine(to).at(WAY, T),
    "weights.FinePath.on": lambda to: torch.stack(fine(to).on(WAY, GRID)),
    "weights.fit_weights": lambda to: linear_end(
        to, weights.fit_weights(halved, fine(to).states, GRID)
    ),
    "gaussian.Gaussian.sample": lambda to: normals(to)[0].sample(to(Z)),
    "gaussian.Gaussian.log_density": lambda to: normals(to)[0].log_density(to(Z)),
    "gaussian.Gaussian.score": lambda to: normals(to)[0].score(to(Z)),
    "gaussian.Gaussian.entropy": lambda to: normals(to)[0].entropy(),
    **{
        f"gaussian.{name}": lambda to, name=name: getattr(gaussian, name)(*normals(to))
        for name in ("kl", "cross_entropy", "fisher_divergence", "wasserstein2")
    },
    "gaussian.forward_step": lambda to: both(gaussian.forward_step(TABLE, to(X), 3)),
    "gaussian.marginal": lambda to: both(gaussian.marginal(WAY, to(X), 1e-4)),
    "gaussian.transition": lambda to: both(gaussian.transition(WAY, to(X), 1e-4, 2e-4)),
    "gaussian.posterior": lambda to: both(gaussian.posterior(WAY, to(X), to(Y), T, 1e-4)),
    "langevin.chain": lambda to: last(langevin.ascent(lambda x: -x, 0.25), to),
    "langevin.ascent": lambda to: last(langevin.ascent(lambda x: -x, 0.25), to),
    "langevin.ula": lambda to: last(langevin.ula(lambda x: -x, 0.25), to),
    "langevin.mala": lambda to: last(langevin.mala(energy, 2**-14), to),
    "langevin.annealed": lambda to: last(
        langevin.annealed(lambda x, sigma: -x, torch.tensor([2.0, 1.0], device="cpu"), 1, 0.1), to
    ),
    "langevin.baoab": lambda to: last(langevin.baoab(lambda x: -x, 0.5, 1.0), to),
    "langevin.proposal": lambda to: both(langevin.proposal(to(X), to(Y), 0.25)),
    "langevin.log_acceptance": lambda to: langevin.log_acceptance(
        (to(X), -_batching.inner(to(X), to(X)), to(-Y)),
        (to(Y), -_batching.inner(to(Y), to(Y)), to(-Z)),
        0.25,
    ),
    "langevin_law.ula_distribution": lambda to: both(
        langevin_law.ula_distribution(narrow(TARGET, to), 0.25, narrow(START, to), 3)
    ),
    "langevin_law.ula_stationary": lambda to: both(
        langevin_law.ula_stationary(narrow(TARGET, to), 0.25)
    ),
    "langevin_law.baoab_stationary": lambda to: both(
        langevin_law.baoab_stationary(narrow(TARGET, to), 0.25)[1]
    ),
    "labelled.Labelled.log_posterior": partial(at, LABELLED.log_posterior),
    "likelihood.flow_log_density": lambda to: (
        likelihood.flow_log_density(
            WAY, halved, to(A), lambda x: energy(x)[0], 0.3, 0.5, rtol=1e-3, atol=1e-3
        ).log_density
    ),
    "linear.from_weights": lambda to: linear_end(to, WEIGHTS),
    "linear.grouped": lambda to: [one for (one,) in linear.grouped([to(X)], 3)],
    "linear.mixed": lambda to: linear.mixed(WEIGHTS[1][:, None], to(X), [to(Y), to(Z)]),
    "distillation.target": lambda to: distillation.target(WAY, to(X), to(Y), T, S),
    "loss.training_loss": lambda to: loss.training_loss(WAY, halved, "v", to(X), to(Y), T),
    "metrics.energy_distance": lambda to: torch.tensor(
        metrics.energy_distance(*map(to, FEW)), dtype=torch.float64, device="cpu"
    ),
    "metrics.empirical_wasserstein2": lambda to: metrics.empirical_wasserstein2(*map(to, FEW)),
    "metrics.pairwise_distances": lambda to: metrics.pairwise_distances(*map(to, FEW)),
    **{
        f"multivariate.Multivariate.{name}": lambda to, name=name: getattr(WIDE, name)(to(A[0]))
        for name in ("sample", "log_density", "score")
    },
    "noise.zeros": turned(noise.zeros),
    "noise.from_seeds": turned(noise.from_seeds([1, 2])),
    "noise.BrownianPath.__call__": turned(noise.BrownianPath((1, 2), 1.0)),
    "noise.UnitNoise.start": lambda to: UNITS.start(to(A[0]), 1.5),
    "noise.UnitNoise.__call__": lambda to: UNITS(UNITS.start(to(A[0]), 1.5), *GRID[:2]),
    "noise.UnitNoise.mean": lambda to: UNITS.mean(to(held(4, 13, 3))),
    "noise.UnitNoise.covariance": lambda to: UNITS.covariance(to(held(4, 13, 3, scale=256))),
    **{
        f"mixture.GaussianMixture.{name}": partial(at, getattr(MIX, name))
        for name in (
            "log_density",
            "responsibilities",
            "score",
            "log_density_and_score",
            "posterior_mean",
        )
    },
    "mixture.GaussianMixture.denoiser": lambda to: MIX.denoiser(WAY)(to(A), T),
    "mixture.GaussianMixture.reverse": lambda to: MIX.reverse(WAY, to(A[0]), T, S).means,
    "mixture.GaussianMixture.probability_flow": lambda to: ONE.probability_flow(WAY, to(A), T, S),
    "reverse_kernel.sample_clean": lambda to: reverse_kernel.sample_clean(
        MIX, pinned(0), WAY, to(A), T
    ),
    "reverse_kernel.sample_reverse": lambda to: reverse_kernel.sample_reverse(
        MIX, pinned(0), WAY, to(A), T, S
    ),
    "reverse_kernel.path_log_density": lambda to: reverse_kernel.path_log_density(
        MIX, WAY, [to(A), to(B)], torch.stack([T, S])
    ),
    "prediction.terms_from_x0": lambda to: _batching.combined(
        *prediction.terms_from_x0(WAY, to(X), to(Y), T, "eps")
    ),
    "prediction.target": lambda to: prediction.target(WAY, "v", to(X), to(Y), T),
    **{
        f"prediction.{one}_from_{other}": lambda to, name=f"{one}_from_{other}": getattr(
            prediction, name
        )(WAY, to(X), to(Y), T)
        for one in ("x0", "eps", "v", "flow", "score")
        for other in ("x0", "eps", "v", "flow", "score")
        if one != other
    },
    **{
        f"banana_funnel.Ribbon.{name}": lambda to, name=name: getattr(banana_funnel.banana(), name)(
            WAY, to(PLANE), T
        )
        for name in ("log_density", "score", "posterior_mean")
    },
    "banana_funnel.Ribbon.denoiser": lambda to: banana_funnel.banana().denoiser(WAY)(to(PLANE), T),
    "_batching.over_event": lambda to: _batching.over_event(to(X.abs())),
    "_batching.inner": lambda to: _batching.inner(to(X), to(X + 1)),
    "_batching.length": lambda to: _batching.length(to(256 * X)),
    "_batching.wide": lambda to: _batching.wide(to(X)),
    "_batching.in_blocks": lambda to: _batching.in_blocks(halved, to(A), 3),
    "_batching.by_time": lambda to: _batching.by_time(lambda t: halved, to(A), TIMES, 3),
    "sample.final": partial(ended, one_step.ddim),
    "sample.trajectory": lambda to: [
        s.x for s in sample.trajectory(one_step.ddim(WAY), halved, to(X), GRID)
    ][-1],
    "registry.Solver.__call__": partial(ended, solvers.SOLVERS["heun"]),
    "sample.inversion": lambda to: [
        s.x for s in sample.inversion(one_step.ddim(WAY), halved, to(X), GRID)
    ][-1],
    "schedule.coefficients": lambda to: schedule.coefficients(WAY, T, to(X)),
    "schedule.shape_like": lambda to: schedule.shape_like(TIMES, to(X)),
    "score_matching.explicit": lambda to: score_matching.explicit(halved, lambda x: -x, to(X)),
    "score_matching.fisher_divergence": lambda to: score_matching.fisher_divergence(
        halved, lambda x: -x, to(X)
    ),
    "score_matching.divergence": lambda to: score_matching.divergence(
        lambda x: 256 * x, to(X), to(Y[None].sign())
    ),
    "score_matching.implicit": lambda to: score_matching.implicit(
        halved, to(X), to(Y[None].sign())
    ),
    "score_matching.sliced": lambda to: score_matching.sliced(halved, to(X), to(Y[None].sign())),
    "score_matching.denoising": lambda to: score_matching.denoising(halved, to(X), to(Y), 1e-3),
    "score_matching.tweedie_mean": lambda to: score_matching.tweedie_mean(
        lambda x: x / 2**16, to(X), 400.0
    ),
    "score_matching.tweedie_covariance": lambda to: score_matching.tweedie_covariance(
        lambda x: x / 2**10, to(A), 400.0
    ),
    "score_matching.jacobian": lambda to: score_matching.jacobian(halved, to(A)),
    "score_matching.rademacher": lambda to: score_matching.rademacher(pinned(0), to(X)),
    "shortest_path.kl_upper_bound": lambda to: shortest_path.kl_upper_bound(
        WAY, halved, to(A), GRID, pinned(0)
    ),
    "shortest_path.dynamic_programming": lambda to: shortest_path.dynamic_programming(
        one_step.ddim(WAY), halved, [to(A), to(B), to(C), to(A + B)], GRID, 2
    ),
    **{
        f"one_step.{name}": partial(ended, getattr(one_step, name))
        for name in ("ddpm", "ddim", "euler", "heun", "flow_heun")
    },
    "stochastic.ancestral": partial(ended, partial(stochastic.ancestral, order=2)),
    **{
        f"stochastic.{name}": partial(ended, getattr(stochastic, name))
        for name in ("churn", "dpmpp_sde", "sde_heun")
    },
    "stochastic.corrected": partial(
        ended, lambda way: stochastic.corrected(one_step.ddim(way), way)
    ),
    "grids.errors": lambda to: grids.errors(one_step.ddim(WAY), halved, to(A), to(B), GRID),
    "grids.distances": lambda to: grids.distances(to(X), to(Y)),
    "grids.end_of": lambda to: sample.final(one_step.ddim(WAY), halved, to(X), GRID),
    "grids.robust_residuals": lambda to: grids.robust_residuals(to(X), 2.0),
    "grids.flattened": lambda to: grids.flattened(to(X)),
    "variance.fixed": lambda to: variance.fixed(WAY)(to(X), T, S),
    "variance.learned_range": lambda to: variance.learned_range(WAY, lambda x, t: x.abs() / 16)(
        to(X), T, torch.tensor(1e-4, device="cpu").double()
    ),
    "variance.analytic": lambda to: variance.analytic(WAY, lambda t: T)(to(X), T, S),
}
