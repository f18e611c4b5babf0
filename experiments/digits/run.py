"""C19, C20, C27-C29 on real pixels: DDPM of 8 x 8 digits, trained from nothing in the run."""

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
from experiments.digits.training import Budget, bits, draw, last_error, learn
from experiments.output.result import Result

ARM_WIDTH, ARM_BLOCKS = 128, 2
"""The networks that compare the weights are no wider or deeper than this."""


def run(config: Config) -> Result:
    """Train, draw, write and compare."""
    seed = partial(seeded, config.seed)
    schedule = Discrete.linear()
    train, rest = digit_data.load(config.held_out, config.seed)
    machine = digit_data.classifier(train)
    names = (loss_weights.SIMPLE, loss_weights.BOUND, loss_weights.DRAWN)
    total = config.steps + len(names) * config.seeds * config.pair_steps
    with tqdm(total=total, unit="update", disable=None) as bar:
        started = perf_counter()
        budget = Budget(config.width, config.blocks, config.steps)
        network = learn(schedule, train, budget, config.seed, tick=bar.update)
        seconds = perf_counter() - started
        scales = sorted({0.0, 1.0, *config.scales})
        drawn = {
            w: draw(schedule, network, rest.labels, config.sampling, seed(2), w) for w in scales
        }
        shown = {w: draw(*_shown(schedule, network), config.sampling, seed(3), w) for w in scales}
        right = {w: digit_data.agrees(machine, x, rest.labels) for w, x in drawn.items()}
        real = digit_data.agrees(machine, rest.x, rest.labels)
        far = {w: energy_distance(x.double(), rest.x.double()) for w, x in drawn.items()}
        apart = digit_data.shuffled(train, len(rest.x), seed(5))
        plain = energy_distance(apart.double(), rest.x.double())
        floor = energy_distance(train.x.double(), rest.x.double())
        copied = digit_data.copies(train, rest, drawn[1.0])
        codes = _codes(config, schedule, network, train, rest)
        judge = loss_weights.Judge(schedule, rest, machine)
        width, blocks = min(config.width, ARM_WIDTH), min(config.blocks, ARM_BLOCKS)
        arm = Budget(width, blocks, config.pair_steps)
        outcomes = loss_weights.compare(
            judge, train, arm, config.seeds, names, bar.update, config.seed
        )

    rows = (
        *claims.agreement(right, real),
        *claims.distance(far, plain, floor, len(train.x), len(rest.x)),
        claims.copied(copied),
        *claims.code(codes),
        *claims.weight(outcomes, arm, loss_weights.effective_share(schedule)),
    )
    parts = (
        f"Scikit-learn's digits have 8 x 8 pixels of 17 levels. {len(train.x)} of the "
        f"{digit_data.COUNT} train everything here; {len(rest.x)}, drawn at random, judge it. The "
        f"network has {parameters(network)} numbers and was trained from nothing in "
        f"{seconds:.0f} s: {config.steps} updates of {budget.batch} digits, the label dropped from "
        "one in ten. T = 1000, DDPM's linear table.",
        figures.digits(train, shown),
        figures.guidance(right, far, real),
        figures.weights(outcomes),
        figures.codes(codes),
    )
    data: dict[str, Any] = {
        "settings": config,
        "parameters": parameters(network),
        "training_seconds": seconds,
        "agreement": {f"{w:g}": sum(one) / len(one) for w, one in right.items()},
        "energy_distance": {f"{w:g}": one.value for w, one in far.items()},
        "energy_distance_independent_pixels": plain.value,
        "energy_distance_train": floor.value,
        "bits_per_pixel": {name: each.mean().item() for name, each in codes.items()},
        "weights": outcomes,
    }
    return Result("digits", "Diffusion on real pixels", rows, parts, data)


def _shown(schedule: Any, network: Any) -> tuple[Any, Any, Tensor]:
    """To draw two of every class."""
    return schedule, network, torch.arange(10).repeat(2)


def _codes(config: Config, schedule: Any, network: Any, train: Any, rest: Any) -> dict[str, Tensor]:
    """Bits a pixel of every held-out digit, `(n,)`, by the network and by simple models."""

    seed = partial(seeded, config.seed)
    error = last_error(schedule, network, train, seed(6), LAST)
    steps = config.bound_steps
    chain = bits(schedule, network, rest, seed(7), steps, LAST, error)
    whole = bits(schedule, network, rest, seed(8), steps)
    bell = digit_data.normal(train, seed(4))
    return {
        f"diffusion, last step from t = {LAST}": chain.bits_per_dimension,
        "diffusion, last step from t = 1": whole.bits_per_dimension,
        "histogram of each pixel": digit_data.histogram_bits(train, rest),
        "one normal, spread over the bins": digit_data.normal_bits(bell, rest, seed(9)),
        "every level alike": torch.full((len(rest.x),), digit_data.uniform_bits()),
    }
