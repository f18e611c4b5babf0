"""Low-rank updates of a model's weights: merged into them, and taken out again to the bit.

W' = W + sum_k s_k (alpha_k / r_k) up_k down_k, with down_k: r_k x (inputs of W) and up_k: (outputs
of W) x r_k, over files k at strengths s_k. Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from diffusion_math.checks import require
from sd.checkpoint import files
from sd.checkpoint.lora_names import Update, updates
from sd.checkpoint.source import Source, ill

__all__ = ["Merged", "merge"]

Key = tuple[str, str]
"""A network's kind, and the name of a weight in it."""


@final
@dataclass(eq=False)
class Merged:
    """Updates that are in a model's weights; `unmerge` restores every bit.

    Attributes:
        weights: the weights that were touched, by the network's kind and the name.
    """

    weights: dict[Key, Tensor]
    _before: dict[Key, Tensor] = field(repr=False)
    _after: dict[Key, tuple[int, int]] = field(repr=False)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the weights back as they stood before.

        Raises ValueError, and does nothing, where that is done already, or the weights have been
        changed or moved since: the last merge must be undone first.
        """
        require(bool(self._before), "unmerge", "updates that are still merged", "none")
        for key, weight in self.weights.items():
            before = self._before[key]
            same = (weight.dtype, weight.device) == (before.dtype, before.device)
            if not same or _fingerprint(weight) != self._after[key]:
                what = "changed" if same else "moved"
                raise ValueError(
                    f"{'.'.join(key)} has been {what} since it was merged; undo later merges first"
                )
        for key, weight in self.weights.items():
            weight.copy_(self._before[key])
        self._before.clear()


@torch.no_grad()
def merge(model: Any, loras: Sequence[tuple[Path | str, float]]) -> Merged:
    """Add LoRA files to a model's weights, each at a strength; nothing is changed if one is wrong.

    The sums are made in float32 or wider and rounded once. What is touched is kept, for `unmerge`.

    Args:
        model: a `Loaded`, or anything with a config, a text_encoder and a unet. Where its networks
            take turns in memory, the weights that are touched stay there.
        loras: (file, strength); names of kohya's trainer, in diffusers' or the original block
            names, or of diffusers and peft.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or its names or shapes are not of this model.
    """
    require(len(loras) > 0, "loras", "at least one (file, strength)", "none")
    for path, strength in loras:
        legal = isinstance(strength, (int, float)) and abs(strength) < float("inf")
        require(legal, "loras", f"a finite strength for {path}", strength)
    weights = _weights(model)
    turns = getattr(model, "turns", None)
    with ExitStack() as stack:
        planned: dict[Key, list[tuple[Source, Update, float]]] = {}
        for path, strength in loras:
            source = stack.enter_context(files.opened(Path(path)))
            for update in updates(source, model.config):
                _fits(source, update, weights[update.kind, update.name])
                jobs = planned.setdefault((update.kind, update.name), [])
                jobs.append((source, update, float(strength)))
        before, after = {}, {}
        for key, jobs in planned.items():
            weight = weights[key] if turns is None else turns.read(*key)
            wide = torch.promote_types(weight.dtype, torch.float32)
            total = weight.to(wide, copy=True)
            for source, update, strength in jobs:
                total += _change(source, update, strength, weight, wide)
                _finite(source, key, total)
            before[key], after[key] = weight.detach().clone(), total.to(weight.dtype)
            _finite(jobs[-1][0], key, after[key])
    for key, value in after.items():
        if turns is None:
            weights[key].copy_(value)
        else:
            weights[key] = turns.keep(*key, value)
    touched = {key: weights[key] for key in after}
    return Merged(touched, before, {key: _fingerprint(value) for key, value in touched.items()})


def _weights(model: Any) -> dict[Key, Tensor]:
    """The weights that a LoRA may update: those of linear layers and convolutions."""
    return {
        (kind, f"{name}.weight"): module.weight
        for kind in ("text_encoder", "unet")
        for name, module in getattr(model, kind).named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


def _finite(source: Source, key: Key, value: Tensor) -> None:
    """Raise ValueError, naming the file, where a sum is not finite."""
    if not bool(value.isfinite().all()):
        raise ill(source.path, f"{'.'.join(key)} is not finite after merging")


def _fits(source: Source, update: Update, weight: Tensor) -> None:
    """Raise ValueError unless the factors multiply to the weight's shape."""
    shapes = {role: source.entries[name].shape for role, name in update.factors.items()}
    kinds = {source.entries[name].dtype.is_floating_point for name in update.factors.values()}
    down, up, mid = shapes["down"], shapes["up"], shapes.get("mid")
    legal = kinds == {True} and len(down) in (2, 4) and len(up) in (2, 4) and update.rank > 0
    if legal and mid is None:
        legal = _numel(up) == weight.shape[0] * update.rank == up[0] * update.rank
        legal = legal and _numel(down) == update.rank * weight[0].numel()
    elif legal:
        kernel = weight.shape[2:]
        legal = mid == (*up[1:2], *down[:1], *kernel) and len(kernel) == 2
        legal = legal and _numel(up) == weight.shape[0] * up[1] and up[0] == weight.shape[0]
        legal = legal and _numel(down) == down[0] * weight.shape[1]
    if not legal:
        found = " and ".join(f"{role} {shape}" for role, shape in shapes.items())
        raise ill(source.path, f"{update.stem} has {found}, for a weight {tuple(weight.shape)}")


def _change(
    source: Source, update: Update, strength: float, weight: Tensor, wide: torch.dtype
) -> Tensor:
    """s (alpha / r) up down, in the weight's shape; a convolution between the two goes in too."""
    factor = {
        role: source.fetch(name, None).to(weight.device, wide)
        for role, name in update.factors.items()
    }
    scale = strength * _scale(source, update)
    up, down = factor["up"].flatten(1), factor["down"].flatten(1)
    if "mid" in factor:
        return scale * torch.einsum("oa,abhw,bi->oihw", up, factor["mid"], down)
    return scale * (up @ down).reshape(weight.shape)


def _scale(source: Source, update: Update) -> float:
    """alpha / r; a file without alpha means alpha = r."""
    if update.alpha_name is None:
        return update.scale
    alpha = source.fetch(update.alpha_name, None)
    if alpha.numel() != 1 or not bool(alpha.isfinite().all()):
        raise ill(source.path, f"{update.alpha_name} is no finite number")
    return float(alpha.reshape(())) / update.rank


def _fingerprint(weight: Tensor) -> tuple[int, int]:
    """Two sums over a weight's bits, one weighted by place, modulo 2^64: another value shows."""
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.itemsize]
    bits = weight.detach().flatten().view(words).long()
    places = torch.arange(1, len(bits) + 1, device=bits.device)
    return int(bits.sum()), int((bits * places).sum())


def _numel(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()
