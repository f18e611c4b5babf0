"""Exponential integrators: DPM-Solver, DPM-Solver++, DEIS and UniPC, and their SDE forms.

The linear part of the flow is solved exactly and the prediction is interpolated.

In lambda = log(alpha / sigma), with h = lambda_s - lambda_t, the probability flow (eta = 0) and the
reverse diffusions beside it (eta > 0; 1 is the reverse SDE) are solved by

    x_s = (sigma_s / sigma_t) e^{-eta h} x_t + alpha_s I[x0] + sigma_s sqrt(1 - e^{-2 eta h}) z
    I[f] = integral from lambda_t to lambda_s of (1 + eta) e^{-(1 + eta)(lambda_s - l)} f(l) dl

or in terms of eps, I at the rate -1 in the place of 1 + eta, by

    x_s = (alpha_s / alpha_t) x_t + (1 + eta) sigma_s I[eps] + sigma_s sqrt(eta (e^{2h} - 1)) z

A solver takes for f the polynomial through some predictions, inside the step (single-step
solvers) or before it (multistep solvers). Where h is infinite, into clean data and out of or into
pure noise (alpha = 0), f is the one prediction at t. To first order in h, eta is the square of
`ddim`'s.
Derivation: (exponential.1), (exponential.2), (exponential.3), (exponential.4).
Sources: DPM-Solver (arXiv:2206.00927), DPM-Solver++ (arXiv:2211.01095), SA-Solver
(arXiv:2309.05019) for eta.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion_math import prediction
from diffusion_math._batching import Part, Sum, combined, parts
from diffusion_math._kept import kept, numbers
from diffusion_math.checks import Number, between, checked, require, whole
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import Schedule, Time
from diffusion_math.solvers.step import State, Step

Kind: TypeAlias = Literal["x0", "eps"]
Past: TypeAlias = Sequence[tuple[float, Sum]]
"""Predictions as pairs (lambda, x0 or eps)."""

SINGLE: dict[int, tuple[tuple[float, tuple[int, ...]], ...]] = {
    1: ((1, (0,)),),
    2: ((1 / 2, (0,)), (1, (1,))),
    3: ((1 / 3, (0,)), (2 / 3, (0, 1)), (1, (0, 2))),
}
"""Single-step solvers: for each stage, the share of h it goes to and the predictions it is
interpolated through (0 is the one at t, k the one at stage k). DPM-Solver's Algorithms 1 and 2."""


@dataclass(frozen=True)
class Level:
    """A noise level: alpha, sigma and lambda, which is log(alpha / sigma)."""

    alpha: float
    sigma: float
    lam: float

    @classmethod
    def at(cls, schedule: Schedule, t: Tensor) -> "Level":
        """The level of a time."""
        return cls(*_level(schedule, t))


@kept
def _level(schedule: Schedule, t: Time) -> tuple[float, ...]:
    """Alpha, sigma and lambda."""
    return tuple(float(one) for one in (*schedule(t), schedule.log_snr(t) / 2))


def phi(z: float, count: int) -> list[float]:
    """phi_1(z), ..., phi_count(z), where phi_0 = e^z and phi_{k+1} = (phi_k - 1/k!) / z.

    phi_k(z) = sum over n >= 0 of z^n / (n + k)!, summed for |z| < 2, where the recursion cancels.

    Derivation: (exponential.5).
    Source: Hochbruck & Ostermann 2010, "Exponential integrators", Acta Numerica 19, eq. 2.10.
    """
    if abs(z) < 2:
        terms = range(28)
        return [sum(z**n / math.factorial(n + k) for n in terms) for k in range(1, count + 1)]
    found = [math.expm1(z) / z]
    for k in range(1, count):
        found.append((found[-1] - 1 / math.factorial(k)) / z)
    return found


def weights(
    nodes: Sequence[Time], start: Time, stop: Time, rate: Number
) -> Float64[Tensor, " nodes"]:
    """The c_j for which I[p] = sum_j c_j p(lambda_j) for every polynomial p of degree < nodes.

        I[p] = integral from start to stop of rate e^{-rate (stop - l)} p(l) dl

    With xi_j = (lambda_j - start) / h they solve, for m = 0 .. nodes - 1,

        sum_j c_j xi_j^m = rate h m! phi_{m+1}(-rate h)

    Derivation: (exponential.6). Source: the same moments make UniPC's system, (arXiv:2302.04867)
    section 3.1, at B(h) = h.
    """
    h = float(stop - start)
    powers = torch.arange(len(nodes), dtype=torch.float64, device="cpu")
    xi = (
        torch.tensor([float(node) for node in nodes], dtype=torch.float64, device="cpu")
        - float(start)
    ) / h
    moments = [
        rate * h * math.factorial(m) * value for m, value in enumerate(phi(-rate * h, len(nodes)))
    ]
    found: Tensor = torch.linalg.solve(xi ** powers[:, None], xi.new_tensor(moments))
    return found


def exponential_step(
    kind: Kind,
    x: Sum,
    here: Level,
    there: Level,
    past: Past,
    eta: Number = 0.0,
    z: Tensor | None = None,
) -> Tensor:
    """The sum of `exponential_terms`."""
    return combined(*exponential_terms(kind, x, here, there, past, eta, z))


def exponential_terms(
    kind: Kind,
    x: Sum,
    here: Level,
    there: Level,
    past: Past,
    eta: Number = 0.0,
    z: Tensor | None = None,
) -> tuple[Part, ...]:
    """x moved from one noise level to another by the module's formula.

    An infinite h takes the last prediction alone, an x0, by (x - alpha_t x0) / sigma_t.

    Args:
        kind: what the predictions `past` are.
        eta: 0 for the flow, 1 for the reverse SDE; z: standard normal like x, needed where
            `noise_std` is not 0.

    Derivation: (exponential.3), (exponential.4), (exponential.11).
    """
    if not math.isfinite(there.lam - here.lam):
        past = past[-1:]
    of_x, *of_past = _coefficients(
        kind, eta, here.alpha, here.sigma, here.lam, there.alpha, there.sigma, there.lam,
        *(lam for lam, _ in past),
    )  # fmt: skip
    terms = ((of_x, x), *zip(of_past, (value for _, value in past), strict=True))
    fresh = () if z is None else ((noise_std(kind, here, there, eta), z),)
    return parts(*terms, *fresh)


@kept
def _coefficients(
    kind: Kind,
    eta: Number,
    alpha_t: float,
    sigma_t: float,
    lam_t: float,
    alpha_s: float,
    sigma_s: float,
    lam_s: float,
    *lams: float,
) -> tuple[float, ...]:
    """The coefficients of x and of each prediction in `exponential_step`."""
    h = lam_s - lam_t
    decay = math.exp(-eta * h) if eta > 0 else 1.0
    if not math.isfinite(h):
        ratio = sigma_s / sigma_t * decay
        return ratio, alpha_s - ratio * alpha_t
    if kind == "x0":
        rate, retained, gain = 1 + eta, sigma_s / sigma_t * decay, alpha_s
    else:
        rate, retained, gain = -1.0, alpha_s / alpha_t, (1 + eta) * sigma_s
    found = weights(lams, lam_t, lam_s, rate)
    return (retained, *(gain * weight for weight in found.tolist()))


def noise_std(kind: Kind, here: Level, there: Level, eta: Number) -> float:
    """The standard deviation of the noise that `exponential_step` adds; 0 into clean data.

    Derivation: (exponential.3), (exponential.4).
    """
    if eta == 0 or there.sigma == 0:
        return 0.0
    h = torch.tensor(there.lam - here.lam, dtype=torch.float64, device="cpu")
    share = -torch.expm1(-2 * eta * h) if kind == "x0" else eta * torch.expm1(2 * h)
    return there.sigma * float(share.sqrt())


@checked
def singlestep(schedule: Schedule, order: int, kind: Kind = "eps") -> Step:
    """DPM-Solver-1, 2, 3 (kind "eps") and DPM-Solver++(1S, 2S, 3S) (kind "x0").

    The stages lie inside the step, at equal parts of h. The number of function evaluations per step
    is the order. Steps into s = 0 and out of pure noise have one stage.

    Args:
        schedule: gives alpha, sigma and the log-SNR; its `time` gives the stages' times.
        order: 1, 2 or 3.
        kind: whether eps or x0 is interpolated.

    Raises:
        ValueError: another order or kind.

    Derivation: (exponential.7), (exponential.8).
    Source: DPM-Solver (arXiv:2206.00927), Algorithms 1 and 2; DPM-Solver++ (arXiv:2211.01095),
    Algorithm 1.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> x, grid = torch.tensor([[1.0, 0.5]]), dm.uniform_log_snr(schedule, steps=10)
    >>> dm.final(dm.singlestep(schedule, order=3), data.denoiser(schedule), x, grid)
    tensor([[1.5155, 1.2724]])
    """
    whole("order", order, 1, 3)
    check_kind(kind)

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        return State(stages(schedule, order, kind, denoise, state.x, t, Level.at(schedule, s)), s)

    return step


def stages(
    schedule: Schedule,
    order: int,
    kind: Kind,
    denoise: Denoiser,
    x: Tensor,
    t: Tensor,
    there: Level,
    first: Tensor | None = None,
) -> Tensor:
    """The sum of `stage_terms`."""
    return combined(*stage_terms(schedule, order, kind, denoise, x, t, there, first))


def stage_terms(
    schedule: Schedule,
    order: int,
    kind: Kind,
    denoise: Denoiser,
    x: Tensor,
    t: Tensor,
    there: Level,
    first: Tensor | None = None,
) -> tuple[Part, ...]:
    """x at t moved to any noise level by the stages of `SINGLE`.

    Where a stage's level has no time in [t_min, T], one stage is used. `first` is x0 at t, if it
    is already computed.
    """
    here = Level.at(schedule, t)
    x0 = denoise(x, t) if first is None else first
    h = there.lam - here.lam
    stages = SINGLE[order] if math.isfinite(h) else SINGLE[1]
    inner = [here.lam + share * h for share, _ in stages[:-1]]
    if inner and max(inner) > max(_level(schedule, schedule.t_min)[2], here.lam):
        stages, inner = SINGLE[1], []
    if not math.isfinite(h):
        return exponential_terms("x0", x, here, there, [(here.lam, x0)])
    found = [(here.lam, _of(kind, schedule, x, x0, t))]
    for lam, (_, through) in zip(inner, stages, strict=False):
        time = schedule.time(2 * lam)
        x_stage = exponential_step(
            kind, x, here, Level.at(schedule, time), [found[k] for k in through]
        )
        x0 = denoise(x_stage, time)
        found.append((lam, _of(kind, schedule, x_stage, x0, time)))
    return exponential_terms(kind, x, here, there, [found[k] for k in stages[-1][1]])


@checked
def multistep(schedule: Schedule, order: int, kind: Kind = "x0", eta: Number = 0.0) -> Step:
    """Exponential Adams-Bashforth: the polynomial through the last `order` predictions.

    kind "x0": DPM-Solver++(kM), with eta = 1 its SDE form; kind "eps": DEIS in log(sigma / alpha),
    which is DPM-Solver(kM). One function evaluation per step. At eta = 0, first steps with too few
    earlier predictions for order - 1 use `singlestep` of that order, so the start does not lower
    the order of the whole. At eta > 0 they use the predictions that exist. The weak order is then
    2 (1 at order = 1), on grids whose neighbouring steps tend to equal length.

    Args:
        order: 1..4 at eta = 0, 1..3 else.
        eta: 0 for the probability flow, 1 for the reverse SDE; in [0, 1].

    Raises:
        ValueError: `order`, `kind` or `eta` are not as above.

    Derivation: (exponential.9), (stochastic.8).
    Source: DPM-Solver++ (arXiv:2211.01095), section 4.2 and appendix; DEIS (arXiv:2204.13902),
    section 3; SA-Solver (arXiv:2309.05019), section 4.1 (predictor).

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> x, grid = torch.tensor([[1.0, 0.5]]), dm.uniform_log_snr(schedule, steps=10)
    >>> dm.final(dm.multistep(schedule, order=3), data.denoiser(schedule), x, grid)
    tensor([[1.3656, 1.2523]])
    """
    between("eta", float(eta), 0.0, 1.0)
    whole("order", order, 1, 4 if eta == 0 else 3)
    check_kind(kind)
    starts = order - 1 if eta == 0 else 1

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        here, there = Level.at(schedule, t), Level.at(schedule, s)
        x0 = denoise(state.x, t)
        z = noise(state.x, t, s) if eta > 0 and there.sigma > 0 else None
        if not math.isfinite(there.lam - here.lam):
            return State(exponential_step("x0", state.x, here, there, [(here.lam, x0)], eta, z), s)
        latest = x0 if kind == "x0" else prediction.eps_from_x0(schedule, state.x, x0, t)
        past = (*state.history, (t, latest))[-order:]
        if len(past) < starts:
            x_s = stages(schedule, starts, kind, denoise, state.x, t, there, x0)
            return State(x_s, s, past)
        nodes = [(_level(schedule, time)[2], value) for time, value in past]
        return State(exponential_step(kind, state.x, here, there, nodes, eta, z), s, past)

    return step


@checked
def dpmpp_2m(schedule: Schedule) -> Step:
    """DPM-Solver++(2M): x0 extrapolated in lambda from the last two predictions.

        x_s = (sigma_s / sigma_t) x_t - alpha_s (e^{-h} - 1) D,    h = lambda_s - lambda_t
        D   = x0 + (x0 - x0_before) h / (2 h_before),    lambda = log(alpha / sigma)

    One function evaluation per step; order 2. D = x0 on the first step and one step out of pure
    noise (h_before infinite); where h is infinite (s = 0, pure noise) it is Euler's step.

    Args:
        schedule: gives alpha, sigma and the log-SNR 2 lambda at t and s.

    Derivation: (one_step.14), (one_step.16).
    Source: DPM-Solver++ (arXiv:2211.01095), Algorithm 2 and Eq. 12 (k = 1).

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> x, grid = torch.tensor([[1.0, 0.5]]), dm.uniform_log_snr(schedule, steps=10)
    >>> dm.final(dm.dpmpp_2m(schedule), data.denoiser(schedule), x, grid)
    tensor([[1.6062, 1.3310]])
    """

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        x0 = denoise(state.x, t)
        before, x0_before = state.history[-1] if state.history else (t, x0)
        of_x_t, of_x0, of_before = _dpmpp_2m(schedule, before, t, s)
        terms = [(of_x_t, state.x), (of_x0, x0)]
        if of_before != 0:
            terms.append((of_before, x0_before))
        return State(combined(*terms), s, ((t, x0),))

    return step


@kept
def _dpmpp_2m(schedule: Schedule, before: Time, t: Time, s: Time) -> tuple[float | Tensor, ...]:
    """The coefficients of x_t, x0 and x0_before in `dpmpp_2m`; the last is 0 if before = t."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    lam_before, lam, lam_s = (schedule.log_snr(time) / 2 for time in (before, t, s))
    h, h_before = lam_s - lam, lam - lam_before
    if not math.isfinite(h):
        ratio = sigma_s / sigma_t
        return numbers(ratio, alpha_s - ratio * alpha_t, torch.zeros_like(ratio))
    gain = -alpha_s * torch.expm1(-h)
    share = h / (2 * h_before) if before != t else torch.zeros_like(h)
    return numbers(sigma_s / sigma_t, gain * (1 + share), -gain * share)


@checked
def unipc(schedule: Schedule, order: int = 2) -> Step:
    """UniPC in x0: exponential Adams-Bashforth as predictor, Adams-Moulton as corrector.

    Each step first corrects the predictor's state at t by the prediction at t, which the step needs
    anyway. So there is one function evaluation per step, and the order is one more than the
    predictor's. The last state is not corrected. The polynomial is integrated exactly; the
    published code has weights that agree with it up to their order. First steps with too few
    earlier predictions use `singlestep` of that order.

    Args:
        order: of the predictor, 1..3; the whole has order + 1.

    Raises:
        ValueError: another order.

    Derivation: (exponential.10).
    Source: UniPC (arXiv:2302.04867), Algorithms 1 and 2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> x, grid = torch.tensor([[1.0, 0.5]]), dm.uniform_log_snr(schedule, steps=10)
    >>> dm.final(dm.unipc(schedule), data.denoiser(schedule), x, grid)
    tensor([[1.5558, 1.3485]])
    """
    whole("order", order, 1, 3)

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        here, there = Level.at(schedule, t), Level.at(schedule, s)
        x0 = denoise(state.x, t)
        x = _corrected(schedule, order, state, t, x0)
        if not math.isfinite(there.lam - here.lam):
            return State(exponential_step("x0", x, here, there, [(here.lam, x0)]), s)
        past = (*state.history, (t, x0))[-order:]
        if len(past) < order - 1:
            x_s = stages(schedule, order, "x0", denoise, state.x, t, there, x0)
            return State(x_s, s, past)
        nodes = [(_level(schedule, time)[2], value) for time, value in past]
        return State(exponential_step("x0", x, here, there, nodes), s, past)

    return step


def _corrected(
    schedule: Schedule, order: int, state: State, t: Tensor, x0: Tensor
) -> tuple[Part, ...]:
    """The predictor's x_t with the weights replaced by those of a polynomial through x0 too."""
    past = state.history
    if not past or len(past) < order - 1:
        return ((1.0, state.x),)
    changes = _correction(schedule, t, *(time for time, _ in past))
    values = [*(value for _, value in past), x0]
    return (1.0, state.x), *zip(changes, values, strict=True)


@kept
def _correction(schedule: Schedule, t: Time, *times: Time) -> tuple[float, ...]:
    """What UniPC's corrector changes in the coefficients of the earlier x0 and of x0 at t."""
    *nodes, stop = (float(schedule.log_snr(time)) / 2 for time in (*times, t))
    more = weights([*nodes, stop], nodes[-1], stop, 1.0).tolist()
    less = [*weights(nodes, nodes[-1], stop, 1.0).tolist(), 0.0]
    alpha_t = float(schedule(t)[0])
    return tuple(alpha_t * (new - old) for new, old in zip(more, less, strict=True))


def _of(kind: Kind, schedule: Schedule, x: Tensor, x0: Tensor, t: Tensor) -> Sum:
    return x0 if kind == "x0" else prediction.terms_from_x0(schedule, x, x0, t, kind)


@checked
def check_kind(kind: str) -> None:
    """Raise ValueError unless the kind is "x0" or "eps"."""
    require(kind in ("x0", "eps"), "kind", "x0 or eps", repr(kind))
