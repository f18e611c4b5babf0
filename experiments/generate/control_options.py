"""The flags of ControlNets: one value of each for every ControlNet, or one for all."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from experiments.common.model_options import NONE
from sd.command_line.flags import File, FlagError, Range, Several, Words, refuse, unused, validated

Kind: TypeAlias = Literal["given", "canny"]
Scale: TypeAlias = Annotated[float, Range(0, 100, above=True)]
Fraction: TypeAlias = Annotated[float, Range(0, 1)]
ANY = Several(distinct=False)


@validated
class Controls:
    """ControlNets, which condition the images on maps over the pixels."""

    control: Annotated[tuple[Literal["shapes"] | Path, ...], Several(0, distinct=False), NONE] = ()
    """ControlNets: the embedded one, or files, folders or hub ids of v1.x."""
    control_image: Annotated[tuple[Path, ...], File(), Several(0, distinct=False), NONE] = ()
    """One image for each `--control`."""
    control_map: Annotated[tuple[Kind, ...], ANY] = ("given",)
    """The map: the image itself, of the images' size, or its edges."""
    control_scale: Annotated[tuple[Scale, ...], ANY] = (1.0,)
    """The factor of each ControlNet's residuals."""
    control_start: Annotated[tuple[Fraction, ...], ANY] = (0.0,)
    """The fraction of the steps at which each begins to act."""
    control_end: Annotated[tuple[Fraction, ...], ANY] = (1.0,)
    """The fraction of the steps at which each ends."""

    def __post_init__(self) -> None:
        count, lists = len(self.control), ("map", "scale", "start", "end")
        if not count:
            unused(self, [f"control_{name}" for name in ("image", *lists)], "without --control")
            return
        if len(self.control_image) != count:
            refuse(self, "control_image", f"{count}, one for each --control")
        for name in (f"control_{one}" for one in lists):
            if len(getattr(self, name)) not in (1, count):
                wanted = f"1 for all or {count}" if count > 1 else "1"
                refuse(self, name, f"{wanted}, one for each --control")
        for path, kind in zip(self.control, self.each("map"), strict=True):
            if path == "shapes" and kind != "given":
                wanted = "given with --control shapes, whose map has classes"
                raise FlagError(f"--control-map: wanted {wanted}, got {kind}")
        for start, end in zip(self.each("start"), self.each("end"), strict=True):
            if not start < end:
                wanted = f"an end above its --control-start {start}"
                raise FlagError(f"--control-end: wanted {wanted}, got {end}")

    def each(self, name: str) -> tuple[object, ...]:
        """The values of `control_{name}`, one for each ControlNet."""
        values: tuple[object, ...] = getattr(self, f"control_{name}")
        return values * len(self.control) if len(values) == 1 else values


@validated
class Kept:
    """One ControlNet in the settings of an image: `image` is its map, `weights` a digest."""

    control: Annotated[str, Words()]
    image: Annotated[str, Words()]
    scale: Scale
    start: Fraction
    end: Fraction
    weights: Annotated[str, Words()]
