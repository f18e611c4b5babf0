"""The sections of the report: which experiments, at which settings."""

import importlib
from dataclasses import fields
from functools import lru_cache
from typing import Any

from experiments.common.model import load
from experiments.common.model_options import Model
from experiments.output.result import Result
from experiments.report import Config, model_sections
from sd.pipeline import TextToImage

QUICK: dict[str, dict[str, Any]] = {
    "cfg": {"scales": (), "count": 4, "shown": 3, "diversity_prompts": 2, "diversity_seeds": 2},
    "conditions": {"count": 2, "conflicts": 2, "digit_steps": 50},
    "strength": {"strengths": (0.3, 0.5, 0.7, 1.0), "seeds": 2},
    "timing": {"repeats": 3, "warmup": 1, "cold_start": False},
    "tradeoff": {
        "counts": (3, 6),
        "intervals": ((0.28, 2.9),),
        "pictures": 2,
        "compared": 2,
        "reference": 16,
        "judged": 4,
    },
    "few-steps": {"count": 4, "steps": (3, 6)},
    "autoencoder": {"count": 16},
    "forward": {"samples": 500, "frames": 4},
    "posterior": {"times": (500,), "steps": (1, 350), "points": 2, "samples": 4000, "curve": 2},
    "bound": {"steps": 20, "draws": 50, "finest": 8},
    "likelihood": {"points": 8, "digits": 8, "copies": 20, "probes": 4, "paths": 500, "steps": 4},
    "score-field": {"density": "ring", "times": (100, 1000), "samples": 300},
    "langevin": {"particles": 500, "budget": 40, "chains": 1000, "frames": 4},
    "reverse": {"steps": 30, "batch": 32, "width": 8, "walks": (2, 5), "samples": 100, "frames": 4},
    "densities": {"densities": ("ring", "funnel"), "samples": 2000},
    "errata": {"samples": 1000},
    "digits": {
        "steps": 20,
        "width": 16,
        "blocks": 1,
        "scales": (),
        "sampling": 5,
        "held_out": 40,
        "seeds": 2,
        "pair_steps": 10,
        "bound_steps": 5,
    },
    "families": {"steps": 50, "samples": 200},
    "guidance-truth": {"scales": (3.0,), "shown": 3.0, "nodes": 20, "digits": 3},
    "inpainting": {"steps": 8, "repeats": (5,), "particles": (16,), "samples": 2048},
    "audit": {"quick": True, "samplers": ("ddim", "ddpm")},
}
"""What makes each of the experiments quick."""

SHORTER: dict[str, dict[str, Any]] = {
    "cfg": {"swept": 24},
    "conditions": {"conflicts": 20, "digit_steps": 600},
    "tradeoff": {"counts": (4, 8, 14, 25), "reference": 60},
    "few-steps": {"count": 40, "steps": (3, 6, 12)},
    "audit": {"quick": True},
    "reverse": {"steps": 1500},
    "digits": {"steps": 1500, "seeds": 4, "pair_steps": 500, "bound_steps": 100},
    "families": {"steps": 3000},
}
"""What the report does for less time than the experiment on its own."""

SECONDS: dict[str, float] = {
    "pictures": 2, "cfg": 110, "conditions": 55, "strength": 10, "timing": 26, "tradeoff": 89,
    "few-steps": 20, "autoencoder": 5,
    "forward": 4, "posterior": 5, "bound": 23, "likelihood": 17, "score-field": 4,
    "langevin": 13, "reverse": 29, "densities": 11, "errata": 6, "digits": 69, "families": 37,
    "guidance-truth": 38, "inpainting": 14, "audit": 43, "weights": 1,
}  # fmt: skip
"""The sections in the report's order, and about how many seconds each takes on one core: the
longest start first."""

ALONE = "timing"
"""The section that has the machine to itself, because it measures time."""


def make(name: str, config: Config) -> Result:
    """The section of this name."""
    if name == "pictures":
        prompts = model_sections.PROMPTS[: 4 if config.quick else None]
        return model_sections.pictures(config.model, _loaded(config.model), prompts)
    if name == "weights":
        return model_sections.weights(config.model)
    module = importlib.import_module(f"experiments.{name.replace('-', '_')}.run")
    taken = {field.name for field in fields(module.Config)}
    # `digits` has a `sampling` of its own: a number of steps.
    ours = {"model", "sampling"} & taken if "model" in taken else ()
    shared = {one: getattr(config, one) for one in ours}
    settings = module.Config(**shared, **(QUICK if config.quick else SHORTER).get(name, {}))
    loaded = [_loaded(config.model)] if ours and name != ALONE else []  # it loads its own
    result: Result = module.run(settings, *loaded)
    return result


@lru_cache(maxsize=1)
def _loaded(model: Model) -> TextToImage:
    """The model, loaded once in a process."""
    return load(model)
