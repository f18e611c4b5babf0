"""Runs the experiment: trains on digits, samples, and evaluates on held-out digits."""

import math
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_math.metrics import energy_distance
from diffusion_math.schedule import Discrete
from experiments.common.networks import parameters
from experiments.common.statistics import seeded
from experiments.digits import Config, claims, figures, loss_weights
from experiments.digits import data as digit_data
from experiments.digits.claims import LAST
from experiments.digits.training import Budget, bits, last_error, learn, sample
from experiments.output.result import Heading, Result

EXAMPLES = 50_000
"""With fewer examples in its training a network shows nothing of what it can learn."""
ARM_WIDTH, ARM_BLOCKS = 128, 2
"""The networks that compare the weights are no wider or deeper than this."""


def run(config: Config) -> Result:
    """Train, sample, evaluate the bound and compare."""
    seed = partial(seeded, config.seed)
    schedule = Discrete.linear()
    train, test = digit_data.load(config.held_out, config.seed)
    classifier = digit_data.classifier(train)
    names = (loss_weights.SIMPLE, loss_weights.BOUND, loss_weights.DRAWN)
    total = config.steps + len(names) * config.seeds * config.pair_steps
    with tqdm(total=total, unit="update", disable=None) as bar:
        started = perf_counter()
        budget = Budget(*config.size, config.steps, unet=config.unet)
        seen = digit_data.enlarged(train, config.side)
        network = learn(schedule, seen, budget, config.seed, tick=bar.update)
        seconds = perf_counter() - started
        scales = sorted({0.0, 1.0, *config.scales})

        def drawn(labels: Tensor, k: int) -> dict[float, Tensor]:
            """Samples with the noise of the k-th seed at every scale, as 8 x 8 digits."""
            one = partial(sample, schedule, network, labels, config.sampling)
            return {w: digit_data.reduced(one(seed(k), w)) for w in scales}

        samples, shown = drawn(test.labels, 2), drawn(torch.arange(10).repeat(2), 3)
        right = {w: digit_data.agrees(classifier, x, test.labels) for w, x in samples.items()}
        real = digit_data.agrees(classifier, test.x, test.labels)
        distances = {w: energy_distance(x.double(), test.x.double()) for w, x in samples.items()}
        independent = digit_data.shuffled(train, len(test.x), seed(5))
        plain = energy_distance(independent.double(), test.x.double())
        floor = energy_distance(train.x.double(), test.x.double())
        copied = digit_data.copies(train, test, samples[1.0])
        codes = _codes(config, schedule, network, train, test)
        evaluate = loss_weights.Evaluator(schedule, test, classifier)
        width, blocks = (ARM_WIDTH, ARM_BLOCKS) if config.unet else config.size
        arm = Budget(min(width, ARM_WIDTH), min(blocks, ARM_BLOCKS), config.pair_steps)
        outcomes = loss_weights.compare(
            evaluate, train, arm, config.seeds, names, bar.update, config.seed
        )

    found = (
        *claims.agreement(right, real),
        *claims.distance(distances, plain, floor, len(train.x), len(test.x)),
        claims.copied(copied),
        *claims.code(codes),
        *claims.weight(outcomes, arm, loss_weights.effective_share(schedule)),
    )
    examples = min(config.steps, config.pair_steps) * budget.batch
    rows = tuple(row.needing(EXAMPLES, examples) for row in found)
    parts = (
        f"Scikit-learn's digits have 8 x 8 pixels of 17 levels. {len(train.x)} of the "
        f"{digit_data.COUNT} are training data; {len(test.x)}, chosen at random, are held out. "
        f"{_described(config)} has {parameters(network)} parameters and was trained in the run in "
        f"{seconds:.0f} s: {config.steps} steps of {budget.batch} digits, the label dropped from "
        "one in ten. T = 1000, DDPM's linear beta schedule.",
        figures.digits(train, shown),
        Heading("Guidance scale"),
        figures.guidance(right, distances, real),
        Heading("Weight of the loss"),
        figures.weights(outcomes),
        Heading("Bits a pixel"),
        figures.codes(codes),
    )
    data: dict[str, Any] = {
        "settings": config,
        "parameters": parameters(network),
        "training_seconds": seconds,
        "agreement": {f"{w:g}": sum(one) / len(one) for w, one in right.items()},
        "energy_distance": {f"{w:g}": one.value for w, one in distances.items()},
        "energy_distance_independent_pixels": plain.value,
        "energy_distance_train": floor.value,
        "bits_per_pixel": {name: each.mean().item() for name, each in codes.items()},
        "weights": outcomes,
    }
    return Result("digits", "Diffusion on real pixels", rows, parts, data)


def _described(config: Config) -> str:
    """The network, and the pixels that it sees."""
    if not config.unet:
        return "The network"
    pixels = f"{config.side} x {config.side} pixels"
    repeated = " (each of the 8 x 8 repeated)" if config.side > digit_data.SIDE else ""
    return f"The U-Net of `sd`, with the label's embedding, on {pixels}{repeated},"


def _codes(config: Config, schedule: Any, network: Any, train: Any, test: Any) -> dict[str, Tensor]:
    """Bits a pixel of every held-out digit, `(n,)`, by the network and by simple models."""
    seed = partial(seeded, config.seed)
    seen, judged = (digit_data.enlarged(one, config.side) for one in (train, test))
    error = last_error(schedule, network, seen, seed(6), LAST)
    chain = bits(schedule, network, judged, seed(7), config.bound_steps, LAST, error)
    whole = bits(schedule, network, judged, seed(8), config.bound_steps)
    # The enlarged digit determines the digit: its bits, over the digit's own pixels, are a bound.
    more = (config.side / digit_data.SIDE) ** 2
    bell = digit_data.normal(train, seed(4))
    return {
        f"diffusion, last step from t = {LAST}": more * chain.bits_per_dimension,
        "diffusion, last step from t = 1": more * whole.bits_per_dimension,
        "histogram of each pixel": digit_data.histogram_bits(train, test),
        "one normal, spread over the bins": digit_data.normal_bits(bell, test, seed(9)),
        "every level alike": torch.full((len(test.x),), math.log2(digit_data.LEVELS)),
    }
