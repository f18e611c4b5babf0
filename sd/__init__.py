"""Latent diffusion from text to images: networks, pipeline, checkpoints, the embedded model.

`TextToImage` is imported at its first use, because `sd.shapes` needs no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sd.pipeline import TextToImage

__all__ = ["TextToImage"]


def __getattr__(name: str) -> Any:
    if name == "TextToImage":
        from sd.pipeline import TextToImage

        return TextToImage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
