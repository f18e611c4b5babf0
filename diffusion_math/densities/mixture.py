"""Gaussian mixtures under noise: exact score, denoiser and reverse kernel at every t.

If x_0 ~ sum_k w_k N(m_k, C_k), then at every t, with S_k(t) = alpha_t^2 C_k + sigma_t^2 I,

    q(x_t)       = sum_k w_k N(alpha_t m_k, S_k(t))
    q(x_s | x_t) = sum_k r_k N(m_k', C_k'),    r_k = P(k | x_t),    s < t

This is Bayes' rule with marginals that are unknown for real data. Everything is computed in
float64, in the eigenbasis of each C_k, where S_k(t) is diagonal at every t. Components may lie
1e6 apart (`_quadratic_forms`). Blocks of rows bound the memory.
Derivation: (mixture.1), (mixture.8).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math import gaussian
from diffusion_math._batching import Rows, by_time, normalised, places, softmax
from diffusion_math.checks import checked, require, same_shape, scalar_or_batch, symmetric
from diffusion_math.denoiser import Denoiser
from diffusion_math.densities import _quadratic_forms
from diffusion_math.schedule import Schedule, Time


@final
@checked
@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """The data distribution q(x_0) = sum_k w_k N(m_k, C_k), under noise. Derivation: (mixture.1).

    Methods take `x` as `(batch, *event)` in any floating dtype and `t` as a number, `()` or
    `(batch,)`. Computations are in float64 on the device of `means`. At t = 0 they raise ValueError
    if a component has a zero variance (a point mass has a density only at t > 0). Its parameters
    are copies, constants of autograd: gradients reach x alone.

    Attributes:
        log_weights: `(K,)` log w_k up to a common constant; stored normalised.
        means: `(K, *event)`, an event of any shape, `()` included, with D >= 1 entries.
        covariances: `(K,)` isotropic variances, `(K, *event)` diagonals, or `(K, D, D)` matrices
            over the flattened event.

    Raises:
        ValueError: shapes disagree, a number is not finite, a variance or an eigenvalue is
            negative, or a matrix is not symmetric, or has eigenvalues too small beside its largest.

    >>> import torch
    >>> import diffusion_math as dm
    >>> means, variances = torch.tensor([[-1.0], [1.0]]), torch.tensor([0.1, 0.1])
    >>> data = dm.GaussianMixture(torch.zeros(2), means, variances)
    >>> x_t, schedule = torch.tensor([[0.5]]), dm.VPLinear()
    >>> data.log_density(schedule, x_t, 0.5), data.score(schedule, x_t, 0.5)
    (tensor([-1.0478], dtype=torch.float64), tensor([[-0.4928]]))
    >>> data.denoiser(schedule)(x_t, torch.tensor(0.5))
    tensor([[0.1641]])
    """

    log_weights: Float[Tensor, " K"]
    means: Float[Tensor, "K *event"]
    covariances: Float[Tensor, "K *covariance"]

    @torch.inference_mode(False)  # usable outside too
    def __post_init__(self) -> None:
        given = self.covariances
        for name in ("log_weights", "means", "covariances"):
            value = getattr(self, name).detach().to(torch.float64, copy=True)
            require(bool(value.isfinite().all()), name, "finite numbers", value)
            object.__setattr__(self, name, value)
        K, got = len(self.means), tuple(self.log_weights.shape)
        require(K > 0 and self.means.numel() > 0, "means", "K, D >= 1", tuple(self.means.shape))
        require(got == (K,), "log_weights", f"shape {(K,)}", f"shape {got}")
        object.__setattr__(self, "log_weights", self.log_weights.log_softmax(0))
        valid = {(K,), tuple(self.means.shape), (K, self._size, self._size)}
        shape = tuple(self.covariances.shape)
        require(shape in valid, "covariances", f"a shape among {sorted(valid)}", f"shape {shape}")
        if self._matrices:
            symmetric("covariances", given)
        variances = self._spectrum[0]
        require(bool((variances >= 0).all()), "covariances", "no negative variance", variances)
        _ = self._centred.squares  # made in a transform of torch.func it would end with that

    @checked
    def log_density(
        self, schedule: Schedule, x: Float[Tensor, "batch *event"], t: Time
    ) -> Float64[Tensor, " batch"]:
        """The log-density of x_t at `x`, shape `(batch,)`. Derivation: (mixture.3).

        log q_t(x) = log sum_k w_k N(x; alpha_t m_k, S_k)
        """

        def at_one_time(t: Tensor) -> Rows:
            log_joint, _ = self._joint(schedule, t)
            return lambda x: log_joint(x).logsumexp(1)

        return self._each_time(at_one_time, schedule, x, t)

    @checked
    def responsibilities(
        self, schedule: Schedule, x: Float[Tensor, "batch *event"], t: Time
    ) -> Float64[Tensor, "batch K"]:
        """P(k | x_t = x), `(batch, K)`: which component x came from. Derivation: (mixture.4).

        r_k = w_k N(x; alpha_t m_k, S_k) / q_t(x)
        """

        def at_one_time(t: Tensor) -> Rows:
            log_joint, _ = self._joint(schedule, t)
            return lambda x: softmax(log_joint(x))

        return self._each_time(at_one_time, schedule, x, t)

    @checked
    def score(
        self, schedule: Schedule, x: Float[Tensor, "batch *event"], t: Time
    ) -> Float[Tensor, "batch *event"]:
        """The gradient of `log_density` in x, like `x`. Derivation: (mixture.6).

        grad log q_t(x) = -sum_k r_k S_k^-1 (x - alpha_t m_k),    r_k = P(k | x_t = x)
        """

        def at_one_time(t: Tensor) -> Rows:
            log_joint, forms = self._joint(schedule, t)
            return lambda x: forms.pull(softmax(log_joint(x)), x)

        return self._each_time(at_one_time, schedule, x, t).reshape(x.shape).to(x)

    @checked
    def log_density_and_score(
        self, schedule: Schedule, x: Float[Tensor, "batch *event"], t: Time
    ) -> tuple[Float64[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """`log_density` and `score` in one pass over the components, for `langevin.mala`."""

        def at_one_time(t: Tensor) -> Rows:
            log_joint, forms = self._joint(schedule, t)

            def both(x: Tensor) -> Tensor:
                log_q, r = normalised(log_joint(x))
                return torch.cat([log_q[:, None], forms.pull(r, x)], dim=1)

            return both

        both = self._each_time(at_one_time, schedule, x, t)
        return both[:, 0], both[:, 1:].reshape(x.shape).to(x)

    @checked
    def posterior_mean(
        self, schedule: Schedule, x: Float[Tensor, "batch *event"], t: Time
    ) -> Float[Tensor, "batch *event"]:
        """The mean of x_0 given x_t = x, like `x`; x itself at t = 0. Derivation: (mixture.7).

        E[x_0 | x_t] = sum_k r_k S_k^-1 (sigma_t^2 m_k + alpha_t C_k x)
        """

        def at_one_time(t: Tensor) -> Rows:
            log_joint, _ = self._joint(schedule, t)
            (alpha_t, sigma_t), noisy = schedule(t), self._noisy(schedule, t)
            blend = self._blend(sigma_t.square() / noisy, alpha_t * self._spectrum[0] / noisy)
            return lambda x: blend(softmax(log_joint(x)), x)

        return self._each_time(at_one_time, schedule, x, t).reshape(x.shape).to(x)

    @checked
    def denoiser(self, schedule: Schedule) -> Denoiser:
        """`posterior_mean` under `schedule`: the optimal denoiser for this data."""
        return partial(self.posterior_mean, schedule)

    @checked
    def marginal(self, schedule: Schedule, t: Time) -> "GaussianMixture":
        """The distribution of x_t, sum_k w_k N(alpha_t m_k, S_k(t)). Derivation: (mixture.1)."""
        alpha_t, _ = schedule(t)
        covariances = self._like_covariances(self._noisy(schedule, t))
        return GaussianMixture(self.log_weights, alpha_t * self.means, covariances)

    @checked
    def reverse(
        self, schedule: Schedule, x: Float[Tensor, "*event"], t: Time, s: Time = 0
    ) -> "GaussianMixture":
        """The true reverse kernel q(x_s | x_t = x) for one x, by Bayes' rule, without a model.

            q(x_s | x_t) = q(x_t | x_s) q(x_s) / q(x_t) = sum_k r_k N(m_k', C_k')
            m_k' = S_k(t)^-1 (b^2 alpha_s m_k + a S_k(s) x),    C_k' = b^2 S_k(s) S_k(t)^-1
            q(x_t | x_s) = N(a x_s, b^2 I)

        Args:
            x: `(*event)`, one point.
            t, s: numbers or `()`, s < t; the default s = 0 gives q(x_0 | x_t).

        Returns:
            The distribution of x_s; its mean at s = 0 is `posterior_mean`.

        Source: DDPM (arXiv:2006.11239), Section 2, without its Gaussian. Derivation: (mixture.9).
        """
        same_shape("x", x, self.means[0])
        flattened = x.to(self.means).reshape(1, self._size)
        log_r = self._joint(schedule, t)[0](flattened).log_softmax(1)[0]
        link = gaussian.transition(schedule, self.means.new_ones(1), s, t)  # mean a, variance b^2
        (alpha_s, _), noisy_s = schedule(s), self._noisy(schedule, s)
        gain = noisy_s / self._noisy(schedule, t)
        one_each = torch.eye(len(log_r), device="cpu").to(self.means)
        every = flattened.expand(len(log_r), self._size)
        on_mean = link.variance * alpha_s / self._noisy(schedule, t)
        means = self._blend(on_mean, link.mean * gain)(one_each, every)
        spread = self._like_covariances(link.variance * gain)
        return GaussianMixture(log_r, means.reshape(self.means.shape), spread)

    @checked
    def among(self, components: Sequence[int]) -> "GaussianMixture":
        """The mixture of these components alone, their weights renormalised.

        Raises ValueError if there are none; IndexError for one that is not there.
        """
        k = torch.tensor(components, dtype=torch.int64, device=self.means.device)
        return GaussianMixture(self.log_weights[k], self.means[k], self.covariances[k])

    @checked
    def probability_flow(
        self, schedule: Schedule, x: Float[Tensor, "batch *event"], t: Time, s: Time
    ) -> Float[Tensor, "batch *event"]:
        """Where the probability flow carries x from t to s, for one Gaussian: a closed form.

            x_s = alpha_s m + S(s)^{1/2} S(t)^{-1/2} (x_t - alpha_t m)

        Args:
            x: `(batch, *event)`, points at time t.
            t, s: numbers or `()`, in either order.

        Raises:
            ValueError: the mixture has more than one component.

        Source: Score SDE (arXiv:2011.13456), Eq. 13, Gaussian data. Derivation: (mixture.10).
        """
        require(len(self.means) == 1, "mixture", "one component", f"{len(self.means)}")
        (alpha_t, _), (alpha_s, _) = schedule(t), schedule(s)
        stretch = (self._noisy(schedule, s) / self._noisy(schedule, t)).sqrt()
        flattened = x.to(self.means).reshape(len(x), self._size)
        moved = self._blend(alpha_s - alpha_t * stretch, stretch)(
            flattened.new_ones(len(x), 1), flattened
        )
        return moved.reshape(x.shape).to(x)

    @checked
    def sample(self, generator: torch.Generator, n: int) -> Float64[Tensor, "n *event"]:
        """`n` independent samples of x_0, `(n, *event)`. Derivation: (mixture.11).

        x_0 = m_k + C_k^{1/2} z,    k ~ w,    z ~ N(0, I)
        """
        variances, basis = self._spectrum
        edges = self.log_weights.exp().cumsum(0)[:-1].cpu()
        uniform = torch.rand(n, generator=generator, dtype=torch.float64, device="cpu")
        k = torch.bucketize(uniform, edges, right=True).to(self.means.device)
        z = torch.randn(n, self._size, generator=generator, dtype=torch.float64, device="cpu").to(
            self.means
        )
        z = variances.sqrt()[k] * z
        if basis is not None:
            z = torch.cat([z[k == i] @ Q.mT for i, Q in enumerate(basis)])[places(k)]
        return self.means[k] + z.reshape(n, *self.means.shape[1:])

    def moments(self) -> tuple[Float64[Tensor, "*event"], Float64[Tensor, "D D"]]:
        """The mean, `(*event)`, and the flattened covariance, `(D, D)`. Derivation: (mixture.12).

        mean = sum_k w_k m_k,    covariance = sum_k w_k (C_k + (m_k - mean)(m_k - mean)^T)
        """
        weights = self.log_weights.exp()
        mean = torch.tensordot(weights, self.means, dims=1)
        difference = (self.means - mean).reshape(-1, self._size)
        within = torch.tensordot(weights, self._full(self._spectrum[0]), dims=1)
        return mean, within + torch.einsum("k,kd,ke->de", weights, difference, difference)

    @property
    def _size(self) -> int:
        """D, the number of entries of an event."""
        return self.means[0].numel()

    @property
    def _matrices(self) -> bool:
        """Whether the covariances are full."""
        return self.covariances.ndim > 1 and self.covariances.shape != self.means.shape

    @cached_property
    @torch.inference_mode(False)
    def _centred(self) -> _quadratic_forms.Means:
        return _quadratic_forms.Means(self.means.reshape(-1, self._size))

    @cached_property
    @torch.inference_mode(False)
    def _spectrum(self) -> tuple[Tensor, Tensor | None]:
        """Eigenvalues of C_k, `(K, 1)` or `(K, D)`, and eigenvectors in columns, `(K, D, D)`."""
        C = self.covariances
        found = _quadratic_forms.spectrum("covariances", C) if self._matrices else None
        return found or (C.reshape(len(C), -1), None)

    def _full(self, variances: Tensor) -> Tensor:
        """Matrices `(K, D, D)` that have these eigenvalues in the components' eigenbases."""
        spread = torch.diag_embed(variances.expand(-1, self._size))
        _, basis = self._spectrum
        return spread if basis is None else basis @ spread @ basis.mT

    def _like_covariances(self, variances: Tensor) -> Tensor:
        """The same in the form of `covariances`: isotropic, diagonal or full."""
        return (
            self._full(variances) if self._matrices else variances.reshape(self.covariances.shape)
        )

    def _noisy(self, schedule: Schedule, t: Time) -> Tensor:
        """Eigenvalues of S_k(t), shaped as those of C_k in `_spectrum`."""
        alpha_t, sigma_t = schedule(t)
        return alpha_t.square() * self._spectrum[0] + sigma_t.square()

    def _joint(self, schedule: Schedule, t: Time) -> tuple[Rows, _quadratic_forms.Forms]:
        """x -> log w_k + log N(x; alpha_t m_k, S_k(t)), (rows, D) to (rows, K), and its forms."""
        noisy, (alpha_t, _) = self._noisy(schedule, t), schedule(t)
        require(bool((noisy > 0).all()), "t", "a time > 0: there is a point mass", t)
        forms = _quadratic_forms.forms(alpha_t, self._centred, 1 / noisy, self._spectrum[1])
        log_det = (2 * math.pi * noisy).log().sum(1) * (self._size / noisy.shape[1])
        height = self.log_weights - log_det / 2
        return lambda x: height - forms.energy(x), forms

    def _blend(self, on_mean: Tensor, on_x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """(r, x) -> sum_k r_k (on_mean_k m_k + on_x_k x), (rows, D); factors in eigenbases."""
        means, (_, basis) = self._centred.each, self._spectrum
        if basis is None:
            pulled = on_mean * means
            return lambda r, x: r @ pulled + (r @ on_x) * x

        def in_eigenbases(r: Tensor, x: Tensor) -> Tensor:
            total = torch.zeros_like(x)
            for k, Q in enumerate(basis):
                inner = on_mean[k] * (means[k] @ Q) + on_x[k] * (x @ Q)
                total = total + r[:, k, None] * (inner @ Q.mT)
            return total

        return in_eigenbases

    def _each_time(
        self, at_one_time: Callable[[Tensor], Rows], schedule: Schedule, x: Tensor, t: Time
    ) -> Tensor:
        """`at_one_time` on the rows of x, flattened, each at its own time."""
        event = tuple(self.means.shape[1:])
        got = tuple(x.shape[1:])
        require(x.ndim > 0 and got == event, "x", f"shape (batch, *{event})", f"{tuple(x.shape)}")
        t = t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64, device="cpu")
        scalar_or_batch("t", t, x)
        t = (
            t if len(x) else torch.tensor(schedule.T, dtype=torch.float64, device="cpu")
        )  # no rows: any
        flattened = x.to(self.means).reshape(len(x), self._size)
        return by_time(at_one_time, flattened, t, len(self.means))
