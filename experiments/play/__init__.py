"""The playground: a local page to sample images, watch the plane and check a sampler."""

from dataclasses import field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from experiments.common.model_options import Model
from sd.command_line.flags import Range, validated


@validated
class Config:
    """Serve a page on 127.0.0.1 with three tabs: Image, Plane and Check. Ctrl-C ends it.

    The page is for this machine alone, and loads nothing from the network. Uploads and results lie
    in a temporary folder inside `--out`, which is removed at the end.
    """

    port: Annotated[int, Range(0, 65535)] = 7860
    """The port; 0 takes a free one."""
    preview_every: Annotated[int, Range(1, 1000)] = 1
    """Decode x0_hat after every so many steps."""
    run_pasted_code: bool = False
    """Run the code that is pasted into the tab Check. It has all of your rights."""
    out: Path = Path("out/play")
    """Folder for the temporary files."""
    model: Annotated[Model, arg(help="")] = field(default_factory=Model)
