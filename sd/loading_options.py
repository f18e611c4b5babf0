"""The flags that say how a checkpoint is read."""

from pathlib import Path
from typing import Annotated, Literal

from sd.command_line.flags import File, default, validated

__all__ = ["LoadingOptions"]


@validated
class LoadingOptions:
    """How the checkpoint is read: the arguments of `sd.loading.load_model`."""

    tokenizer: Annotated[Path | None, File(folder=True), default("searched for")] = None
    """CLIP's tokenizer.json or its folder, for a single file."""
    vae: Annotated[Path | None, default("the model's")] = None
    """A VAE to use instead of the checkpoint's."""
    config: Annotated[Path | None, File(), default("what its files say")] = None
    """The checkpoint's configuration as JSON."""
    prediction: Annotated[
        Literal["epsilon", "v_prediction", "sample"] | None, default("what its files say")
    ] = None
    """What the checkpoint's U-Net predicts."""
    ema: bool = False
    """Use the averaged (EMA) weights of the U-Net in a single-file checkpoint."""
    variant: Annotated[str | None, default("none")] = None
    """Which files of a checkpoint's folder, such as fp16."""
