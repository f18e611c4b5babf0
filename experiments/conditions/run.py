"""Runs the experiment: images with maps, without them, and with maps that contradict the prompt."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from diffusion_math.schedule import Discrete
from experiments.common.model import load
from experiments.common.model_options import Model
from experiments.common.statistics import (
    median_interval,
    paired_difference,
    seeded,
    share_of,
    share_of_groups,
)
from experiments.conditions import Config, figures, measure
from experiments.conditions.measure import Outcome
from experiments.digits import data as digit_data
from experiments.digits.training import Budget, learn, sample
from experiments.output.result import Heading, Measurement, Result, estimated
from sd.checkpoint import load_controlnet
from sd.checkpoint.network import EMBEDDED
from sd.shapes.placement import NEAR

PLACED = 0.9
"""Least share of things in their places."""
LEAST = 40
"""With fewer scenes the verdict is "too few samples"."""
SHOWN = 5
"""Images of each kind in a figure."""
SHAPES, NUMBER = "other shapes", "another number of things"


def run(config: Config) -> Result:
    """Sample, read the images and compare."""
    pipeline = load(Model())
    network = load_controlnet(EMBEDDED, dtype=pipeline.dtype, device=pipeline.device)
    cases = measure.agreeing(config.count)
    contrary = {
        SHAPES: [measure.other_shapes(case) for case in cases[: config.conflicts]],
        NUMBER: [measure.other_number(case) for case in cases[: config.conflicts]],
    }
    digits = _digits(config.digit_steps)
    total = 2 * config.count + 2 * config.conflicts
    with tqdm(total=total, unit="image", disable=None) as bar:
        mapped = measure.mapped(pipeline, network, cases, bar)
        plain = measure.plain(pipeline, cases, bar)
        found = {
            name: measure.mapped(pipeline, network, some, bar) for name, some in contrary.items()
        }
    parts = (
        "A condition is a number (a class), a text, or a map over the pixels. The embedded "
        "ControlNet reads a map of classes, which says what shape is where; colors, and the "
        "background's, are left to the prompt. It was trained with the U-Net frozen.",
        figures.kinds(digits, plain, mapped, cases),
        Heading("Positions"),
        figures.distances({"with the map": mapped, "without the map": plain, **_named(found)}),
        Heading("Prompt and map in conflict"),
        figures.conflicts({k: (contrary[k], found[k]) for k in found}, SHOWN),
        figures.winners(found),
    )
    data: dict[str, Any] = {
        "settings": config,
        "prompts": [case.prompt for case in cases],
        "distances_with_map": [one.errors for one in mapped],
        "distances_without_map": [one.errors for one in plain],
        "right_with_map": [one.prompt for one in mapped],
        "right_without_map": [one.prompt for one in plain],
        "conflicts": {
            name: [
                {"prompt": case.prompt, "shows_prompt": one.prompt, "shows_map": one.map}
                for case, one in zip(contrary[name], outcomes, strict=True)
            ]
            for name, outcomes in found.items()
        },
    }
    title = "Conditions: a class, a text, a map over the pixels"
    return Result("conditions", title, _rows(mapped, plain, found), parts, data)


def _named(found: dict[str, list[Outcome]]) -> dict[str, list[Outcome]]:
    return {f"with the map; the prompt names {name}": one for name, one in found.items()}


def _rows(
    mapped: Sequence[Outcome], plain: Sequence[Outcome], found: dict[str, list[Outcome]]
) -> tuple[Measurement, ...]:
    placed = [one.placed for one in mapped]
    things = sum(map(len, placed))
    errors = [error for one in mapped for error in one.errors if math.isfinite(error)]
    right, before = ([one.prompt for one in each] for each in (mapped, plain))
    gain = sum(right) / len(right) - sum(before) / len(before)
    rows = [
        estimated(
            "conditions",
            f"C27: with a class-index map, share of {things} things whose centroid is within "
            f"{NEAR:g} pixels (of 64) of the map's, at least {PLACED:g}",
            share_of_groups(placed),
            least=PLACED,
        ),
        *(
            estimated(f"conditions-{name}", f"{claim} over {len(errors)} things", value)
            for name, claim, value in _distances(errors)
        ),
        estimated(
            "conditions-placed-without",
            f"The same share of {things} things without the map",
            share_of_groups([one.placed for one in plain]),
        ),
        estimated(
            "conditions-accuracy",
            f"Prompt accuracy of {len(right)} fresh prompts with the map",
            share_of(right),
        ),
        estimated(
            "conditions-accuracy-without",
            "Prompt accuracy of the same prompts and seeds without the map",
            share_of(before),
        ),
        estimated(
            "conditions-gain",
            "Difference of the two: the map does not lower the prompt accuracy, at least 0",
            (gain, paired_difference(right, before)),
            least=0.0,
        ),
    ]
    for name, short in ((SHAPES, "shapes"), (NUMBER, "number")):
        for what, verdicts in (
            ("map", [one.map for one in found[name]]),
            ("prompt", [one.prompt for one in found[name]]),
        ):
            claim = f"Share of {len(verdicts)} images that show the {what}; the prompt names {name}"
            rows.append(estimated(f"conditions-{short}-{what}", claim, share_of(verdicts)))
    return tuple(row.needing(LEAST, len(right)) for row in rows)


def _distances(
    errors: Sequence[float],
) -> list[tuple[str, str, float | tuple[float, tuple[float, float]]]]:
    """Median and largest distance of the things of images with as many things as the map has."""
    if not errors:
        return []
    where = "distance in pixels of a thing from its place, in images of the map's number of things,"
    return [
        ("median", f"Median {where}", median_interval(errors)),
        ("largest", f"Largest {where}", max(errors)),
    ]


def _digits(steps: int) -> list[Image.Image]:
    """A digit of each of the first classes, by a network trained here."""
    schedule = Discrete.linear()
    train, _ = digit_data.load(20, 0)
    network = learn(schedule, train, Budget(128, 2, steps), 0)
    labels = torch.arange(SHOWN)
    found = sample(schedule, network, labels, 100, seeded(0, 1), 2.0)
    return [Image.fromarray(digit_data.image(one)) for one in found]
