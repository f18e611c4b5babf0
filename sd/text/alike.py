"""Prompts of unlike lengths in one call: each is denoised as it would be alone.

A prompt of more rows than another makes a longer context. Empty rows beside a shorter prompt would
change its image, since the U-Net attends to them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from sd.config import LongPrompt
from sd.text.conditioning import rows
from sd.text.tokenizer import Tokenizer

__all__ = ["alike", "apart"]


def alike(
    tokenizer: Tokenizer, negative: str, prompts: Sequence[str], long: LongPrompt
) -> list[list[int]]:
    """The places of the prompts, in groups with as many rows, at least those of the negative one.

    A group needs no empty rows for another prompt's sake, so that no prompt depends on the others.
    """
    least, groups = len(rows(tokenizer, negative, long).tokens), dict[int, list[int]]()
    for place, prompt in enumerate(prompts):
        own = len(rows(tokenizer, prompt, long).tokens)
        groups.setdefault(max(own, least), []).append(place)
    return list(groups.values())


def apart(
    groups: Sequence[Sequence[int]], denoisers: Sequence[Denoiser], device: torch.device
) -> Denoiser:
    """Each denoiser for its own rows of x_t."""
    if len(groups) == 1:
        return denoisers[0]
    places = [torch.tensor(group, device=device) for group in groups]
    back = torch.cat(places).argsort()

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        parts = zip(denoisers, places, strict=True)
        x0 = [one(x_t[rows], t if t.ndim == 0 else t[rows]) for one, rows in parts]
        return torch.cat(x0)[back]

    return denoise
