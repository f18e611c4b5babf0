"""What is measured of one model at one number of steps."""

from dataclasses import dataclass

from PIL.Image import Image


@dataclass(frozen=True)
class Outcome:
    """Images of some prompts.

    Attributes:
        name: of the model and its steps.
        calls: network calls for one image.
        images, right: of each kind of prompt, in its order.
    """

    name: str
    calls: int
    images: dict[str, list[Image]]
    right: dict[str, list[bool]]
