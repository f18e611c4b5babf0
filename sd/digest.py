"""A digest of a model's weights: the same digest and settings give the same image."""

import hashlib
from collections.abc import Iterable
from itertools import chain

from torch import Tensor, nn

from sd.pipeline import TextToImage

__all__ = ["model_digest", "weights_digest"]

DIGITS = 16
"""Hexadecimal digits of a digest."""


def model_digest(model: TextToImage) -> str:
    """The first 16 hexadecimal digits of SHA-256 over all names and weights (as float32).

    The weights are those after loading and merging, whatever engine runs them. A network that is no
    `nn.Module` does not count.
    """
    if model.digest is not None:
        return model.digest
    kinds = ("text_encoder", "vae", "unet")
    return weights_digest(chain.from_iterable(_weights(model, kind) for kind in kinds))


def weights_digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """The digest of named weights: see `model_digest`."""
    found = hashlib.sha256()
    for name, value in weights:
        found.update(name.encode())
        found.update(value.detach().float().cpu().contiguous().numpy().data)
    return found.hexdigest()[:DIGITS]


def _weights(model: TextToImage, kind: str) -> Iterable[tuple[str, Tensor]]:
    if model.offload is not None:
        return model.offload.weights(kind)
    network = getattr(model, kind)
    return network.state_dict().items() if isinstance(network, nn.Module) else ()
