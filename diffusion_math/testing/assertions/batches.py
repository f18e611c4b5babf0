"""The loss of a batch: the mean of the losses of its examples, or each of them; its gradient."""

import torch
from torch import Tensor

from diffusion_math.testing.assertions.squares import Losses
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.probes import MIXED, VECTORS
from diffusion_math.testing.mistakes.table import Table

__all__ = ["check_batch"]


def check_batch(losses: Losses, a: Tensor, b: Tensor) -> None:
    """Raise MistakeError unless a batch of 3 different examples gives their mean, or each alone.

    The gradient in the network's output is that of these squared errors.

    a, b: the target's coefficients at each row.
    """
    rows = torch.linspace(0, len(a) - 1, 3, device="cpu").round().long()
    size = torch.tensor([[1.0], [-2.0], [3.0]], dtype=torch.float64, device="cpu")
    x0 = size * torch.tensor(VECTORS, dtype=torch.float64, device="cpu")
    noise = x0.flip(1)
    spread = (a.abs() + b.abs())[rows, None]
    error = spread * x0
    y = a[rows, None] * x0 + b[rows, None] * noise + error
    whole = losses.batch(x0, noise, y, rows)
    ones = [
        losses.batch(x0[k], noise[k], y[k], rows[k]) for k in torch.arange(3, device="cpu")[:, None]
    ]
    each = torch.stack(ones).flatten()
    mixed = _mixed(losses, x0, noise, y, rows, each, whole)
    if whole.ndim:
        table = Table(("row 0", "row 1", "row 2"), {"alone": each}, losses.eps)
        compare(
            losses.subject,
            {"loss of a row in a batch": whole},
            lambda at: {"loss of a row in a batch": at["alone"]},
            table,
            table.rows,
            eps=losses.eps,
            known=[Mistake.of(MIXED, lambda at: {"loss of a row in a batch": whole})] * mixed,
            right="what the row has alone",
        )
        _check_gradient(losses, (x0, noise, y, rows), error, each)
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
        *[Mistake.of(MIXED, lambda at: {"loss": whole[None]})] * mixed,
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
    _check_gradient(losses, (x0, noise, y, rows), error, each / 3)


def _mixed(
    losses: Losses,
    x0: Tensor,
    noise: Tensor,
    y: Tensor,
    rows: Tensor,
    each: Tensor,
    whole: Tensor,
) -> bool:
    """Whether 3 equal examples have the loss of one alone, and these 3 have another than theirs."""

    def near(got: Tensor, wanted: Tensor) -> bool:
        return bool(((got - wanted).abs() <= 256 * losses.eps * wanted.abs()).all())

    def thrice(one: Tensor, k: int) -> Tensor:
        return one[k].expand(3, *one.shape[1:]).clone()

    if near(whole, each if whole.ndim else each.mean()):
        return False
    same = (losses.batch(*(thrice(one, k) for one in (x0, noise, y, rows))) for k in range(3))
    return all(near(found, each[k]) for k, found in enumerate(same))


NO_GRADIENT = "there is no gradient in the network's output: it is detached, or none is recorded"


def _check_gradient(
    losses: Losses, given: tuple[Tensor, Tensor, Tensor, Tensor], error: Tensor, each: Tensor
) -> None:
    """Raise MistakeError unless the gradient of each row's loss, a multiple of |e|^2, is its own.

    each: the row's share of what is returned; c |e|^2 has the gradient 2 c e.
    """
    found = losses.gradient(*given)
    if found is None:
        return
    square = error.square().sum(1)
    along = (found * error).sum(1) / square
    size = (2 * each / square).abs().amax() * error.abs().amax()
    straight = (found - along[:, None] * error).abs().amax() <= 256 * losses.eps * size
    subject, field = losses.subject, "gradient in the network's output, over its error"
    assert bool(straight) or bool(found.isnan().any()), (
        f"{subject}: the gradient in the network's output is no multiple of its error"
    )
    table = Table(("row 0", "row 1", "row 2"), {"right": 2 * each / square}, losses.eps)
    compare(
        subject,
        {field: along},
        lambda at: {field: at["right"]},
        table,
        table.rows,
        eps=64 * losses.eps,
        known=[Mistake.of(NO_GRADIENT, lambda at: {field: 0 * at["right"]})],
        right="that of the weighted squared error",
    )
