"""A model's digest: images of one digest and of one setting are the same image."""

import hashlib
from collections.abc import Iterable
from itertools import chain

from torch import Tensor, nn

from sd.pipeline import TextToImage

__all__ = ["model_digest", "weights_digest"]

DIGITS = 16


def model_digest(model: TextToImage) -> str:
    """SHA-256 over the names of all weights and their numbers as float32: its first digits in hex.

    It is that of the weights as they were loaded and changed, whatever engine runs them. What is
    no module has none.
    """
    if model.digest is not None:
        return model.digest
    kinds = ("text_encoder", "vae", "unet")
    return weights_digest(chain.from_iterable(_weights(model, kind) for kind in kinds))


def weights_digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """The same over named weights."""
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
