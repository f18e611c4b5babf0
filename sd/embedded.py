"""The embedded models of captioned shapes: their names, and the file of each one's U-Net."""

from typing import Literal, TypeAlias

__all__ = ["UNETS", "Embedded", "is_embedded"]

Embedded: TypeAlias = Literal["shapes", "shapes-distilled"]
UNETS: dict[str, str] = {"shapes": "unet", "shapes-distilled": "distilled"}


def is_embedded(name: object) -> bool:
    """Whether this is the name of an embedded model, not a path."""
    return isinstance(name, str) and name in UNETS
