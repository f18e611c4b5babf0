"""Noise schedules: t -> (alpha_t, sigma_t) with x_t = alpha_t x_0 + sigma_t eps.

t = 0 is clean data, (1, 0) exactly; t = T is noise. log_snr(t) = log(alpha_t^2 / sigma_t^2), the
log signal-to-noise ratio, falls strictly from +inf at t = 0. Coefficients are float64 CPU tensors
of t's shape; `coefficients` brings them to a sample's shape and dtype. Derivation: (schedule.2).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeAlias, final

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from diffusion_math._kept import kept
from diffusion_math.checks import (
    Number,
    all_between,
    as_floats,
    checked,
    real,
    require,
    scalar_or_batch,
    whole,
)

Time: TypeAlias = Number | Tensor

TERMINAL_ALPHA = 2.0**-12
"""alpha_T in place of 0, as in diffusers: the log-SNR of every node is finite."""
MOST = 10**6
"""The largest number of betas of a `Discrete` schedule."""


class Schedule(ABC):
    """A map from time to (alpha_t, sigma_t), strictly decreasing in log-SNR.

    What it returns is a constant of autograd with respect to t: no gradient reaches a time.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule = dm.VPCosine()
    >>> schedule.T, schedule.t_min, schedule.t_max
    (1.0, 0.001, 0.999)
    >>> alpha, sigma = schedule(torch.tensor([0.0, 0.5]))
    >>> alpha, sigma
    (tensor([1.0000, 0.7071], dtype=torch.float64), tensor([0.0000, 0.7071], dtype=torch.float64))
    """

    @property
    @abstractmethod
    def T(self) -> float:
        """The final time: t = T is noise."""

    @property
    @abstractmethod
    def t_min(self) -> float:
        """The smallest positive time that grids use as a node."""

    @property
    def t_max(self) -> float:
        """The largest time with a finite log-SNR that grids use: T unless alpha_T = 0."""
        return self.T

    fixed: ClassVar[bool] = False
    """Whether the values at a time never change, so that they and a step's coefficients are kept.
    A schedule with parameters that are trained must leave it False."""

    def __init_subclass__(cls) -> None:
        for name in {"__call__", "log_snr", "time"} & vars(cls).keys():
            setattr(cls, name, kept(vars(cls)[name]))

    @abstractmethod
    def __call__(self, t: Time) -> tuple[Float64[Tensor, "*shape"], Float64[Tensor, "*shape"]]:
        """(alpha_t, sigma_t) for times t in [0, T], in t's shape; ValueError outside."""

    @abstractmethod
    def log_snr(self, t: Time) -> Float64[Tensor, "*shape"]:
        """log(alpha_t^2 / sigma_t^2) in t's shape, +inf at t = 0; ValueError outside [0, T]."""

    @abstractmethod
    def time(self, log_snr: Time) -> Float64[Tensor, "*shape"]:
        """The t in [0, T] with that log-SNR, in its shape; ValueError below log_snr(T)."""


@checked
def coefficients(
    schedule: Schedule, t: Time, x: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """(alpha_t, sigma_t) ready to multiply x: see `shape_like`.

    >>> import torch
    >>> import diffusion_math as dm
    >>> x, t = torch.ones(2, 3), torch.tensor([0.5, 1.0])
    >>> alpha_t, sigma_t = dm.schedule.coefficients(dm.VE(), t, x)
    >>> sigma_t * x
    tensor([[0.5000, 0.5000, 0.5000],
            [1.0000, 1.0000, 1.0000]])
    """
    alpha_t, sigma_t = schedule(t)
    return shape_like(alpha_t, x), shape_like(sigma_t, x)


def shape_like(coefficient: Tensor, x: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
    """A coefficient of shape () or (batch,) in x's dtype and device, shaped to multiply x.

    () stays (); (batch,) becomes (batch, 1, ..., 1). Raises ValueError for any other shape.

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.schedule.shape_like(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 1, 1, 1])
    """
    scalar_or_batch("t or a coefficient", coefficient, x)
    if coefficient.is_cpu and not (x.is_cpu or coefficient.ndim or coefficient.requires_grad):
        return x.new_full((), coefficient.item())  # written by the device: nothing is copied to it
    return coefficient.reshape(coefficient.shape + (1,) * coefficient.ndim * (x.ndim - 1)).to(x)


@final
@checked
@dataclass(frozen=True, eq=False, repr=False)
class Discrete(Schedule):
    """A discrete schedule of T betas: alpha_t^2 = abar_t = prod_{i<=t} (1 - beta_i).

    sigma_t^2 = 1 - abar_t.

    betas: shape (T,), beta_t = betas[t - 1] in (0, 1). Times are 0, 1, ..., T; a fractional t >= 1
    interpolates the log-SNR linearly; 0 < t < 1 is rejected. Betas are copied, and constants of
    autograd. Raises ValueError for betas that float64 cannot tell from 0 or 1, for a product that
    underflows, and for T above a million. Derivation: (schedule.6).
    Source: DDPM (arXiv:2006.11239) eq. 4.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule = dm.Discrete(torch.tensor([0.1, 0.2, 0.5]))
    >>> alpha, sigma = schedule(torch.arange(4))
    >>> alpha.square()
    tensor([1.0000, 0.9000, 0.7200, 0.3600], dtype=torch.float64)
    >>> dm.Discrete.scaled_linear()
    Discrete(T=1000, betas 0.00085 to 0.012)
    """

    betas: Float[Tensor, " T"]
    fixed = True
    t_min = 1.0

    @torch.inference_mode(False)  # usable outside too
    def __post_init__(self) -> None:
        betas = self.betas.detach().to("cpu", torch.float64, copy=True)
        require(betas.ndim == 1 and len(betas) > 0, "betas", "shape (T,)", tuple(betas.shape))
        require(len(betas) <= MOST, "betas", f"at most {MOST} entries", len(betas))
        tiny = torch.finfo(torch.float64).tiny
        require(bool(((betas >= tiny) & (betas < 1)).all()), "betas", "all in (0, 1)", betas)
        object.__setattr__(self, "betas", betas)
        table = self._log_snr_table
        falls = bool((table[1:] < table[:-1]).all())
        require(falls, "betas", "each large enough to lower the log-SNR in float64", betas)
        wanted = "prod(1 - betas) within float64's normal range"
        require(table[-1].item() >= math.log(tiny), "betas", wanted, f"exp({table[-1]:g})")

    def __repr__(self) -> str:
        return f"Discrete(T={self.T:g}, betas {self.betas[0]:g} to {self.betas[-1]:g})"

    @classmethod
    @checked
    def linear(cls, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> "Discrete":
        """beta_t linear in t; the defaults are DDPM's section 4. Derivation: (schedule.12)."""
        whole("steps", steps, 1, MOST)
        return cls(torch.linspace(first, last, steps, dtype=torch.float64, device="cpu"))

    @classmethod
    @checked
    def scaled_linear(
        cls, steps: int = 1000, first: float = 0.00085, last: float = 0.012
    ) -> "Discrete":
        """sqrt(beta_t) linear in t; the defaults are Stable Diffusion v1's beta schedule.

        Source: Rombach et al. (arXiv:2112.10752), as released. Derivation: (schedule.12).
        """
        whole("steps", steps, 1, MOST)
        ends = math.sqrt(first), math.sqrt(last)
        return cls(torch.linspace(*ends, steps, dtype=torch.float64, device="cpu").square())

    @classmethod
    @checked
    def cosine(cls, steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> "Discrete":
        """abar_t = f(t) / f(0), f(t) = cos^2(pi/2 (t/T + offset) / (1 + offset)), beta <= largest.

        Computed as sin(b - a) sin(b + a) / cos^2(a), angles a, b at t - 1, t, without cancellation.
        Derivation: (schedule.13). Source: Nichol & Dhariwal (arXiv:2102.09672) eq. 17.
        """
        whole("steps", steps, 1, MOST)
        unit = math.pi / 2 / (1 + offset) / steps
        b = unit * (torch.arange(1, steps + 1, dtype=torch.float64, device="cpu") + steps * offset)
        a = b - unit
        return cls((math.sin(unit) * (a + b).sin() / a.cos().square()).clamp(max=largest))

    @classmethod
    @checked
    def from_diffusers(cls, config: Mapping[str, Any]) -> "Discrete":
        """The beta schedule of a scheduler of diffusers, whose time t is t + 1 here.

        Args:
            config: its `config`, or what a `scheduler_config.json` has: num_train_timesteps,
                beta_schedule with beta_start and beta_end, or trained_betas; and
                rescale_betas_zero_snr.

        Raises ValueError for a setting that is missing, or is none of a beta schedule that both
        have: a flow, a shifted SNR, another name.

        >>> import diffusion_math as dm
        >>> sd15 = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear"}
        >>> dm.Discrete.from_diffusers(sd15 | {"beta_start": 0.00085, "beta_end": 0.012})
        Discrete(T=1000, betas 0.00085 to 0.012)
        """

        def given(name: str) -> Any:
            require(config.get(name) is not None, "config", f"the setting {name}", dict(config))
            return config[name]

        for name, plain in (("use_flow_sigmas", False), ("snr_shift_scale", 1.0)):
            got = config.get(name)
            require(got in (None, plain), "config", f"{name} = {plain}", got)
        if config.get("trained_betas") is not None:
            found = cls(torch.as_tensor(config["trained_betas"], dtype=torch.float64, device="cpu"))
        else:
            kinds = {"linear": cls.linear, "scaled_linear": cls.scaled_linear}
            steps, kind = given("num_train_timesteps"), given("beta_schedule")
            wanted = f"beta_schedule among {', '.join(kinds)}, squaredcos_cap_v2"
            require(kind in kinds or kind == "squaredcos_cap_v2", "config", wanted, kind)
            ends = [given(name) for name in ("beta_start", "beta_end")] if kind in kinds else []
            found = kinds[kind](steps, *ends) if kind in kinds else cls.cosine(steps)
        return found.zero_terminal_snr() if config.get("rescale_betas_zero_snr") else found

    def zero_terminal_snr(self) -> "Discrete":
        """The schedule, shifted and scaled to an SNR of zero at its last step.

        alpha'_t = (alpha_t - alpha_T) alpha_1 / (alpha_1 - alpha_T) for t < T. In place of 0,
        alpha'_T is 2^-12, or half of alpha'_{T-1} where that is less.

        Raises ValueError for a schedule of fewer than two steps. Derivation: (schedule.20).
        Source: Lin et al. (arXiv:2305.08891) algorithm 1; the last value as in diffusers.
        """
        require(isinstance(self, Discrete), "self", "a Discrete", f"a {type(self).__name__}")
        steps = len(self.betas)
        require(steps > 1, "steps", "2 or more for a zero terminal SNR", steps)
        alpha, _ = self(torch.arange(1, steps + 1, dtype=torch.float64, device="cpu"))
        scaled = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
        scaled[-1] = min(TERMINAL_ALPHA, float(scaled[-2]) / 2)
        before = torch.cat([scaled.new_ones(1), scaled[:-1]])
        return Discrete((before - scaled) * (before + scaled) / before.square())

    @property
    def T(self) -> float:
        return float(len(self.betas))

    @cached_property
    @torch.inference_mode(False)
    def _log_snr_table(self) -> Float64[Tensor, " nodes"]:
        """log-SNR at 0..T: log abar_t - log(1 - abar_t), with 1 - abar_t = -expm1(log abar_t)."""
        log_abar = _running_sums(torch.log1p(-self.betas))
        return pad(log_abar - torch.log(-torch.expm1(log_abar)), (1, 0), value=math.inf)

    def __call__(self, t: Time) -> tuple[Float64[Tensor, "*shape"], Float64[Tensor, "*shape"]]:
        """(sqrt(sigmoid(log_snr)), sqrt(sigmoid(-log_snr))): VDM (arXiv:2107.00630) eq. 3."""
        log_snr = self.log_snr(t)
        return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()

    def log_snr(self, t: Time) -> Float64[Tensor, "*shape"]:
        time = _valid_time(t, self.T)
        node, part = time.long(), time.frac()
        here = self._log_snr_table.take(node)  # a copy, of a single time too
        if not bool(part.any()):
            return here
        wanted = "0 or a time in [1, T]: a discrete schedule has nothing between 0 and 1"
        require(not bool(((time > 0) & (time < 1)).any()), "t", wanted, t)
        after = self._log_snr_table[(node + 1).clamp(max=len(self.betas))]
        return torch.where(part == 0, here, (1 - part) * here + part * after)

    def time(self, log_snr: Time) -> Float64[Tensor, "*shape"]:
        value = _valid_log_snr(log_snr, self)
        table = self._log_snr_table[1:]
        invalid = (value > table[0]) & (value < math.inf)
        require(not bool(invalid.any()), "log_snr", f"at most {table[0]:g}, or inf", log_snr)
        node = torch.searchsorted(-table, -value, right=True) - 1
        here = table[node.clamp(min=0)]
        after = table[(node + 1).clamp(max=len(table) - 1)]
        # At a node, and at clean data (node = -1), the fraction is 0 / 0 or inf: 1 + node is exact.
        exact = (value == here) | (node < 0)
        return 1 + node + torch.where(exact, 0.0, (here - value) / (here - after))


@final
@checked
@dataclass(frozen=True)
class VPLinear(Schedule):
    """The VP SDE, beta(t) linear from beta_min to beta_max at T = 1. Derivation: (schedule.14).

    alpha_t = exp(-B/2), sigma_t^2 = 1 - exp(-B), B(t) = t beta_min + t^2 (beta_max - beta_min)/2.
    Needs 0 < beta_min <= beta_max <= 1000. Source: Song et al. (arXiv:2011.13456) eq. 32-33.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule = dm.VPLinear(beta_min=0.1, beta_max=20.0)
    >>> alpha, sigma = schedule(torch.tensor([0.0, 0.5, 1.0]))
    >>> alpha
    tensor([1.0000, 0.2812, 0.0066], dtype=torch.float64)
    >>> schedule.time(schedule.log_snr(0.25))
    tensor(0.2500, dtype=torch.float64)
    """

    beta_min: Number = 0.1
    beta_max: Number = 20.0
    T = 1.0
    fixed = True
    t_min = 1e-3

    def __post_init__(self) -> None:
        wanted, got = "0 < beta_min <= beta_max <= 1000", (self.beta_min, self.beta_max)
        require(0 < self.beta_min <= self.beta_max <= 1000, "beta_min, beta_max", wanted, got)
        as_floats(self)

    def __call__(self, t: Time) -> tuple[Float64[Tensor, "*shape"], Float64[Tensor, "*shape"]]:
        integral = self._integral(t)
        return torch.exp(-integral / 2), torch.sqrt(-torch.expm1(-integral))

    def log_snr(self, t: Time) -> Float64[Tensor, "*shape"]:
        integral = self._integral(t)
        return -integral - torch.log(-torch.expm1(-integral))

    def time(self, log_snr: Time) -> Float64[Tensor, "*shape"]:
        # B = log(1 + exp(-log_snr)), then the root of the quadratic that does not cancel.
        integral = logsigmoid(_valid_log_snr(log_snr, self)).abs()
        root = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return (2 * integral / (self.beta_min + root)).clamp(max=self.T)

    def _integral(self, t: Time) -> Float64[Tensor, "*shape"]:
        time = _valid_time(t, self.T)
        return time * (self.beta_min + time * (self.beta_max - self.beta_min) / 2)


@final
@dataclass(frozen=True)
class VPCosine(Schedule):
    """alpha_t = cos(pi t / 2), sigma_t = sin(pi t / 2), T = 1; log-SNR = -2 log tan(pi t / 2).

    alpha is computed as sin(pi (1 - t) / 2), which is 0 at T and exact to rounding near it.
    Source: Nichol & Dhariwal (arXiv:2102.09672) eq. 17, no offset. Derivation: (schedule.17).

    >>> import torch
    >>> import diffusion_math as dm
    >>> alpha, sigma = dm.VPCosine()(torch.tensor([0.0, 0.5, 1.0]))
    >>> alpha
    tensor([1.0000, 0.7071, 0.0000], dtype=torch.float64)
    >>> dm.VPCosine().time(0.0)  # log-SNR 0: as much signal as noise
    tensor(0.5000, dtype=torch.float64)
    """

    T = 1.0
    fixed = True
    t_min = 1e-3
    t_max = 1 - 1e-3

    def __call__(self, t: Time) -> tuple[Float64[Tensor, "*shape"], Float64[Tensor, "*shape"]]:
        time = _valid_time(t, self.T)
        return torch.sin(math.pi / 2 * (1 - time)), torch.sin(math.pi / 2 * time)

    def log_snr(self, t: Time) -> Float64[Tensor, "*shape"]:
        alpha_t, sigma_t = self(t)
        return 2 * (alpha_t.log() - sigma_t.log())

    def time(self, log_snr: Time) -> Float64[Tensor, "*shape"]:
        value = _valid_log_snr(log_snr, self)
        return (2 / math.pi * torch.atan(torch.exp(-value / 2))).clamp(max=self.T)


@final
@checked
@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding in EDM's time: alpha_t = 1, sigma_t = t. Derivation: (schedule.18).

    Needs T = sigma_max > t_min = 0.002. Source: EDM (arXiv:2206.00364) table 1, column "Ours".

    >>> import torch
    >>> import diffusion_math as dm
    >>> alpha, sigma = dm.VE(sigma_max=80.0)(torch.tensor([0.0, 1.0, 80.0]))
    >>> alpha, sigma
    (tensor([1., 1., 1.], dtype=torch.float64), tensor([ 0.,  1., 80.], dtype=torch.float64))
    """

    sigma_max: Number = 80.0
    fixed = True
    t_min = 2e-3

    def __post_init__(self) -> None:
        require(self.t_min < self.sigma_max < math.inf, "sigma_max", "> 0.002", self.sigma_max)
        as_floats(self)

    @property
    def T(self) -> float:
        return float(self.sigma_max)

    def __call__(self, t: Time) -> tuple[Float64[Tensor, "*shape"], Float64[Tensor, "*shape"]]:
        time = _valid_time(t, self.T)
        return torch.ones_like(time), time

    def log_snr(self, t: Time) -> Float64[Tensor, "*shape"]:
        return -2 * _valid_time(t, self.T).log()

    def time(self, log_snr: Time) -> Float64[Tensor, "*shape"]:
        return torch.exp(-_valid_log_snr(log_snr, self) / 2).clamp(max=self.T)


@final
@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """Rectified flow, x_t = (1 - t) x_0 + t eps, T = 1; log-SNR = 2 log((1 - t) / t).

    Source: Liu et al. (arXiv:2209.03003) eq. 1, time reversed. Derivation: (schedule.19).

    >>> import torch
    >>> import diffusion_math as dm
    >>> alpha, sigma = dm.RectifiedFlow()(torch.tensor([0.0, 0.25, 1.0]))
    >>> alpha
    tensor([1.0000, 0.7500, 0.0000], dtype=torch.float64)
    >>> sigma
    tensor([0.0000, 0.2500, 1.0000], dtype=torch.float64)
    """

    T = 1.0
    fixed = True
    t_min = 1e-3
    t_max = 1 - 1e-3

    def __call__(self, t: Time) -> tuple[Float64[Tensor, "*shape"], Float64[Tensor, "*shape"]]:
        time = _valid_time(t, self.T)
        return 1 - time, time

    def log_snr(self, t: Time) -> Float64[Tensor, "*shape"]:
        time = _valid_time(t, self.T)
        return 2 * (torch.log1p(-time) - time.log())

    def time(self, log_snr: Time) -> Float64[Tensor, "*shape"]:
        return torch.sigmoid(-_valid_log_snr(log_snr, self) / 2)


def _running_sums(each: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Cumulative sums of numbers of one sign, each rounded once (Neumaier 1974).

    The rounding error of a plain cumulative sum grows with t and would then be exponentiated.
    """
    total, rest, sums = 0.0, 0.0, []
    for one in each.tolist():
        longer = total + one
        larger, smaller = (total, one) if abs(total) >= abs(one) else (one, total)
        rest, total = rest + ((larger - longer) + smaller), longer
        sums.append(total + rest)
    return torch.tensor(sums, dtype=torch.float64, device="cpu")


def _valid_time(t: Time, T: float) -> Float64[Tensor, "*shape"]:
    """A copy of t as a float64 CPU tensor; ValueError outside [0, T]."""
    time = real("t", t).clone()
    all_between("t", time, 0.0, T)
    return time


def _valid_log_snr(log_snr: Time, schedule: Schedule) -> Float64[Tensor, "*shape"]:
    """log_snr as a float64 CPU tensor; ValueError below the schedule's smallest value."""
    value = real("log_snr", log_snr)
    all_between("log_snr", value, schedule.log_snr(schedule.T).item(), math.inf)
    return value
