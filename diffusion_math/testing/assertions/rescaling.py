"""Guidance whose result is rescaled to the conditional prediction's standard deviation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import Number
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import MistakeError, compare
from diffusion_math.testing.mistakes.probes import tensor
from diffusion_math.testing.mistakes.table import Table

__all__ = ["COND", "UNCOND", "check"]

RESCALED = "arXiv:2305.08891, eq. 15 and 16"

Columns = Mapping[str, Tensor]

COND, UNCOND = (1.0, -2.0, 0.5, 4.0), (0.25, 1.0, -1.5, 2.0)
"""Events of different mean and standard deviation, exact in any dtype."""


def check(
    subject: str,
    call: Callable[..., Any],
    table: Table,
    scales: Sequence[Number],
    guided_by: Callable[[Columns, Tensor, Tensor], Tensor],
    share: float,
    dtype: torch.dtype,
) -> None:
    """Raise MistakeError unless the result is phi (std cond / std g) g + (1 - phi) g."""
    cond, uncond = (torch.tensor([row], dtype=dtype, device="cpu") for row in (COND, UNCOND))

    def spreads(columns: Mapping[str, Tensor], of: Callable[[Tensor], Tensor]) -> Tensor:
        """of(cond) / of(guided) at each w."""
        return of(cond.double()) / of(guided_by(columns, cond, uncond))

    def deviation(x: Tensor) -> Tensor:
        return x.std(1)

    def factor(
        of: Callable[[Tensor], Tensor] = deviation, phi: float = share, power: float = 1.0
    ) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
        return lambda at: {"rescaling": phi * spreads(at, of) ** power + 1 - phi}

    guided = guided_by(table.columns, cond, uncond)
    results = torch.cat([tensor(subject, call(cond, uncond, w), cond)[0] for w in scales])
    measured = (results * guided).sum(1) / guided.square().sum(1)
    eps = torch.finfo(dtype).eps
    most = 256 * eps * results.abs().amax(1, keepdim=True)
    along = (results - measured[:, None] * guided).abs() <= most
    if not bool(along.all()):
        k = int((~along).any(1).int().argmax())
        right = f"a multiple of the guided prediction at {table.times[k]}"
        raise MistakeError(subject, (), (), right)
    known = [
        Mistake.of("phi and 1 - phi are exchanged", factor(phi=1 - share), RESCALED),
        Mistake.of("the guided prediction is not rescaled", factor(phi=0.0), RESCALED),
        Mistake.of("phi is not used: all of it is rescaled", factor(phi=1.0), RESCALED),
        Mistake.of("the ratio of deviations is inverted", factor(power=-1.0), RESCALED),
        Mistake.of("the ratio is one of variances", factor(power=2.0), RESCALED),
        Mistake.of(
            "the deviation is about 0, not about the mean",
            factor(lambda x: x.square().mean(1).sqrt()),
            RESCALED,
        ),
        Mistake.of(
            "the deviation is uncond's, not cond's",
            lambda at: {
                "rescaling": share * uncond.double().std(1) / guided_by(at, cond, uncond).std(1)
                + 1
                - share
            },
            RESCALED,
        ),
    ]
    right = f"phi std(cond) / std(guided) + 1 - phi, over each event's entries ({RESCALED})"
    compare(
        subject,
        {"rescaling": measured},
        factor(),
        table,
        table.rows,
        eps=8 * eps,
        known=known,
        right=right,
    )
