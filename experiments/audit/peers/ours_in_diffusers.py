"""diffusion_math's own samplers as a scheduler of diffusers, driven as pipelines drive it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from diffusion_math.solvers.registry import SOLVERS
from experiments.audit.peers.diffusers import LARGE
from experiments.audit.peers.diffusers_case import Case
from experiments.audit.peers.scheduler_driver import Driven
from experiments.audit.subject import Subject

LADDERS = {"trailing": (10, 20, 40, 100), "karras": (10, 20, 40, 80)}
"""Each grid that they are audited on, with the numbers of steps of the order's ladder. Those of
`trailing` divide 1000: PLMS has its order where steps are equal."""

MAIN = ("ddpm", "ddim", "heun")
"""Solvers of a quick audit."""

BIASED = "a Langevin move of a finite size keeps a bias, which falls with the steps"
LIMITS = {
    name: dict.fromkeys(("levels", "image-to-image"), why)
    for name, why in (("ddpm_large", LARGE), ("langevin_corrected", BIASED))
}


def before_each_start(scheduler: Any) -> list[int]:
    """The call before a step starts, and the last."""
    return [start - 1 for start in [*scheduler.starts[1:], len(scheduler.timesteps)]]


DRIVEN = Driven(
    reached=before_each_start, skip=lambda scheduler, skipped: int(skipped * scheduler.order)
)


def cases() -> Iterator[Case]:
    """All cases."""
    case = Case(
        "DiffusersScheduler", DRIVEN, 1, home="diffusion_math.interop", peer="ours_in_diffusers"
    )
    for grid, ladder in LADDERS.items():
        for name, solver in SOLVERS.items():
            if name != "adaptive":  # it has no list of times
                config = {"solver": name, "grid": grid}
                yield replace(
                    case,
                    order=solver.order,
                    config=config,
                    noisy=solver.noisy,
                    limits=LIMITS.get(name, {}),
                    main=grid == "karras",
                    ladder=ladder,
                )


def subjects(quick: bool) -> Iterator[Subject]:
    """The cases as the audit takes them."""
    for case in cases():
        if not quick or (case.main and case.config["solver"] in MAIN):
            yield case.subject()
