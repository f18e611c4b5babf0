"""One-step solvers: DDPM ancestral sampling, DDIM, Euler, Heun, and Heun for rectified flow.

With x0 = E[x_0 | x_t] and eps = (x_t - alpha_t x0) / sigma_t, the probability flow has slope eps
in the variables y = x / alpha against sigma / alpha (EDM, arXiv:2206.00364, Eq. 4; DDIM,
arXiv:2010.02502, Eq. 14), and every deterministic step below is a quadrature of that slope.

A step that ends on clean data (s = 0: alpha = 1, sigma = 0) returns x0 itself, without noise:
the posterior mean replaces the flow from t to 0.
Derivation: (one_step.2).
"""

import torch
from torch import Tensor

from diffusion_math import checks, gaussian, prediction
from diffusion_math._batching import combined
from diffusion_math._kept import kept, numbers
from diffusion_math.checks import Number, checked
from diffusion_math.denoiser import Denoiser
from diffusion_math.gaussian import Gaussian
from diffusion_math.noise import Noise
from diffusion_math.schedule import Schedule, Time
from diffusion_math.solvers.step import State, Step
from diffusion_math.variance import StepVariance


@checked
def ddpm(schedule: Schedule, variance: StepVariance | None = None) -> Step:
    """DDPM ancestral sampling: a sample of the posterior q(x_s | x_t, x_0) at x_0 = E[x_0 | x_t].

        x_s = mu(x_t, x0) + sqrt(beta) z        N(mu, beta I) = q(x_s | x_t, x0)

    No noise is added at s = 0, where beta = 0. Local error O((t - s)^2): order 1.

    Args:
        schedule: gives alpha and sigma at t and s, which need not be neighbours.
        variance: of `diffusion_math.variance`, replaces beta; the mean is unchanged.

    Derivation: (one_step.4), (one_step.6), (one_step.7).
    Source: DDPM (arXiv:2006.11239), Algorithm 2, with the mean and variance of Eqs. 6-7.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> x, noise = dm.start_noise(range(3), (2,), torch.float64), dm.from_seeds(range(3))
    >>> grid = dm.trailing(schedule, steps=50)
    >>> x0 = dm.final(dm.ddpm(schedule), data.denoiser(schedule), x, grid, noise)
    >>> data.log_density(schedule, x0, 0)
    tensor([-1.5369, -0.5174, -0.3067], dtype=torch.float64)
    """

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        x0 = denoise(state.x, t)
        posterior = gaussian.posterior(schedule, state.x, x0, t, s)
        if schedule(s)[1] == 0:
            return State(posterior.mean, s)
        beta = posterior.variance if variance is None else variance(state.x, t, s)
        return State(Gaussian(posterior.mean, beta).sample(noise(state.x, t, s)), s)

    return step


@checked
def ddim(schedule: Schedule, eta: float | int = 0.0) -> Step:
    """DDIM: from the deterministic flow (eta = 0) to ancestral sampling (eta = 1).

        x_s = alpha_s x0 + sqrt(sigma_s^2 - c^2) eps + c z
        c   = eta sigma_s sqrt(1 - rho^2),    rho = (sigma_s / alpha_s) / (sigma_t / alpha_t)

    The middle coefficient is computed as sigma_s sqrt(1 - eta^2 + eta^2 rho^2), without
    cancellation. No noise is added where c = 0, as at s = 0. Order 1 at every eta.

    Args:
        schedule: gives alpha and sigma at t and s, which need not be neighbours.
        eta: share of the posterior's standard deviation, in [0, 1].

    Raises:
        ValueError: `eta` lies outside [0, 1].

    Derivation: (one_step.8), (one_step.9), (one_step.10).
    Source: DDIM (arXiv:2010.02502), Eqs. 12 and 16.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> x, grid = torch.tensor([[1.0, 0.5]]), dm.trailing(schedule, steps=20)
    >>> dm.final(dm.ddim(schedule), data.denoiser(schedule), x, grid)
    tensor([[1.4930, 1.2589]])
    """
    checks.between("eta", float(eta), 0.0, 1.0)

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        of_x_t, of_x0, fresh = _ddim(schedule, t, s, eta)
        x0 = denoise(state.x, t)
        terms = [(of_x_t, state.x), (of_x0, x0)]
        if fresh > 0:
            terms.append((fresh, noise(state.x, t, s)))
        return State(combined(*terms), s)

    return step


@kept
def _ddim(schedule: Schedule, t: Time, s: Time, eta: Number) -> tuple[float | Tensor, ...]:
    """The coefficients of x_t, x0 and z in `ddim`, where eps = (x_t - alpha_t x0) / sigma_t.

    That of x0 is alpha_s - a alpha_t, a that of x_t, without cancellation.

    Derivation: (one_step.17).
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    if alpha_s == 0:  # up into pure noise, where the flow alone goes
        return numbers(sigma_s / sigma_t, -sigma_s / sigma_t * alpha_t, alpha_s)
    log_rho2 = schedule.log_snr(t) - schedule.log_snr(s)
    rho2, rest = log_rho2.exp(), -log_rho2.expm1()
    retained = (1 - eta**2 + eta**2 * rho2).sqrt()
    of_x0 = alpha_s * rest * (1 + eta**2 * rho2) / (1 + rho2.sqrt() * retained)
    fresh = eta * sigma_s * rest.sqrt() if eta > 0 else torch.zeros_like(sigma_s)
    return numbers(sigma_s * retained / sigma_t, of_x0, fresh)


@checked
def euler(schedule: Schedule) -> Step:
    """Euler's method on the probability flow, in y = x / alpha against r = sigma / alpha.

        y_s = y_t + (r_s - r_t) eps,    that is    x_s = alpha_s x0 + sigma_s eps

    The second form, equal by y_t = x0 + r_t eps, also starts where alpha_t = 0 (rectified flow's
    t = 1). It is the map of `ddim(eta=0)`. Order 1.

    Args:
        schedule: gives alpha and sigma at t and s.

    Derivation: (one_step.11).
    Source: EDM (arXiv:2206.00364), Algorithm 1 without lines 6-8; DDIM (arXiv:2010.02502), Eq. 13.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.RectifiedFlow(), dm.DENSITIES["ring"]()
    >>> x, grid = torch.tensor([[1.0, 0.5]]), dm.trailing(schedule, steps=20)
    >>> dm.final(dm.euler(schedule), data.denoiser(schedule), x, grid)
    tensor([[1.5097, 1.2359]])
    """

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        x_s, _ = _euler(schedule, denoise, state.x, t, s)
        return State(x_s, s)

    return step


@checked
def heun(schedule: Schedule) -> Step:
    """Heun's method on the probability flow: an Euler step, then the mean of both end slopes.

        y_s = y_t + (r_s - r_t) (eps_t + eps_s) / 2,    y = x / alpha,  r = sigma / alpha
        eps_s = (x_s' - alpha_s E[x_0 | x_s']) / sigma_s,    x_s' = Euler's x_s

    Two function evaluations per step; order 2. Steps into s = 0 (sigma_s = 0) and out of pure noise
    (alpha_t = 0) are Euler steps, as one of the slopes does not exist.

    Args:
        schedule: gives alpha and sigma at t and s.

    Derivation: (one_step.12).
    Source: EDM (arXiv:2206.00364), Algorithm 1.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VE(), dm.DENSITIES["ring"]()
    >>> x, grid = torch.tensor([[80.0, 40.0]]), dm.karras(schedule, steps=18)
    >>> dm.final(dm.heun(schedule), data.denoiser(schedule), x, grid)
    tensor([[1.5422, 1.2774]])
    """

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        x_s, x0 = _euler(schedule, denoise, state.x, t, s)
        half = _half(schedule, t, s)
        if half is not None:
            eps_t = prediction.terms_from_x0(schedule, state.x, x0, t, "eps")
            eps_s = prediction.terms_from_x0(schedule, x_s, denoise(x_s, s), s, "eps")
            x_s = combined((1.0, x_s), (half, eps_s), (-half, eps_t))
        return State(x_s, s)

    return step


@kept
def _half(schedule: Schedule, t: Time, s: Time) -> float | None:
    """alpha_s (r_s - r_t) / 2, or None where a slope does not exist."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    if alpha_t == 0 or sigma_s == 0:
        return None
    return float(sigma_s - alpha_s / alpha_t * sigma_t) / 2


@checked
def flow_heun(schedule: Schedule) -> Step:
    """Heun's method in the coordinates of rectified flow, whose slope is flow = eps - x0.

        u_s = u_t + (tau_s - tau_t) (flow_t + flow_s) / 2
        u = x / (alpha + sigma),    tau = sigma / (alpha + sigma)

    For rectified flow u = x and tau = t: Heun's method of flow matching, whose Euler method is
    `euler`. Unlike `heun` it has order 2 out of pure noise too. Steps into s = 0 are Euler steps.
    Two function evaluations per step.

    Args:
        schedule: gives alpha and sigma at t and s.

    Derivation: (one_step.13).
    Source: Esser et al. (arXiv:2403.03206), section 2, for the field; EDM (arXiv:2206.00364),
    Algorithm 1, for the rule.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.RectifiedFlow(), dm.DENSITIES["ring"]()
    >>> x, grid = torch.tensor([[1.0, 0.5]]), dm.trailing(schedule, steps=10)
    >>> dm.final(dm.flow_heun(schedule), data.denoiser(schedule), x, grid)
    tensor([[1.5100, 1.2783]])
    """

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        x_s, x0 = _euler(schedule, denoise, state.x, t, s)
        half = _half_of_flow(schedule, t, s)
        if half is not None:
            flow_t = prediction.terms_from_x0(schedule, state.x, x0, t, "flow")
            flow_s = prediction.terms_from_x0(schedule, x_s, denoise(x_s, s), s, "flow")
            x_s = combined((1.0, x_s), (half, flow_s), (-half, flow_t))
        return State(x_s, s)

    return step


@kept
def _half_of_flow(schedule: Schedule, t: Time, s: Time) -> float | None:
    """(alpha_s + sigma_s) (tau_s - tau_t) / 2, or None into clean data."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    if sigma_s == 0:
        return None
    return float(sigma_s - (alpha_s + sigma_s) * sigma_t / (alpha_t + sigma_t)) / 2


def _euler(
    schedule: Schedule, denoise: Denoiser, x_t: Tensor, t: Tensor, s: Tensor
) -> tuple[Tensor, Tensor]:
    """Euler's x_s, and x0 at x_t."""
    of_x_t, of_x0, _ = _ddim(schedule, t, s, 0.0)
    x0 = denoise(x_t, t)
    return combined((of_x_t, x_t), (of_x0, x0)), x0
