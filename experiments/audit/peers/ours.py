"""diffusion_math's own samplers, on Stable Diffusion's schedule and on the rectified flow."""

from collections.abc import Iterator
from importlib.metadata import version

from diffusion_math.schedule import Discrete, RectifiedFlow
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.testing.sampler import Sampler, ours
from diffusion_math.testing.verdicts import Origin
from experiments.audit.subject import Subject, again

SCHEDULES = {"scaled_linear": Discrete.scaled_linear(), "RectifiedFlow": RectifiedFlow()}
"""Each schedule that they are audited on."""

MAIN = ("ddpm", "ddim", "heun", "dpmpp_3m", "dpmpp_2m_sde")
"""One of each kind, for a quick audit."""


def sampler(name: str, schedule: str) -> Sampler:
    """One of them on a schedule of `SCHEDULES`."""
    return ours(SCHEDULES[schedule], [name])[0]


def subjects(quick: bool) -> Iterator[Subject]:
    """Each sampler on each schedule, but `adaptive`, which chooses its own steps."""
    for schedule in ("RectifiedFlow",) if quick else SCHEDULES:
        who = Origin("diffusion_math", version("diffusion-math"), schedule)
        for name in MAIN if quick else SOLVERS:
            if name != "adaptive":
                yield Subject(sampler(name, schedule), who, again("ours", name, schedule))
