"""The exact distribution that guided flows sample, against the tilted density."""

import math
from pathlib import Path
from typing import Annotated, TypeAlias

from experiments.common.sampling_options import Interval
from sd.command_line.flags import Range, Several, refuse, validated

Scale: TypeAlias = Annotated[float, Range(1, 20, above=True)]


@validated
class Config:
    """Compare the distribution of guided flows with the tilted density p(x) p(c|x)^w.

    The test problems have two classes, on the line and in the plane. The class that guidance leads
    to has a mode near the other class and one far from it. All predictions are exact. The density
    of each guidance variant is computed on nodes, by the change of volume along its probability
    flow; nothing is sampled.
    """

    scales: Annotated[tuple[Scale, ...], Several()] = (1.5, 3.0, 5.0, 7.5, 10.0)
    """Guidance scales w > 1; plain CFG is also measured at 0 and 1."""
    shown: Scale = 7.5
    """The guidance scale of the density maps and the table, one of `--scales`."""
    interval: Interval = (0.3, 2.0)
    """Noise levels sigma/alpha between which the limited variant guides."""
    share: Annotated[float, Range(0, 1)] = 0.7
    """Rescaling factor phi of the rescaled variant, in [0, 1]."""
    longest: Annotated[float, Range(0, math.inf, above=True)] = math.inf
    """Norm threshold of the projected variant's update, in units of the data; inf for none."""
    ground: Annotated[float, Range(1, 100)] = 3.0
    """Strength of the pattern that all images share, for the rescaled and projected variants."""
    nodes: Annotated[int, Range(16, 400)] = 44
    """Nodes along each side of the plane, at least 16."""
    digits: Annotated[int, Range(3, 10)] = 4
    """The ODE solver's tolerance is 10^-digits; 3 to 10."""
    out: Path = Path("out/guidance-truth")
    """Folder for guidance-truth.md, guidance-truth.json and the figures."""

    def __post_init__(self) -> None:
        if self.shown not in self.scales:
            refuse(self, "shown", f"one of --scales {' '.join(map(str, self.scales))}")
