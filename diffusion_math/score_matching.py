"""Score matching objectives, minimal at S_theta = grad log q, and Tweedie's formulas.

    explicit    norm(S_theta(x) - S(x))^2                        where the score S is known
    implicit    tr grad S_theta(x) + norm(S_theta(x))^2 / 2      from samples alone
    sliced      v^T grad S_theta(x) v + (v^T S_theta(x))^2 / 2   the same along random v
    denoising   norm(S_theta(x + sigma eps) + eps / sigma)^2     the score of x + sigma eps

In expectation over x ~ q, explicit / 2 - implicit = E norm(S)^2 / 2 and, over x and eps, denoising
minus explicit (at the noisy score) is E norm(eps)^2 / sigma^2 - E norm(S_sigma)^2: neither depends
on theta, so the minimisers are the same (claims C24-C26).

A model maps (batch, *event) to the same shape, each example by itself; an event may have any shape,
() included. Objectives are per example, and can be differentiated in the model's parameters to any
order. For a model of (x_t, t), fix t first. Derivation: (score_matching.4), (score_matching.9).
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_math._batching import inner, wide
from diffusion_math.checks import checked, require, same_shape, whole
from diffusion_math.schedule import Time, shape_like

Score: TypeAlias = Callable[[Tensor], Tensor]
"""`x -> S(x)`: both `(batch, *event)`, each example's output a function of that example only."""

_X = Float[Tensor, "batch *event"]
_Probes = Float[Tensor, "probes batch *event"]
_PerExample = Float[Tensor, " batch"]


@checked
def explicit(model: Score, score: Score, x: _X) -> _PerExample:
    """The squared error in a known score: norm(S_theta(x) - S(x))^2.

    x: (batch, *event), samples of q. Raises ValueError unless both scores have x's shape.
    Derivation: (score_matching.1).
    Source: Hyvarinen (2005), JMLR 6, up to a factor 1/2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> x = torch.tensor([[1.0], [2.0]])
    >>> dm.score_matching.explicit(lambda x: -x / 2, lambda x: -x, x)
    tensor([0.2500, 1.0000])
    """
    error = wide(_checked(model, x)) - wide(_checked(score, x))
    return inner(error, error)


@checked
def fisher_divergence(p: Score, q: Score, x: _X) -> Float[Tensor, ""]:
    """The mean over samples x ~ p of norm(S_p(x) - S_q(x))^2: 0 only where the scores agree.

    Raises ValueError for no samples, or a score of another shape than x.
    Derivation: (score_matching.1).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x = torch.tensor([[1.0], [2.0]])
    >>> dm.score_matching.fisher_divergence(lambda x: -x, lambda x: -x / 2, x)
    tensor(0.6250)
    """
    require(len(x) > 0, "x", "at least one sample", f"shape {tuple(x.shape)}")
    return explicit(p, q, x).mean()


@checked
def divergence(field: Score, x: _X, probes: _Probes | None = None) -> _PerExample:
    """tr grad f(x), exactly, or by Hutchinson's estimate where probes are given.

        exact: sum_i e_i^T grad f(x) e_i        estimate: mean over v of v^T grad f(x) v

    x: (batch, *event) with D entries an event: the exact trace costs D products with the Jacobian.
    probes: (probes, batch, *event) with E[v v^T] = I, as from `rademacher`: unbiased, and exact for
    a diagonal Jacobian. Raises ValueError unless f(x) and each probe have x's shape.
    Derivation: (score_matching.3).
    Source: Hutchinson (1989); FFJORD (arXiv:1810.01367).

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.score_matching.divergence(lambda x: -x**2 / 2, torch.tensor([[1.0, 2.0]]))
    tensor([-3.])
    """
    return _value_and_divergence(field, x, probes)[1]


@checked
def implicit(model: Score, x: _X, probes: _Probes | None = None) -> _PerExample:
    """Implicit score matching, from samples alone: tr grad S_theta(x) + norm(S_theta(x))^2 / 2.

    Its mean over x ~ q is half of `explicit`'s minus E norm(S)^2 / 2. The trace is exact, or
    Hutchinson's estimate where probes are given: see `divergence`, also for shapes and errors.
    Derivation: (score_matching.4).
    Source: Hyvarinen (2005), JMLR 6; with probes, Song et al. (arXiv:1905.07088), "SSM-VR".

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.score_matching.implicit(lambda x: -x, torch.tensor([[1.0, 2.0]]))
    tensor([0.5000])
    """
    value, trace = _value_and_divergence(model, x, probes)
    return trace + inner(value, value) / 2


@checked
def sliced(model: Score, x: _X, probes: _Probes) -> _PerExample:
    """Implicit score matching along v: mean over probes of v^T grad S v + (v^T S)^2 / 2.

    probes: (probes, batch, *event) with E[v v^T] = I, so that its mean over v is `implicit`.
    Raises ValueError unless S_theta(x) and each probe have x's shape.
    Derivation: (score_matching.6).
    Source: Song et al. (arXiv:1905.07088).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> probes = torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]])
    >>> dm.score_matching.sliced(lambda x: -x, x, probes)
    tensor([0.5000])
    """
    value, products = _products(model, x, probes)
    each = [
        inner(p, v) + inner(v, value).square() / 2 for p, v in zip(products, probes, strict=True)
    ]
    return torch.stack(each).mean(0)


@checked
def denoising(model: Score, x: _X, eps: _X, sigma: Time) -> _PerExample:
    """The error in the score of x_hat given x: norm(S_theta(x_hat) - (x - x_hat) / sigma^2)^2.

        x_hat = x + sigma eps,    (x - x_hat) / sigma^2 = -eps / sigma

    The target is written without x_hat, whose rounding would be divided by sigma. With eps_theta =
    -sigma S_theta this is norm(eps - eps_theta)^2 / sigma^2, the DDPM loss (C26). Under a schedule
    take alpha_t x_0 for x and sigma_t for sigma.

    x, eps: (batch, *event), clean data and standard normals; sigma > 0: a number, () or (batch,).
    Raises ValueError unless eps and S_theta(x_hat) have x's shape and sigma is positive and finite.
    Derivation: (score_matching.8), (score_matching.10).
    Source: Vincent (2011), Neural Computation 23(7), up to a factor 1/2. See also E8.

    >>> import torch
    >>> import diffusion_math as dm
    >>> x, eps = torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]])
    >>> dm.score_matching.denoising(lambda x: -x, x, eps, sigma=0.5)
    tensor([2.2500, 2.2500])
    """
    same_shape("eps", eps, x)
    level = _level(sigma, x)
    x_hat = (wide(x) + level * wide(eps)).to(x)
    error = wide(_checked(model, x_hat)) + wide(eps) / level
    return inner(error, error)


@checked
def tweedie_mean(model: Score, x_hat: _X, sigma: Time) -> _X:
    """E[x | x_hat] = x_hat + sigma^2 S(x_hat), where x_hat = x + sigma eps and S is its score.

    x_hat: (batch, *event); sigma > 0: a number, () or (batch,). Under a schedule this, at sigma_t,
    is alpha_t E[x_0 | x_t]. Raises ValueError as `denoising` does.
    Derivation: (score_matching.11).
    Source: Robbins (1956); Efron (2011), JASA 106, "Tweedie's formula".

    >>> import torch
    >>> import diffusion_math as dm
    >>> score = lambda x_hat: -x_hat / (1 + 0.5**2)  # data N(0, 1), noise of sigma = 0.5
    >>> dm.score_matching.tweedie_mean(score, torch.ones(1, 1), sigma=0.5)
    tensor([[0.8000]])
    """
    by_score = _level(sigma, x_hat).square() * wide(_checked(model, x_hat))
    return (wide(x_hat) + by_score).to(x_hat)


@checked
def tweedie_covariance(model: Score, x_hat: _X, sigma: Time) -> Float[Tensor, "batch D D"]:
    """Cov[x | x_hat] = sigma^2 I + sigma^4 grad S(x_hat), over the flattened event.

    x_hat: (batch, *event); sigma > 0: a number, () or (batch,). Symmetric where S is a gradient,
    which a network need not be. Raises ValueError as `denoising` does.
    Derivation: (score_matching.12).
    Source: Meng et al. (arXiv:2111.04726).

    >>> import torch
    >>> import diffusion_math as dm
    >>> score = lambda x_hat: -x_hat / (1 + 0.5**2)  # data N(0, 1), noise of sigma = 0.5
    >>> dm.score_matching.tweedie_covariance(score, torch.ones(1, 1), sigma=0.5)
    tensor([[[0.2000]]])
    """
    variance = _level(sigma, x_hat).square().reshape(-1, 1, 1)
    slope = wide(jacobian(model, x_hat))
    return variance * (torch.eye(slope.shape[-1], device="cpu").to(slope) + variance * slope)


@checked
def jacobian(field: Score, x: _X) -> Float[Tensor, "batch D D"]:
    """grad f(x) over the flattened event: entry [b, i, j] is the slope of f(x[b])_i in x[b]_j.

    Raises ValueError unless f(x) has x's shape. Derivation: (score_matching.13).

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.score_matching.jacobian(lambda x: x**2, torch.tensor([[1.0, 3.0]]))
    tensor([[[2., 0.],
             [0., 6.]]])
    """
    _, products = _products(field, x, _basis(x))
    return torch.stack([_flattened(p) for p in products], dim=1)


@checked
def rademacher(generator: torch.Generator, x: _X, count: int = 1) -> _Probes:
    """Independent fair signs, -1 or 1, as probes for x: (count, *x.shape), in x's dtype.

    Among probes with E[v v^T] = I and independent entries these have the least variance. They are
    drawn on the generator's device. Raises ValueError unless count >= 1.
    Derivation: (score_matching.5).

    >>> import torch
    >>> import diffusion_math as dm
    >>> generator = torch.Generator().manual_seed(0)
    >>> probes = dm.score_matching.rademacher(generator, torch.zeros(4, 2), count=10)
    >>> probes.shape, probes.unique()
    (torch.Size([10, 4, 2]), tensor([-1.,  1.]))
    """
    whole("count", count, 1)
    shape = (count, *x.shape)
    bits = torch.randint(2, shape, generator=generator, device=generator.device)
    return (2 * bits - 1).to(x)


def _products(field: Score, x: Tensor, probes: Tensor) -> tuple[Tensor, Iterator[Tensor]]:
    """f(x), and v^T grad f(x) for each probe v; the model runs once, on the whole batch.

    The products are computed one after another. vmap would hold all of them in memory, and over a
    backward pass of `torch.cdist` it silently gives wrong numbers.
    """
    fits = probes.ndim > 0 and len(probes) > 0 and probes.shape[1:] == x.shape
    wanted = f"shape (at least one, *{tuple(x.shape)})"
    require(fits, "probes", wanted, f"shape {tuple(probes.shape)}")
    value, pull = torch.func.vjp(lambda at: _checked(field, at), x)[:2]
    return value, (pull(v)[0] for v in probes)


def _value_and_divergence(field: Score, x: Tensor, probes: Tensor | None) -> tuple[Tensor, Tensor]:
    along = _basis(x) if probes is None else probes
    value, products = _products(field, x, along)
    each = (inner(p, v) for p, v in zip(products, along, strict=True))
    total = sum(each, wide(x.new_zeros(len(x))))
    return value, total if probes is None else total / len(along)


def _basis(x: Tensor) -> Tensor:
    """The D unit vectors of an event, each for the whole batch: (D, batch, *event)."""
    size = x.shape[1:].numel()
    units = torch.eye(size, dtype=x.dtype, device=x.device)
    return units.reshape(size, 1, *x.shape[1:]).expand(size, *x.shape)


def _checked(field: Score, x: Tensor) -> Tensor:
    value = field(x)
    same_shape("the model's output", value, x)
    return value


def _level(sigma: Time, x: Tensor) -> Tensor:
    value = torch.as_tensor(sigma, dtype=torch.float64, device="cpu")
    valid = (value > 0) & value.isfinite()
    require(bool(valid.all()), "sigma", "positive and finite", sigma)
    return shape_like(value, wide(x))


def _flattened(x: Tensor) -> Tensor:
    """(batch, D): the event's axes as one, of length 1 where there are none."""
    return x[:, None].flatten(1)
