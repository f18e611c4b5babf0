"""Merge low-rank updates (LoRA) into the weights of a model, and unmerge them bit for bit.

    W' = W + sum_k s_k (W_k - W)

over files k at strengths s_k, where W_k is W with file k alone: see
`sd.checkpoint.lora_types`. For LoRA, W_k - W = (alpha_k / r_k) B_k A_k.
"""

import math
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from diffusion_math.checks import require
from sd.checkpoint import formats
from sd.checkpoint.lora_keys import Update, updates
from sd.checkpoint.lora_types import magnitude_axes, renormalised
from sd.checkpoint.tensor_source import Source, checkpoint_error

__all__ = ["Merged", "merge"]

Key = tuple[str, str]
"""The kind of a network, and the name of a weight in it."""


@final
@dataclass(eq=False)
class Merged:
    """Updates that are merged into a model; `unmerge` restores every bit.

    Attributes:
        weights: the changed weights, by the kind of the network and the name.
    """

    weights: dict[Key, Tensor]
    _before: dict[Key, Tensor] = field(repr=False)
    _after: dict[Key, tuple[int, int]] = field(repr=False)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Restore the weights before the merge.

        Raises ValueError, and changes nothing, if that is done already or the weights have been
        changed or moved since; the last merge must be undone first.
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
    """Merge LoRA files into a model's weights, each at a strength; an error changes nothing.

    Sums are in float32 or wider and rounded once. A copy of the changed weights is for `unmerge`.

    Args:
        model: a `Loaded`, or any object with config, text_encoder and unet. With offloading, the
            changed weights stay in memory.
        loras: (file, strength). The names may be those of kohya's trainer and LyCORIS (with block
            names of diffusers or the original), or of diffusers and peft; an adapter_config.json
            is read too.

    Warns:
        UserWarning: a file changes no weight, or has settings that are not read.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or of an unsupported kind, or its names or shapes are not
            those of this model.
    """
    require(len(loras) > 0, "loras", "at least one (file, strength)", "none")
    for path, strength in loras:
        valid = isinstance(strength, (int, float)) and abs(strength) < float("inf")
        require(valid, "loras", f"a finite strength for {path}", strength)
    weights = _weights(model)
    offload = getattr(model, "offload", None)
    with ExitStack() as stack:
        planned: dict[Key, list[tuple[Source, Update, float]]] = {}
        for path, strength in loras:
            source = stack.enter_context(formats.opened(Path(path)))
            for update in updates(source, model.config):
                _fits(source, update, weights[update.network, update.name])
                jobs = planned.setdefault((update.network, update.name), [])
                jobs.append((source, update, float(strength)))
        before, after = {}, {}
        idle = {source.path for jobs in planned.values() for source, _, _ in jobs}
        for key, jobs in planned.items():
            weight = weights[key] if offload is None else offload.read(*key)
            wide = torch.promote_types(weight.dtype, torch.float32)
            whole = weight.to(wide)
            total = whole.clone()
            for source, update, strength in jobs:
                change = strength * _change(source, update, whole)
                _finite(source, key, total.add_(change))
                if source.path in idle and not torch.equal((whole + change).to(weight), weight):
                    idle.remove(source.path)
            before[key], after[key] = weight.detach().clone(), total.to(weight.dtype)
            _finite(jobs[-1][0], key, after[key])
    for path in sorted(idle):
        warnings.warn(f"{path} changes no weight at its strength", stacklevel=2)
    for key, value in after.items():
        if offload is None:
            weights[key].copy_(value)
        else:
            weights[key] = offload.keep(*key, value)
    touched = {key: weights[key] for key in after}
    return Merged(touched, before, {key: _fingerprint(value) for key, value in touched.items()})


def _weights(model: Any) -> dict[Key, Tensor]:
    """The weights that a LoRA may change: those of linear layers and convolutions."""
    return {
        (kind, f"{name}.weight"): module.weight
        for kind in ("text_encoder", "unet")
        for name, module in getattr(model, kind).named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


def _finite(source: Source, key: Key, value: Tensor) -> None:
    """Raise ValueError, with the file, if a sum is not finite."""
    if not bool(value.isfinite().all()):
        raise checkpoint_error(source.path, f"{'.'.join(key)} is not finite after merging")


def _fits(source: Source, update: Update, weight: Tensor) -> None:
    """Raise ValueError unless the factors multiply to the weight's shape."""
    shapes = {role: source.entries[name].shape for role, name in update.factors.items()}
    for name in (*update.factors.values(), *(update.magnitude or ())[1:]):
        dtype = source.entries[name].dtype
        if not dtype.is_floating_point:
            raise checkpoint_error(source.path, f"{name} is of {dtype}, no floating-point numbers")
    wanted = tuple(weight.shape)
    try:
        product = update.kind.product(
            {role: torch.empty(shape, device="meta") for role, shape in shapes.items()}
        )
        flat = wanted[0], math.prod(wanted[1:])
        fits = _bare(product.shape) in (_bare(wanted), flat)
        fits = fits and all(0 not in shape for shape in shapes.values())
    except (RuntimeError, ValueError, IndexError):  # shapes that do not multiply
        fits = False
    if not fits:
        found = " and ".join(f"{role} {shape}" for role, shape in shapes.items())
        raise checkpoint_error(source.path, f"{update.stem} has {found}, for a weight {wanted}")
    if update.magnitude is not None:
        role, name = update.magnitude
        shape = source.entries[name].shape
        if magnitude_axes(role, shape, wanted) is None:
            raise checkpoint_error(source.path, f"{name} is {shape}, for a weight {wanted}")


def _bare(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without the axes of a 1 x 1 kernel."""
    return tuple(shape[:2]) if set(shape[2:]) == {1} else tuple(shape)


def _change(source: Source, update: Update, weight: Tensor) -> Tensor:
    """W' - W at strength 1, in the weight's shape and its dtype."""

    def fetch(name: str) -> Tensor:
        return source.fetch(name, None).to(weight)

    product = update.kind.product({role: fetch(name) for role, name in update.factors.items()})
    change = update.scale * product.reshape(weight.shape)
    if update.magnitude is None:
        return change
    role, name = update.magnitude
    axes = magnitude_axes(role, source.entries[name].shape, tuple(weight.shape))
    assert axes is not None
    return renormalised(weight + change, fetch(name), axes) - weight


def _fingerprint(weight: Tensor) -> tuple[int, int]:
    """Two sums over the bits of a weight, one weighted by place, modulo 2^64, to detect changes."""
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.itemsize]
    bits = weight.detach().flatten().view(words).long()
    places = torch.arange(1, len(bits) + 1, device=bits.device)
    return int(bits.sum()), int((bits * places).sum())
