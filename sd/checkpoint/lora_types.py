"""The supported kinds of low-rank update: LoRA, LoHa and LoKr, each with or without DoRA.

With W' = W + s D, s = alpha / r, and D as a matrix of (outputs of W) x (the rest of W's axes):

    LoRA   D = B A                            B: up,   A: down
    LoHa   D = (B_1 A_1) * (B_2 A_2)          B_k: hada_wk_a,  A_k: hada_wk_b;  * is elementwise
    LoKr   D = W_1 (x) W_2                    W_k: lokr_wk, or lokr_wk_a lokr_wk_b;  (x): Kronecker
    DoRA   W' = m (W + s D) / |W + s D|       the norm per output, or per input, as m's shape says

A core t of r x r x (kernel) between two factors makes their product a convolution's (Tucker):
sum_ij t_ij.. b_ip a_jq, where the two of LoHa and LoKr are r x p and r x q; those of LoRA p x r.

Source: Hu et al. 2021, arXiv:2106.09685, section 4.1 (LoRA); Hyeon-Woo et al. 2022,
arXiv:2108.06098, section 2.2 (LoHa); Yeh et al. 2024, arXiv:2309.14859, section 3 (LoKr, Tucker);
Liu et al. 2024, arXiv:2402.09353, Eq. 5 (DoRA).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["KINDS", "Kind", "magnitude_axes", "renormalised"]

Factors = Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class Kind:
    """A kind of update.

    Attributes:
        complete: the sets of roles that make an update of this kind.
        product: factors by role to D, in the shape of the weight except for trailing axes.
        inner: the roles whose first axis is r; the first one present counts.
    """

    complete: tuple[frozenset[str], ...]
    product: Callable[[Factors], Tensor]
    inner: tuple[str, ...]

    def rank(self, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """r, by the shapes of the factors; None if no factor has it."""
        return next((shapes[role][0] for role in self.inner if shapes.get(role)), None)


def _lora(factor: Factors) -> Tensor:
    up, down = factor["up"].flatten(1), factor["down"].flatten(1)
    if "mid" in factor:
        return _tucker(factor["mid"], up.T, down)
    return (up @ down).reshape(len(up), *factor["down"].shape[1:])


def _loha(factor: Factors) -> Tensor:
    first, second = (_pair(factor, f"hada_w{k}", f"hada_t{k}") for k in (1, 2))
    if first.shape != second.shape:
        raise ValueError("an elementwise product of two shapes")
    return first * second


def _lokr(factor: Factors) -> Tensor:
    first = _pair(factor, "lokr_w1", "")
    second = _pair(factor, "lokr_w2", "lokr_t2")
    return torch.kron(first[(..., *[None] * (second.ndim - first.ndim))], second.contiguous())


def _pair(factor: Factors, stem: str, core: str) -> Tensor:
    """A matrix that is stored as a whole, as two factors, or as two factors and a core."""
    if stem in factor:
        return factor[stem]
    left, right = factor[f"{stem}_a"], factor[f"{stem}_b"]
    return _tucker(factor[core], left, right) if core in factor else left @ right


def _tucker(core: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """sum_ij core_ij.. left_ip right_jq; the core's kernel is of two axes."""
    return torch.einsum("ijhw,ip,jq->pqhw", core, left, right)


KINDS = {
    "LoRA": Kind((frozenset({"down", "up"}), frozenset({"down", "up", "mid"})), _lora, ("down",)),
    "LoHa": Kind(
        tuple(
            frozenset({f"hada_w{k}_{side}" for k in (1, 2) for side in "ab"} | cores)
            for cores in (set(), {"hada_t1", "hada_t2"})
        ),
        _loha,
        ("hada_w1_b",),
    ),
    "LoKr": Kind(
        tuple(
            frozenset(first | second)
            for first in ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
            for second in (
                {"lokr_w2"},
                {"lokr_w2_a", "lokr_w2_b"},
                {"lokr_w2_a", "lokr_w2_b", "lokr_t2"},
            )
        ),
        _lokr,
        ("lokr_w2_b", "lokr_w1_b"),
    ),
}


def magnitude_axes(
    role: str, shape: tuple[int, ...], weight: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The axes of DoRA's norm of a weight; None if the shape of m does not fit.

    peft's m ("magnitude") has one entry for each output. LyCORIS' ("dora_scale") is outputs x 1 or,
    in its older versions, 1 x inputs.
    """
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    outputs, inputs = weight[:2]
    if role == "magnitude":
        return (
            tuple(range(1, len(weight)))
            if shape in {(outputs,), (1, outputs), (outputs, 1)}
            else None
        )
    if shape == (outputs, 1):
        return tuple(range(1, len(weight)))
    return (0, *range(2, len(weight))) if shape == (1, inputs) else None


def renormalised(weight: Tensor, magnitude: Tensor, axes: tuple[int, ...]) -> Tensor:
    """m W / |W| with the norm over those axes; 0 where W is 0."""
    shape = [1 if axis in axes else size for axis, size in enumerate(weight.shape)]
    tiny = torch.finfo(weight.dtype).tiny
    return magnitude.reshape(shape) * F.normalize(weight, dim=axes, eps=tiny)
