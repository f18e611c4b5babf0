"""Prediction types (x0, eps, v, score, flow) and the conversions between them at a time t.

Each is a combination a x_0 + b eps, as x_t = alpha_t x_0 + sigma_t eps is:

    x0 = (1, 0)   eps = (0, 1)   v = (-sigma_t, alpha_t)   flow = (-1, 1)   score = -eps / sigma_t

so any one of them and x_t give any other, by Cramer's rule in the plane of (a, b):

    wanted = (det(wanted, given) x_t + det(x_t, wanted) given) / det(x_t, given)

The direct map, not by way of x0, keeps the rounding error of every pair small. The error of a map
grows with its coefficients: as 1 / alpha_t out of eps and score, as 1 / sigma_t out of x0 and
into score; the maps among v, flow and into eps or x0 from them stay bounded. Where det(x_t, given)
is 0, or the score does not exist (sigma_t = 0), a function raises ValueError.

Every map takes (schedule, x_t, given, t): x_t and given (batch, *event), t () or (batch,).
Derivation: (prediction.2).
Sources: eps, DDPM (arXiv:2006.11239) eq. 9 and 15; v, Salimans & Ho (arXiv:2202.00512) app. D;
score, Song et al. (arXiv:2011.13456) eq. 29; flow, rectified flow (arXiv:2209.03003) eq. 1.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math._batching import Part, combined
from diffusion_math._kept import kept, numbers
from diffusion_math.checks import checked, require, same_shape
from diffusion_math.schedule import Schedule, Time

Value = Float[Tensor, "*shape"]
Coefficient = Float64[Tensor, "*time"]
_Parts = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@checked
def target(schedule: Schedule, kind: str, x0: Value, eps: Value, t: Time) -> Value:
    """The training target of a prediction type: a x_0 + b eps, with `coefficients`' a and b.

    x0, eps: (batch, *event), the clean data and the noise of x_t. Raises ValueError as
    `coefficients` does.
    Derivation: (prediction.1).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x0, eps = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    >>> dm.prediction.target(dm.VPCosine(), "v", x0, eps, 0.25)
    tensor([[0.1585]])
    """
    same_shape("eps", eps, x0)
    a, b = coefficients(schedule, kind, t)
    return combined((a, x0), (b, eps))


@checked
def coefficients(schedule: Schedule, kind: str, t: Time) -> tuple[Coefficient, Coefficient]:
    """(a, b) of kind = a x_0 + b eps, in t's shape: the table above.

    kind: "x0", "eps", "v", "flow" or "score". Raises ValueError for any other, and for a score
    where sigma_t = 0. Derivation: (prediction.1).

    >>> import torch
    >>> import diffusion_math as dm
    >>> for kind in ("x0", "eps", "v", "flow", "score"):
    ...     a, b = dm.prediction.coefficients(dm.RectifiedFlow(), kind, 0.25)
    ...     print(f"{kind:6}{a:6.2f}{b:6.2f}")
    ...
    x0      1.00  0.00
    eps     0.00  1.00
    v      -0.25  0.75
    flow   -1.00  1.00
    score   0.00 -4.00
    """
    parts = _kind(kind)
    alpha_t, sigma_t = schedule(t)
    exists = kind != "score" or bool((sigma_t > 0).all())
    require(exists, "t", "sigma_t > 0 for a score", t)
    return parts(alpha_t, sigma_t)


def terms_from_x0(
    schedule: Schedule, x_t: Value, x0: Value, t: Time, kind: str
) -> tuple[Part, ...]:
    """`eps_from_x0` and its like as a sum of x_t and x0 that is not computed yet.

        ((c, x_t), (c', x0)) of kind = c x_t + c' x0

    A solver's step is linear in eps, so it is one sum over x_t and x0, without a pass for eps.
    kind: "eps", "v", "flow" or "score". Raises ValueError where sigma_t = 0, and for another kind.

    Derivation: (prediction.2).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, x0 = torch.tensor([1.5]), torch.tensor([2.0])
    >>> dm.prediction.terms_from_x0(dm.RectifiedFlow(), x_t, x0, t=0.5, kind="eps")
    ((2.0, tensor([1.5000])), (-1.0, tensor([2.])))
    """
    return _terms(schedule, x_t, x0, t, _x0, _kind(kind))


@checked
def x0_from_eps(schedule: Schedule, x_t: Value, eps: Value, t: Time) -> Value:
    """x0 = (x_t - sigma_t eps) / alpha_t. Raises ValueError where alpha_t = 0.

    Derivation: (prediction.7).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, eps = torch.tensor([1.5]), torch.tensor([1.0])
    >>> dm.prediction.x0_from_eps(dm.RectifiedFlow(), x_t, eps, t=0.5)
    tensor([2.])
    """
    return _convert(schedule, x_t, eps, t, _eps, _x0)


@checked
def x0_from_v(schedule: Schedule, x_t: Value, v: Value, t: Time) -> Value:
    """x0 = (alpha_t x_t - sigma_t v) / (alpha_t^2 + sigma_t^2). Derivation: (prediction.8).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, v = torch.tensor([1.5]), torch.tensor([-0.5])
    >>> dm.prediction.x0_from_v(dm.RectifiedFlow(), x_t, v, t=0.5)
    tensor([2.])
    """
    return _convert(schedule, x_t, v, t, _v, _x0)


@checked
def x0_from_flow(schedule: Schedule, x_t: Value, flow: Value, t: Time) -> Value:
    """x0 = (x_t - sigma_t flow) / (alpha_t + sigma_t). Derivation: (prediction.9).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, flow = torch.tensor([1.5]), torch.tensor([-1.0])
    >>> dm.prediction.x0_from_flow(dm.RectifiedFlow(), x_t, flow, t=0.5)
    tensor([2.])
    """
    return _convert(schedule, x_t, flow, t, _flow, _x0)


@checked
def x0_from_score(schedule: Schedule, x_t: Value, score: Value, t: Time) -> Value:
    """x0 = (x_t + sigma_t^2 score) / alpha_t (Tweedie). Raises ValueError where alpha_t = 0.

    Derivation: (prediction.10).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, score = torch.tensor([1.5]), torch.tensor([-2.0])
    >>> dm.prediction.x0_from_score(dm.RectifiedFlow(), x_t, score, t=0.5)
    tensor([2.])
    """
    return x0_from_eps(schedule, x_t, eps_from_score(schedule, x_t, score, t), t)


@checked
def eps_from_x0(schedule: Schedule, x_t: Value, x0: Value, t: Time) -> Value:
    """eps = (x_t - alpha_t x0) / sigma_t. Raises ValueError where sigma_t = 0.

    Derivation: (prediction.11).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, x0 = torch.tensor([1.5]), torch.tensor([2.0])
    >>> dm.prediction.eps_from_x0(dm.RectifiedFlow(), x_t, x0, t=0.5)
    tensor([1.])
    """
    return _convert(schedule, x_t, x0, t, _x0, _eps)


@checked
def eps_from_v(schedule: Schedule, x_t: Value, v: Value, t: Time) -> Value:
    """eps = (sigma_t x_t + alpha_t v) / (alpha_t^2 + sigma_t^2). Derivation: (prediction.12).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, v = torch.tensor([1.5]), torch.tensor([-0.5])
    >>> dm.prediction.eps_from_v(dm.RectifiedFlow(), x_t, v, t=0.5)
    tensor([1.])
    """
    return _convert(schedule, x_t, v, t, _v, _eps)


@checked
def eps_from_flow(schedule: Schedule, x_t: Value, flow: Value, t: Time) -> Value:
    """eps = (x_t + alpha_t flow) / (alpha_t + sigma_t). Derivation: (prediction.13).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, flow = torch.tensor([1.5]), torch.tensor([-1.0])
    >>> dm.prediction.eps_from_flow(dm.RectifiedFlow(), x_t, flow, t=0.5)
    tensor([1.])
    """
    return _convert(schedule, x_t, flow, t, _flow, _eps)


@checked
def eps_from_score(schedule: Schedule, x_t: Value, score: Value, t: Time) -> Value:
    """eps = -sigma_t score. Derivation: (prediction.6).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, score = torch.tensor([1.5]), torch.tensor([-2.0])
    >>> dm.prediction.eps_from_score(dm.RectifiedFlow(), x_t, score, t=0.5)
    tensor([1.])
    """
    same_shape("score", score, x_t)
    return combined((-schedule(t)[1], score))


@checked
def v_from_x0(schedule: Schedule, x_t: Value, x0: Value, t: Time) -> Value:
    """v = (alpha_t x_t - (alpha_t^2 + sigma_t^2) x0) / sigma_t. ValueError where sigma_t = 0.

    Derivation: (prediction.14).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, x0 = torch.tensor([1.5]), torch.tensor([2.0])
    >>> dm.prediction.v_from_x0(dm.RectifiedFlow(), x_t, x0, t=0.5)
    tensor([-0.5000])
    """
    return _convert(schedule, x_t, x0, t, _x0, _v)


@checked
def v_from_eps(schedule: Schedule, x_t: Value, eps: Value, t: Time) -> Value:
    """v = ((alpha_t^2 + sigma_t^2) eps - sigma_t x_t) / alpha_t. ValueError where alpha_t = 0.

    Derivation: (prediction.15).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, eps = torch.tensor([1.5]), torch.tensor([1.0])
    >>> dm.prediction.v_from_eps(dm.RectifiedFlow(), x_t, eps, t=0.5)
    tensor([-0.5000])
    """
    return _convert(schedule, x_t, eps, t, _eps, _v)


@checked
def v_from_flow(schedule: Schedule, x_t: Value, flow: Value, t: Time) -> Value:
    """v = ((alpha_t - sigma_t) x_t + (alpha_t^2 + sigma_t^2) flow) / (alpha_t + sigma_t).

    Derivation: (prediction.16).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, flow = torch.tensor([1.5]), torch.tensor([-1.0])
    >>> dm.prediction.v_from_flow(dm.RectifiedFlow(), x_t, flow, t=0.5)
    tensor([-0.5000])
    """
    return _convert(schedule, x_t, flow, t, _flow, _v)


@checked
def v_from_score(schedule: Schedule, x_t: Value, score: Value, t: Time) -> Value:
    """v of eps = -sigma_t score. Raises ValueError where alpha_t = 0.

    Derivation: (prediction.6), (prediction.15).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, score = torch.tensor([1.5]), torch.tensor([-2.0])
    >>> dm.prediction.v_from_score(dm.RectifiedFlow(), x_t, score, t=0.5)
    tensor([-0.5000])
    """
    return v_from_eps(schedule, x_t, eps_from_score(schedule, x_t, score, t), t)


@checked
def flow_from_x0(schedule: Schedule, x_t: Value, x0: Value, t: Time) -> Value:
    """flow = eps - x0 = (x_t - (alpha_t + sigma_t) x0) / sigma_t. ValueError where sigma_t = 0.

    Derivation: (prediction.17).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, x0 = torch.tensor([1.5]), torch.tensor([2.0])
    >>> dm.prediction.flow_from_x0(dm.RectifiedFlow(), x_t, x0, t=0.5)
    tensor([-1.])
    """
    return _convert(schedule, x_t, x0, t, _x0, _flow)


@checked
def flow_from_eps(schedule: Schedule, x_t: Value, eps: Value, t: Time) -> Value:
    """flow = eps - x0 = ((alpha_t + sigma_t) eps - x_t) / alpha_t. ValueError where alpha_t = 0.

    Derivation: (prediction.18).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, eps = torch.tensor([1.5]), torch.tensor([1.0])
    >>> dm.prediction.flow_from_eps(dm.RectifiedFlow(), x_t, eps, t=0.5)
    tensor([-1.])
    """
    return _convert(schedule, x_t, eps, t, _eps, _flow)


@checked
def flow_from_v(schedule: Schedule, x_t: Value, v: Value, t: Time) -> Value:
    """flow = ((sigma_t - alpha_t) x_t + (alpha_t + sigma_t) v) / (alpha_t^2 + sigma_t^2).

    Derivation: (prediction.19).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, v = torch.tensor([1.5]), torch.tensor([-0.5])
    >>> dm.prediction.flow_from_v(dm.RectifiedFlow(), x_t, v, t=0.5)
    tensor([-1.])
    """
    return _convert(schedule, x_t, v, t, _v, _flow)


@checked
def flow_from_score(schedule: Schedule, x_t: Value, score: Value, t: Time) -> Value:
    """flow of eps = -sigma_t score. Raises ValueError where alpha_t = 0.

    Derivation: (prediction.6), (prediction.18).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, score = torch.tensor([1.5]), torch.tensor([-2.0])
    >>> dm.prediction.flow_from_score(dm.RectifiedFlow(), x_t, score, t=0.5)
    tensor([-1.])
    """
    return flow_from_eps(schedule, x_t, eps_from_score(schedule, x_t, score, t), t)


@checked
def score_from_eps(schedule: Schedule, x_t: Value, eps: Value, t: Time) -> Value:
    """score = -eps / sigma_t. Raises ValueError where sigma_t = 0. Derivation: (prediction.5).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, eps = torch.tensor([1.5]), torch.tensor([1.0])
    >>> dm.prediction.score_from_eps(dm.RectifiedFlow(), x_t, eps, t=0.5)
    tensor([-2.])
    """
    same_shape("eps", eps, x_t)
    sigma_t = schedule(t)[1]
    require(bool((sigma_t > 0).all()), "t", "sigma_t > 0 for a score", t)
    return combined((-1 / sigma_t, eps))


@checked
def score_from_x0(schedule: Schedule, x_t: Value, x0: Value, t: Time) -> Value:
    """score = (alpha_t x0 - x_t) / sigma_t^2. Raises ValueError where sigma_t = 0.

    Derivation: (prediction.20).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, x0 = torch.tensor([1.5]), torch.tensor([2.0])
    >>> dm.prediction.score_from_x0(dm.RectifiedFlow(), x_t, x0, t=0.5)
    tensor([-2.])
    """
    return score_from_eps(schedule, x_t, eps_from_x0(schedule, x_t, x0, t), t)


@checked
def score_from_v(schedule: Schedule, x_t: Value, v: Value, t: Time) -> Value:
    """score = -eps / sigma_t with the eps of v. Raises ValueError where sigma_t = 0.

    Derivation: (prediction.5), (prediction.12).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, v = torch.tensor([1.5]), torch.tensor([-0.5])
    >>> dm.prediction.score_from_v(dm.RectifiedFlow(), x_t, v, t=0.5)
    tensor([-2.])
    """
    return score_from_eps(schedule, x_t, eps_from_v(schedule, x_t, v, t), t)


@checked
def score_from_flow(schedule: Schedule, x_t: Value, flow: Value, t: Time) -> Value:
    """score = -eps / sigma_t with the eps of flow. Raises ValueError where sigma_t = 0.

    Derivation: (prediction.5), (prediction.13).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, flow = torch.tensor([1.5]), torch.tensor([-1.0])
    >>> dm.prediction.score_from_flow(dm.RectifiedFlow(), x_t, flow, t=0.5)
    tensor([-2.])
    """
    return score_from_eps(schedule, x_t, eps_from_flow(schedule, x_t, flow, t), t)


def _x0(alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(alpha_t), torch.zeros_like(alpha_t)


def _eps(alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(alpha_t), torch.ones_like(alpha_t)


def _v(alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
    return -sigma_t, alpha_t


def _flow(alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
    return -torch.ones_like(alpha_t), torch.ones_like(alpha_t)


def _score(alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(alpha_t), -1 / sigma_t


KINDS: dict[str, _Parts] = {"x0": _x0, "eps": _eps, "v": _v, "flow": _flow, "score": _score}


def _kind(kind: str) -> _Parts:
    if kind not in KINDS:
        require(False, "kind", f"one of {', '.join(KINDS)}", repr(kind))
    return KINDS[kind]


def _det(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
    return p[0] * q[1] - p[1] * q[0]


def _convert(
    schedule: Schedule, x_t: Value, value: Value, t: Time, given: _Parts, wanted: _Parts
) -> Value:
    """The sum of `_terms`."""
    return combined(*_terms(schedule, x_t, value, t, given, wanted))


def _terms(
    schedule: Schedule, x_t: Value, value: Value, t: Time, given: _Parts, wanted: _Parts
) -> tuple[Part, ...]:
    """wanted = (det(wanted, given) x_t + det(x_t, wanted) value) / det(x_t, given).

    Derivation: (prediction.2).
    """
    same_shape(given.__name__.lstrip("_"), value, x_t)
    of_x_t, of_value = _weights(schedule, t, given, wanted)
    return (of_x_t, x_t), (of_value, value)


@kept
def _weights(
    schedule: Schedule, t: Time, given: _Parts, wanted: _Parts
) -> tuple[float | Tensor, ...]:
    """The two coefficients of `_terms`."""
    place = schedule(t)
    p, q = given(*place), wanted(*place)
    volume = _det(place, p)
    if not bool((volume != 0).all()):
        names = f"{given.__name__.lstrip('_')} determine {wanted.__name__.lstrip('_')}"
        require(False, "t", f"a time at which x_t and {names}", t)
    return numbers(_det(q, p) / volume, _det(place, q) / volume)
