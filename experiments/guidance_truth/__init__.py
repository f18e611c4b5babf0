"""What guidance samples: the law of guided flows against the tilted density, exactly."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from experiments.common.sampling_options import Interval
from sd.command_line.flags import Range, Several, check, refuse


@dataclass(frozen=True)
class Config:
    """What a guided flow samples, against p(x) p(c|x)^w that guidance is said to sample.

    Two classes on the line and in the plane; the class asked for has a mode near the other class
    and one far from it. All predictions are exact. The law of each variant of guidance comes from
    its probability flow by the change of volume, on nodes; nothing is sampled.
    """

    scales: Annotated[tuple[float, ...], Range(1, 20, above=True), Several()] = (
        1.5,
        3.0,
        5.0,
        7.5,
        10.0,
    )
    """Guidance scales w > 1; 0 and 1 are always among them, for `cfg`."""
    shown: Annotated[float, Range(1, 20, above=True)] = 7.5
    """The scale of the pictures and of the table, one of them."""
    interval: Interval = (0.3, 2.0)
    """Noise levels sigma/alpha between which the limited variant guides."""
    share: Annotated[float, Range(0, 1)] = 0.7
    """What the rescaled variant takes of the conditional's standard deviation, in [0, 1]."""
    longest: Annotated[float, Range(0, math.inf, above=True)] = math.inf
    """The longest update of the projected variant, in units of the data; inf for none."""
    ground: Annotated[float, Range(1, 100)] = 3.0
    """Strength of what all pictures have in common, for the rescaled and the projected variant."""
    nodes: Annotated[int, Range(16, 400)] = 44
    """Nodes a side of the plane, at least 16."""
    digits: Annotated[int, Range(3, 10)] = 4
    """The ODE's tolerance is 10^-digits; 3 to 10."""
    out: Path = Path("out/guidance-truth")
    """Folder for guidance-truth.md, guidance-truth.json and the figures."""

    def __post_init__(self) -> None:
        check(self)
        if self.shown not in self.scales:
            refuse(self, "shown", f"one of --scales {' '.join(map(str, self.scales))}")
