"""The loss of a batch: the mean of the losses of its examples, or each of them."""

import torch
from torch import Tensor

from diffusion_math.testing.assertions.squares import Losses
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.probes import VECTORS
from diffusion_math.testing.mistakes.table import Table

__all__ = ["check_batch"]


def check_batch(losses: Losses, a: Tensor, b: Tensor) -> None:
    """Raise MistakeError unless a batch of 3 different examples gives their mean, or each alone.

    a, b: the target's coefficients at each row.
    """
    rows = torch.linspace(0, len(a) - 1, 3).round().long()
    size = torch.tensor([[1.0], [-2.0], [3.0]], dtype=torch.float64)
    x0 = size * torch.tensor(VECTORS, dtype=torch.float64)
    noise = x0.flip(1)
    spread = (a.abs() + b.abs())[rows, None]
    error = spread * x0
    y = a[rows, None] * x0 + b[rows, None] * noise + error
    whole = losses.batch(x0, noise, y, rows)
    ones = [losses.batch(x0[k], noise[k], y[k], rows[k]) for k in torch.arange(3)[:, None]]
    each = torch.stack(ones).flatten()
    if whole.ndim:
        table = Table(("row 0", "row 1", "row 2"), {"alone": each}, losses.eps)
        compare(
            losses.subject,
            {"loss of a row in a batch": whole},
            lambda at: {"loss of a row in a batch": at["alone"]},
            table,
            table.rows,
            eps=losses.eps,
            right="what the row has alone",
        )
        return
    squares = error.square().mean(1)
    table = Table(("a batch of 3",), {f"row {k}": each[k : k + 1] for k in range(3)}, losses.eps)

    def mean(at: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": torch.stack(list(at.values())).mean(0)}

    apart = (each / squares).mean() * squares.mean()
    known = [
        Mistake.of("the losses of a batch are summed", lambda at: {"loss": 3 * mean(at)["loss"]}),
        Mistake.of(
            "mean weight times mean error: weights of shape (batch, 1) on errors of (batch,)",
            lambda at: {"loss": apart[None]},
            "pytorch.org/docs/stable/notes/broadcasting.html",
        ),
    ]
    compare(
        losses.subject,
        {"loss": whole[None]},
        mean,
        table,
        table.rows,
        eps=losses.eps,
        known=known,
        right="the mean of the losses of its examples",
    )
