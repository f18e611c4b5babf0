"""Noise schedules that lucidrains' libraries share, beside their sources."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

STEPS = 1000
Found = dict[tuple[str, str], Callable[[], Any]]


def _cosine(u: Tensor) -> Tensor:
    """abar of Improved DDPM, arXiv:2102.09672, eq. 17, but for a factor."""
    return (math.pi / 2 * (u + 0.008) / 1.008).cos() ** 2


def _sigmoid(u: Tensor) -> Tensor:
    """abar of arXiv:2212.11972, figure 8, but for a factor."""
    return 1 / (1 + math.exp(-3)) - (6 * u - 3).sigmoid()


def _betas(abar: Tensor) -> Tensor:
    return (1 - abar[1:] / abar[:-1]).clamp(max=0.999)


def _log_snr(t: Tensor) -> Tensor:
    """Simple diffusion, arXiv:2301.11093, from 15 to -15."""
    first, last = (math.atan(math.exp(-each / 2)) for each in (15, -15))
    return -2 * (first + t * (last - first)).tan().log()


def _linear(u: Tensor) -> Tensor:
    return torch.linspace(1e-4, 0.02, len(u) - 1, dtype=u.dtype)


BETAS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear_beta_schedule": _linear,  # DDPM, arXiv:2006.11239, section 4
    "quadratic_beta_schedule": lambda u: (
        torch.linspace(0.01, math.sqrt(0.02), len(u) - 1, dtype=u.dtype) ** 2
    ),
    "cosine_beta_schedule": lambda u: _betas(_cosine(u)),
    "sigmoid_beta_schedule": lambda u: _betas(_sigmoid(u)),
}
"""Of 1000 steps, from what u = 0 to 1 in as many steps gives."""

LOG_SNRS: dict[str, Callable[[Tensor], Tensor]] = {
    "beta_linear_log_snr": lambda t: -(1e-4 + 10 * t**2).expm1().log(),  # VDM, arXiv:2107.00630
    "alpha_cosine_log_snr": lambda t: (_cosine(t) / (1 - _cosine(t))).log(),
    "logsnr_schedule_cosine": _log_snr,
}


def same(got: Tensor, wanted: Tensor, what: str, tolerance: float = 2e-5) -> None:
    """AssertionError unless two schedules are one."""
    off = (got.detach().double() - wanted).abs() / wanted.abs().clamp(min=1e-3)
    worst = int(off.argmax())
    found, right = float(got[worst]), float(wanted[worst])
    assert float(off[worst]) < tolerance, (
        f"{what}, entry {worst}: got {found:.6g}, expected {right:.6g}"
    )


def schedules(where: Any, names: Iterable[str]) -> Found:
    """Rows for a module's schedules."""
    u = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS
    short = where.__name__.rpartition(".")[2]

    def table(name: str) -> None:
        same(getattr(where, name)(STEPS), BETAS[name](u), "beta")

    def log_snr(name: str) -> None:
        same(getattr(where, name)(u[1:-1]), LOG_SNRS[name](u[1:-1]), "log-SNR")

    return {
        (f"{short}.{name}", "schedule"): partial(table if name in BETAS else log_snr, name)
        for name in names
    }


def edm(sigmas: Tensor) -> None:
    """AssertionError unless sigmas are those of EDM, arXiv:2206.00364, eq. 5, and 0."""
    ramp = torch.linspace(0, 1, len(sigmas) - 1, dtype=torch.float64)
    wanted = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    same(sigmas, torch.cat([wanted, torch.zeros(1)]), "sigma", 1e-3)
