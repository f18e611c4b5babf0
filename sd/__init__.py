"""Text to images by latent diffusion: the networks, the pipeline, the embedded world of shapes.

`TextToImage` is imported when it is first asked for: `sd.shapes` needs no torch.
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
