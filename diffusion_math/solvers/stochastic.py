"""Stochastic solvers: ancestral, EDM churn, DPM-Solver++ SDE, SDE Heun, predictor-corrector.

With r = sigma / alpha and y = x / alpha, y = x_0 + r eps, so adding c z to y raises r to
sqrt(r^2 + c^2) exactly. Derivation: (stochastic.1).
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_math import prediction
from diffusion_math._batching import combined
from diffusion_math._kept import kept
from diffusion_math.checks import Number, between, checked, require, whole
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise, zeros
from diffusion_math.schedule import Schedule, Time
from diffusion_math.solvers.exponential import (
    Kind,
    Level,
    check_kind,
    exponential_step,
    exponential_terms,
    stage_terms,
)
from diffusion_math.solvers.one_step import heun
from diffusion_math.solvers.step import State, Step


@checked
def ancestral(schedule: Schedule, order: int, kind: Kind = "eps", eta: float | int = 1.0) -> Step:
    """Ancestral sampling: a deterministic step to below s, then noise back up to s.

        c = eta r_s sqrt(1 - (r_s / r_t)^2),    r_down = sqrt(r_s^2 - c^2)
        x_s = (the flow from r_t to r_down, at alpha_s) + alpha_s c z

    With order = 1 it is `ddim(eta)`; "eps" of order 2 is k-diffusion's DPM2 ancestral, "x0" of
    order 2 its DPM-Solver++(2S) ancestral. With the exact flow, x_s has the exact
    distribution for any step length: the flow gives the distribution at r_down, and the noise that
    at r_s. So the weak order is that of the flow's solver.

    Args:
        order, kind: of `singlestep`; the order, 1..3, is the number of function evaluations per
            step.
        eta: the factor of the posterior's standard deviation, in [0, 1].

    Raises:
        ValueError: `order`, `kind` or `eta` is not as above.

    Derivation: (stochastic.2), (stochastic.3).
    Source: Crowson, k-diffusion (`get_ancestral_step`); DDIM (arXiv:2010.02502), Eq. 16.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VE(), dm.DENSITIES["ring"]()
    >>> x, noise = torch.tensor([[80.0, 40.0]]), dm.from_seeds([0])
    >>> step = dm.solvers.ancestral(schedule, order=2)
    >>> x0 = dm.final(step, data.denoiser(schedule), x, dm.karras(schedule, 50), noise)
    >>> x0.norm().round(decimals=1)
    tensor(1.9000)
    """
    whole("order", order, 1, 3)
    check_kind(kind)
    between("eta", float(eta), 0.0, 1.0)

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        *lower, fresh = _lower(schedule, t, s, eta)
        terms = stage_terms(schedule, order, kind, denoise, state.x, t, Level(*lower))
        if fresh > 0:
            terms = (*terms, (fresh, noise(state.x, t, s)))
        return State(combined(*terms), s)

    return step


@checked
def down_time(schedule: Schedule, t: Time, s: Time, eta: float | int) -> Tensor:
    """The time of r_down, to which `ancestral` and `ddim(eta)` follow the flow, before the noise.

        log SNR = log SNR(s) - log(1 - eta^2 + eta^2 rho^2),    rho = r_s / r_t

    It is s with eta = 0, and 0 with s = 0.

    Args:
        schedule: gives the log-SNR, and the time of one.
        t, s: numbers, s < t.
        eta: as of `ddim`, in [0, 1].

    Raises:
        ValueError: `eta` is outside [0, 1]; the time is between 0 and 1 on a discrete schedule.

    Derivation: (stochastic.2), (distillation.3).

    >>> import diffusion_math as dm
    >>> from diffusion_math.solvers.stochastic import down_time
    >>> down_time(dm.Discrete.scaled_linear(), 1000, 833, eta=0.7)
    tensor(775.6515, dtype=torch.float64)
    """
    between("eta", float(eta), 0.0, 1.0)
    lam = _lower(schedule, t, s, eta)[2]
    return schedule.time(torch.tensor(2 * lam, dtype=torch.float64, device="cpu"))


@kept
def _lower(schedule: Schedule, t: Time, s: Time, eta: Number) -> tuple[float, ...]:
    """The level below s that `ancestral` goes to, and the noise's standard deviation."""
    alpha_s, sigma_s = schedule(s)
    log_rho2 = schedule.log_snr(t) - schedule.log_snr(s)
    retained = (1 - eta**2 + eta**2 * log_rho2.exp()).sqrt()  # r_down / r_s
    fresh = eta * sigma_s * (-log_rho2.expm1()).sqrt()
    sigma, lam = sigma_s * retained, schedule.log_snr(s) / 2 - retained.log()
    if not (sigma > 0 and math.isfinite(lam)):  # eta = 1 out of pure noise
        lam = torch.full_like(lam, math.inf)
    return tuple(float(one) for one in (alpha_s, sigma, lam, fresh))


@checked
def churn(
    schedule: Schedule,
    share: Number = 0.5,
    low: Number = 0.0,
    high: Number = math.inf,
    inflation: Number = 1.0,
) -> Step:
    """EDM's stochastic sampler (churn): noise is added first, then a Heun step removes it.

        r^ = (1 + gamma) r_t,    y^ = y_t + inflation sqrt(r^^2 - r_t^2) z,    Heun from r^ to r_s
        gamma = min((r_t / r_s)^share - 1, sqrt(2) - 1)

    The paper's gamma is S_churn / N for each of N steps. Here it is a fraction of the step's own
    change of log r, as a step does not know N; on grids uniform in log r both agree to first order.
    No noise is added outside of low <= r_t <= high, above r_T, or at either end of the domain.
    Two function evaluations per step; weak order 2.

    Args:
        share: >= 0 and finite.
        low, high: S_tmin and S_tmax, in units of r.
        inflation: S_noise, in [0.5, 2]; the distribution is right at 1 only.

    Raises:
        ValueError: an argument is not as above.

    Derivation: (stochastic.3), (stochastic.4).
    Source: EDM (arXiv:2206.00364), Algorithm 2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VE(), dm.DENSITIES["ring"]()
    >>> x, noise = torch.tensor([[80.0, 40.0]]), dm.from_seeds([0])
    >>> step = dm.solvers.churn(schedule, share=0.5)
    >>> x0 = dm.final(step, data.denoiser(schedule), x, dm.karras(schedule, 50), noise)
    >>> x0.norm().round(decimals=1)
    tensor(2.)
    """
    require(0 <= share < math.inf, "share", "a finite number of at least 0", share)
    require(0 <= low < high, "low, high", "0 <= low < high", (low, high))
    between("inflation", inflation, 0.5, 2)
    down = heun(schedule)

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        found = _churned(schedule, t, s, share, low, high)
        if found is None:
            return down(denoise, state, t, s, zeros)
        up, of_x, of_z = found
        x = combined((of_x, state.x), (inflation * of_z, noise(state.x, t, s)))
        return down(denoise, State(x, up), up, s, zeros)

    return step


@kept
def _churned(
    schedule: Schedule, t: Time, s: Time, share: Number, low: Number, high: Number
) -> tuple[Tensor, float, float] | None:
    """The time that `churn` goes up to and the coefficients of x and z, or None for no noise."""
    (alpha_t, sigma_t), (_, sigma_s) = schedule(t), schedule(s)
    if alpha_t == 0 or sigma_s == 0 or not low <= sigma_t / alpha_t <= high:
        return None
    here, there = schedule.log_snr(t), schedule.log_snr(s)
    climb = (share * (there - here)).clamp(max=math.log(2))
    higher = torch.maximum(here - climb, schedule.log_snr(schedule.T))
    if higher == here:
        return None
    up = schedule.time(higher)
    alpha, sigma = schedule(up)
    return up, float(alpha / alpha_t), float(sigma * (-torch.expm1(higher - here)).sqrt())


@checked
def dpmpp_sde(schedule: Schedule, eta: float | int = 1.0) -> Step:
    """DPM-Solver++ (SDE), single-step: a stochastic half step, then the full step with its x0.

        x_m = advance(t -> m; x0(x_t)),    x_s = advance(t -> s; x0(x_m)),    lambda_m halfway

    The noise of the full step is that of its two halves, so both use one Brownian path: the
    stochastic midpoint rule, of weak order 2 as the noise is additive. Two function evaluations per
    step, one into s = 0 and out of pure noise.

    Raises ValueError for `eta` outside (0, 1].
    Derivation: (stochastic.5), (stochastic.6).
    Source: Crowson, k-diffusion (`sample_dpmpp_sde`); DPM-Solver++ (arXiv:2211.01095), section 5.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VE(), dm.DENSITIES["ring"]()
    >>> x, noise = torch.tensor([[80.0, 40.0]]), dm.from_seeds([0])
    >>> step = dm.solvers.dpmpp_sde(schedule)
    >>> x0 = dm.final(step, data.denoiser(schedule), x, dm.karras(schedule, 50), noise)
    >>> x0.norm().round(decimals=1)
    tensor(1.9000)
    """
    require(0 < eta <= 1, "eta", "in (0, 1]", eta)

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        here, there = Level.at(schedule, t), Level.at(schedule, s)
        first = [(here.lam, denoise(state.x, t))]
        if not math.isfinite(there.lam - here.lam):
            z = noise(state.x, t, s) if there.sigma > 0 else None
            return State(exponential_step("x0", state.x, here, there, first, eta, z), s)
        middle = schedule.time(here.lam + there.lam)
        between_them = Level.at(schedule, middle)
        early, late = noise(state.x, t, middle), noise(state.x, middle, s)
        x_m = exponential_step("x0", state.x, here, between_them, first, eta, early)
        second = [(between_them.lam, denoise(x_m, middle))]
        # One x0 for the two halves is one x0 for the whole.
        half = exponential_terms("x0", state.x, here, between_them, second, eta, early)
        return State(exponential_step("x0", half, between_them, there, second, eta, late), s)

    return step


@checked
def sde_heun(schedule: Schedule, eta: float | int = 1.0) -> Step:
    """Stochastic Heun with an exact linear part: x0 interpolated linearly between both ends.

        x_s' = advance(t -> s; x0(x_t)),    x_s = advance(t -> s; x0(x_t), x0(x_s')), the same z

    The noise is additive, for which Heun's method has weak order 2. Two function evaluations per
    step, one into s = 0 and out of pure noise.

    Raises ValueError for `eta` outside (0, 1].
    Derivation: (stochastic.5), (stochastic.7).
    Source: Kloeden & Platen 1992, "Numerical Solution of Stochastic Differential Equations",
    section 15.1; on the reverse SDE: EDM (arXiv:2206.00364), section 4.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VE(), dm.DENSITIES["ring"]()
    >>> x, noise = torch.tensor([[80.0, 40.0]]), dm.from_seeds([0])
    >>> step = dm.solvers.sde_heun(schedule)
    >>> x0 = dm.final(step, data.denoiser(schedule), x, dm.karras(schedule, 50), noise)
    >>> x0.norm().round(decimals=1)
    tensor(2.)
    """
    require(0 < eta <= 1, "eta", "in (0, 1]", eta)

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        here, there = Level.at(schedule, t), Level.at(schedule, s)
        ends = [(here.lam, denoise(state.x, t))]
        z = noise(state.x, t, s) if there.sigma > 0 else None
        x_s = exponential_step("x0", state.x, here, there, ends, eta, z)
        if math.isfinite(there.lam - here.lam):
            ends.append((there.lam, denoise(x_s, s)))
            x_s = exponential_step("x0", state.x, here, there, ends, eta, z)
        return State(x_s, s)

    return step


@checked
def corrected(predictor: Step, schedule: Schedule, share: Number = 0.5, rounds: int = 1) -> Step:
    """Predictor-corrector: after each step, Langevin moves at the new noise level.

        x_s <- x_s - d sigma_s eps(x_s) + sqrt(2 d) sigma_s z        `rounds` times
        d = min(share log(r_t / r_s), 1) / rounds,    r = sigma / alpha

    This is ULA on grad log q(x_s) = -eps / sigma_s with the step size d sigma_s^2. The paper has a
    fixed d (from norms over the batch); ULA's bias then remains for any number of steps. Here d is
    proportional to the step's change of log r: the weak order is 1 for any predictor of order 1 or
    more, and samples are independent of their batch. Steps into s = 0 and out of pure noise are not
    corrected. Costs `rounds` more function evaluations per step.

    Args:
        predictor: any one-step solver's step.
        share: > 0 and finite.
        rounds: 1 or more.

    Raises:
        ValueError: `share` or `rounds` is not as above.

    Derivation: (stochastic.9), (stochastic.10).
    Source: Song et al. (arXiv:2011.13456), Algorithms 1, 4 and 5.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VE(), dm.DENSITIES["ring"]()
    >>> x, noise = torch.tensor([[80.0, 40.0]]), dm.from_seeds([0])
    >>> step = dm.solvers.corrected(dm.ddim(schedule), schedule, rounds=2)
    >>> x0 = dm.final(step, data.denoiser(schedule), x, dm.karras(schedule, 50), noise)
    >>> x0.norm().round(decimals=1)
    tensor(2.3000)
    """
    require(0 < share < math.inf, "share", "a finite number above 0", share)
    whole("rounds", rounds, 1)

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        here, there = Level.at(schedule, t), Level.at(schedule, s)
        sigma_s = there.sigma
        if sigma_s == 0 or here.alpha == 0:
            return predictor(denoise, state, t, s, noise)
        d = min(share * (there.lam - here.lam), 1) / rounds
        # The normals come from parts of the step, which are independent in every `Noise`: the first
        # is the predictor's, whose own parts keep their proportions in it.
        parts = [t + (s - t) * k / (rounds + 1) for k in range(rounds + 1)] + [s]

        def own(x: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
            return noise(x, t + (upper - t) / (rounds + 1), t + (lower - t) / (rounds + 1))

        x = predictor(denoise, state, t, s, own).x
        for upper, lower in pairwise(parts[1:]):
            eps = prediction.terms_from_x0(schedule, x, denoise(x, s), s, "eps")
            z = noise(x, upper, lower)
            x = combined((1.0, x), (-d * sigma_s, eps), (math.sqrt(2 * d) * sigma_s, z))
        return State(x, s)

    return step
