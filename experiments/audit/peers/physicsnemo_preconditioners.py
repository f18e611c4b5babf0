"""NVIDIA PhysicsNeMo's preconditioners, each with the scheduler that it is documented with."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from diffusion_math.testing import assert_loss, drawn
from experiments.audit.formula import assert_same
from experiments.audit.peers.physicsnemo_parts import levels_of, library, scheduler, times_of


def _preconditioned(kind: str, spread: float, sign: float) -> Callable[..., Any]:
    """The loss of a preconditioned network with the scheduler that its documentation pairs it with.

    Data are of the spread that is expected. The network is told the time, and is given its input.
    """
    own = scheduler(f"{kind}NoiseScheduler")

    class Network(nn.Module):
        call: Callable[[Tensor], Any]

        def forward(self, x: Tensor, *_: Any) -> Any:
            return sign * self.call(x)

    inner = Network()
    model = getattr(library(), f"{kind.removeprefix('StudentT')}Preconditioner")(inner).double()

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Any:
        inner.call = lambda x: network(x, t)
        return drawn(library().MSEDSMLoss(model, own))(spread * x0, t, noise)

    return loss


def _told(kind: str) -> None:
    """What F is told of the time, c_noise of EDM's table 1."""
    own, told = scheduler(f"{kind}NoiseScheduler"), []

    class Network(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            told.append(t)
            return x

    t = torch.tensor(times_of(own), dtype=torch.float64)
    sigma = own.sigma(t)
    if kind == "IDDPM":
        wanted = 999 - (sigma[:, None] - own._u).abs().argmin(1).double()
    else:
        wanted = {"EDM": sigma.log() / 4, "VE": (sigma / 2).log(), "VP": 999 * t}[kind]
    model = getattr(library(), f"{kind}Preconditioner")(Network()).double()
    model(torch.ones(len(t), 1), t)
    assert_same("c_noise", told[0], wanted, 1e-3)


def preconditioners() -> dict[tuple[str, str], Callable[[], None]]:
    """EDM (arXiv:2206.00364), table 1: what F is given and predicts, with a weight of 1.

    Student-t noise is taken at its own variance, nu / (nu - 2) (arXiv:2410.14171).
    """
    found: dict[tuple[str, str], Callable[[], None]] = {
        (f"{kind}Preconditioner with {kind}NoiseScheduler, c_noise", "loss"): partial(_told, kind)
        for kind in ("EDM", "IDDPM", "VE", "VP")
    }
    for kind, spread, predicts, sign in (
        ("EDM", 0.5, "v", -1.0),
        ("StudentTEDM", 0.5, "v", -1.0),
        ("IDDPM", 1.0, "eps", 1.0),
        ("VE", 1.0, "eps", -1.0),
        ("VP", 1.0, "eps", 1.0),
    ):
        own = scheduler(f"{kind}NoiseScheduler")
        nu = getattr(own, "nu", math.inf)
        tail = 1.0 if math.isinf(nu) else (nu / (nu - 2)) ** 0.5

        def levels(t: Any, own: Any = own, spread: float = spread, tail: float = tail) -> Any:
            alpha, sigma = levels_of(own)(t)
            alpha, sigma = spread * alpha, tail * sigma
            size = 1.0 if "VE" in type(own).__name__ else (alpha**2 + sigma**2) ** 0.5
            return alpha / size, sigma / size

        def run(loss: Any, *rest: Any, nu: float = nu, **options: Any) -> None:
            still = patch.object(
                torch.distributions.Chi2, "sample", lambda *_: torch.tensor(nu - 2)
            )
            with still:
                assert_loss(loss, *rest, **options)

        loss = _preconditioned(kind, spread, sign)
        found[
            f"{kind.removeprefix('StudentT')}Preconditioner with {kind}NoiseScheduler", "loss"
        ] = partial(run, loss, levels, times_of(own)[10:], predicts=predicts)
    return found
