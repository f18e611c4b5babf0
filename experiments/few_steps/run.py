"""Runs the experiment: the same prompts by the guided and the distilled model, read."""

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from experiments.common.model import draw, load, shows
from experiments.common.model_options import Model
from experiments.common.statistics import paired_difference, share_of
from experiments.few_steps import Config, figures
from experiments.few_steps.measure import Outcome
from experiments.output.result import Heading, Measurement, Result, estimated
from sd.shapes import accuracy

SOLVER = "dpmpp_2m"
KINDS = {"seen": "pairs seen in training", "new": "pairs never seen together"}
"""The kinds of prompts, and what each is called."""
LEAST = 40
"""With fewer prompts of each kind there are too few samples."""


def run(config: Config) -> Result:
    """Sample by both models, read the images and compare."""
    guided, distilled = load(Model()), load(Model(weights="shapes-distilled"))
    prompts = {
        kind: accuracy.fresh_prompts(3, config.count, held_out=kind == "new") for kind in KINDS
    }
    ways = [
        (f"guided, {steps} steps", 2 * steps, guided, {"solver": SOLVER, "steps": steps})
        for steps in config.steps
    ]
    calls = distilled.config.sampling_steps
    ways.append(("distilled", calls, distilled, {}))
    with tqdm(total=len(ways) * 2 * config.count, unit="image", disable=None) as bar:
        found = [_outcome(config, prompts, bar, *way) for way in ways]
    *guided_ones, few = found
    best = guided_ones[-1]
    parts = (
        "The distilled model is trained to take one step where the guided model takes several, and "
        "to need no guidance. One network call is one image through the U-Net once; guidance makes "
        f"two a step. The guided model is sampled by `{SOLVER}`.",
        figures.accuracies(guided_ones, few, KINDS),
        Heading("Images"),
        figures.images([*[best, guided_ones[0]][: len(guided_ones)], few], prompts, KINDS),
    )
    data: dict[str, Any] = {
        "settings": config,
        "prompts": prompts,
        "right": [{"name": one.name, "calls": one.calls, **one.right} for one in found],
    }
    title = "Few network calls: the distilled model"
    return Result("few-steps", title, _rows(guided_ones, few), parts, data)


def _outcome(
    config: Config, prompts: dict[str, list[str]], bar: Any, name: str, calls: int,
    pipeline: Any, call: dict[str, Any],
) -> Outcome:  # fmt: skip
    images, right = {}, {}
    for kind, own in prompts.items():
        seeds = range(config.seed, config.seed + len(own))
        images[kind] = draw(pipeline, own, seeds, bar, **call)
        right[kind] = [bool(shows(*pair)) for pair in zip(images[kind], own, strict=True)]
    return Outcome(name, calls, images, right)


def _rows(guided: Sequence[Outcome], few: Outcome) -> tuple[Measurement, ...]:
    """The accuracy of each, and the differences from the guided model at few calls and at many."""
    rows = []
    count = len(few.right["seen"])
    beside = {"few-steps": guided[0], "few-steps-most": guided[-1]}
    for name, other in list(beside.items())[: len(guided)]:
        a, b = ([v for kind in KINDS for v in one.right[kind]] for one in (few, other))
        claim = (
            f"Difference of the prompt accuracy over {len(a)} fresh prompts: distilled with "
            f"{few.calls} network calls less guided with {other.calls}, same prompts and seeds"
        )
        gain = (sum(a) / len(a) - sum(b) / len(b), paired_difference(a, b))
        rows.append(
            estimated(name, f"{claim}, greater than 0", gain, more=0.0)
            if other.calls <= few.calls
            else estimated(name, claim, gain)
        )
    for one in (few, *guided):
        for kind, named in KINDS.items():
            short = one.name.replace(",", "").replace(" ", "-")
            claim = f"Prompt accuracy of {count} fresh prompts, {named}: {one.name}, "
            name = f"few-steps-{kind}-{short}"
            rows.append(estimated(name, f"{claim}{one.calls} calls", share_of(one.right[kind])))
    return tuple(row.needing(LEAST, count) for row in rows)
