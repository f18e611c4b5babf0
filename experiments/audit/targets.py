"""What can be audited by name, and the samplers and formulas of each."""

import importlib
import warnings
from pathlib import Path

from experiments.audit import user_file
from experiments.audit.formula import Formula
from experiments.audit.subject import Subject

SAMPLERS = ("ours", "ours-in-diffusers", "diffusers", "k-diffusion", "azula", "smalldiffusion")
FIELD = (
    "bayesflow",
    "bionemo-moco",
    "blackjax",
    "dalle2-pytorch",
    "deepinv",
    "denoising-diffusion-pytorch",
    "diffusers-training",
    "ema-pytorch",
    "flow-matching",
    "imagen-pytorch",
    "keras-hub",
    "monai",
    "nvidia-physicsnemo",
    "rectified-flow-pytorch",
    "sbi",
    "torchcfm",
    "torchebm",
)
TARGETS = (*SAMPLERS, *FIELD)
"""What can be named; its module in `experiments.audit.peers` has _ for -."""

ALL = "field"
"""The name of all of them together."""

MISSING = "is not installed: `make peers` installs what can be audited"


def subjects(target: str, quick: bool) -> list[Subject | Formula]:
    """What is audited of a target; ValueError where it is unknown or not installed."""
    if target not in TARGETS:
        return _own(target, quick)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries as they are imported
            module = f"experiments.audit.peers.{target.replace('-', '_')}"
            found = importlib.import_module(module).subjects(quick)
            return [one.brief() if quick and isinstance(one, Subject) else one for one in found]
    except ModuleNotFoundError as missing:
        raise ValueError(f"--target {target}: {missing.name} {MISSING}") from None


def _own(target: str, quick: bool) -> list[Subject | Formula]:
    """The samplers of a user's file."""
    path, _, name = target.rpartition(":")
    if not path or not name.isidentifier():
        file = target.removesuffix(":")
        if Path(file).is_file():
            raise ValueError(f"--target: wanted {file}:NAME, a name in that file, got {target}")
        wanted = f"{', '.join((*TARGETS, ALL))} or PATH:NAME"
        raise ValueError(f"--target: wanted {wanted}, got {target}")
    if not Path(path).is_file():
        raise ValueError(f"--target: there is no file {path}, got {target}")
    return [*user_file.subjects(Path(path), name, quick)]
