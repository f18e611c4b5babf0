"""All experiments in one illustrated report: report.md, report.html and report.json."""

from dataclasses import dataclass, field
from pathlib import Path

from experiments.common.model_options import Model
from experiments.common.sampling_options import Sampling
from sd.command_line.flags import check


@dataclass(frozen=True)
class Config:
    """Run every experiment and write one report that can be shown: HTML, Markdown and JSON.

    The default takes some minutes on two CPU cores. Open report.html; it needs no other file.
    """

    quick: bool = False
    """Few prompts, seeds and repeats: a check that all works, not a measurement."""
    out: Path = Path("out/report")
    """Folder for report.html, report.md, report.json and the single experiments' files."""
    model: Model = field(default_factory=Model)
    """Which model, and where it runs."""
    sampling: Sampling = field(default_factory=Sampling)
    """How the model samples."""

    def __post_init__(self) -> None:
        check(self)
