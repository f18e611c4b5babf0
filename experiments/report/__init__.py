"""All experiments in one illustrated report: report.md, report.html and report.json."""

from pathlib import Path
from typing import Annotated

from experiments.common.model_options import Model
from experiments.common.sampling_options import Sampling
from sd.command_line.flags import Range, validated


@validated
class Config:
    """Run every experiment and write one report: HTML, Markdown and JSON.

    The default takes about five minutes on two CPU cores. The report is written after each
    experiment, so report.html can be opened at once; it shows the images beside it in the folder.
    """

    quick: bool = False
    """Few prompts, seeds and repeats: a check that all works, not a measurement."""
    out: Path = Path("out/report")
    """Folder for report.html, report.md, report.json and the single experiments' files."""
    workers: Annotated[int, Range(0, 1024)] = 0
    """Experiments at work side by side, each in a process; 0 for one on each core, or for one at
    a time where the model is not the embedded one."""
    model: Model = Model()
    sampling: Sampling = Sampling()
