"""diffusion_math's own samplers, on Stable Diffusion's schedule and on the rectified flow."""

from collections.abc import Iterator
from importlib.metadata import version

from diffusion_math.schedule import Discrete, RectifiedFlow
from diffusion_math.testing.sampler import ours
from diffusion_math.testing.verdicts import Origin
from experiments.audit.subject import Subject


def subjects(quick: bool) -> Iterator[Subject]:
    """Each sampler on each schedule, but `adaptive`, which chooses its own steps."""
    schedules = {"scaled_linear": Discrete.scaled_linear(), "RectifiedFlow": RectifiedFlow()}
    for name, schedule in list(schedules.items())[: 1 if quick else None]:
        for sampler in ours(schedule):
            if sampler.name != "adaptive":
                yield Subject(sampler, Origin("diffusion_math", version("diffusion-math"), name))
