"""C19, C20, C27-C29 on real pixels: DDPM of 8 x 8 digits, trained from nothing in the run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from experiments.results import Result
from experiments.sampling import Scale
from sd.flags import Range, Seed, Several, check

if TYPE_CHECKING:
    from torch import Tensor

ARM_WIDTH, ARM_BLOCKS = 128, 2
"""The networks that compare the weights are no wider or deeper than this."""


@dataclass(frozen=True)
class Config:
    """DDPM on scikit-learn's 8 x 8 digits, with classes and guidance, against held-out digits.

    One network of pixels, time and label is trained with its label dropped at random (C19, C27,
    C28), sampled with guidance (C20, C29), asked for the bound on held-out digits (C14, C15), and
    judged by a classifier that was trained on real digits alone. Then several small networks are
    trained with the simple weight and with the bound's own, seed by seed (C19). Needs
    scikit-learn: pip install "diffusion-math[digits]".
    """

    steps: Annotated[int, Range(1, 10**7)] = 3000
    """Updates of the network, at least 1."""
    width: Annotated[int, Range(4, 8192)] = 256
    """Its width, at least 4."""
    blocks: Annotated[int, Range(1, 100)] = 3
    """Its residual layers, at least 1."""
    scales: Annotated[tuple[Scale, ...], Several(0)] = (0.0, 1.0, 2.0, 3.0)
    """Guidance scales; 0 and 1 are always among them."""
    sampling: Annotated[int, Range(1, 1000)] = 100
    """Steps of ancestral sampling, 1 to 1000."""
    held_out: Annotated[int, Range(20, 1697)] = 500
    """Digits that no training sees, 20 to 1697."""
    seeds: Annotated[int, Range(2, 1000)] = 5
    """Pairs of networks that compare the two weights, at least 2."""
    pair_steps: Annotated[int, Range(1, 10**7)] = 1000
    """Updates of each of them, at least 1."""
    bound_steps: Annotated[int, Range(1, 900)] = 320
    """Steps of the chain of the bound, 1 to 900."""
    seed: Seed = 0
    """Of the split, weights, noise and draws."""
    out: Path = Path("out/digits")
    """Folder for digits.md, digits.json and the figures."""

    def __post_init__(self) -> None:
        check(self)


def run(config: Config) -> Result:
    """Train, draw, write and compare."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        wanted = 'wanted scikit-learn: pip install "diffusion-math[digits]"'
        raise ValueError(f"digits: {wanted}") from error
    from time import perf_counter

    import torch
    from tqdm import tqdm

    from diffusion_math.metrics import energy_distance
    from diffusion_math.schedule import Discrete
    from experiments import digit_data, digit_figures, digit_rows, weighting
    from experiments.digit_learning import Budget, draw, learn
    from experiments.learning import parameters

    def seeded(part: int) -> torch.Generator:
        return torch.Generator().manual_seed(config.seed + part)

    schedule = Discrete.linear()
    train, rest = digit_data.load(config.held_out, config.seed)
    machine = digit_data.classifier(train)
    names = (weighting.SIMPLE, weighting.BOUND, weighting.DRAWN)
    total = config.steps + len(names) * config.seeds * config.pair_steps
    with tqdm(total=total, unit="update", disable=None) as bar:
        started = perf_counter()
        budget = Budget(config.width, config.blocks, config.steps)
        network = learn(schedule, train, budget, config.seed, tick=bar.update)
        seconds = perf_counter() - started
        scales = sorted({0.0, 1.0, *config.scales})
        drawn = {
            w: draw(schedule, network, rest.labels, config.sampling, seeded(2), w) for w in scales
        }
        shown = {w: draw(*_shown(schedule, network), config.sampling, seeded(3), w) for w in scales}
        right = {w: digit_data.agrees(machine, x, rest.labels) for w, x in drawn.items()}
        real = digit_data.agrees(machine, rest.x, rest.labels)
        far = {w: energy_distance(x.double(), rest.x.double()) for w, x in drawn.items()}
        apart = digit_data.shuffled(train, len(rest.x), seeded(5))
        plain = energy_distance(apart.double(), rest.x.double())
        floor = energy_distance(train.x.double(), rest.x.double())
        copied = digit_data.copies(train, rest, drawn[1.0])
        codes = _codes(config, schedule, network, train, rest)
        judge = weighting.Judge(schedule, rest, machine)
        width, blocks = min(config.width, ARM_WIDTH), min(config.blocks, ARM_BLOCKS)
        arm = Budget(width, blocks, config.pair_steps)
        outcomes = weighting.compare(
            judge, train, arm, config.seeds, names, bar.update, config.seed
        )

    rows = (
        *digit_rows.agreement(right, real),
        *digit_rows.distance(far, plain, floor, len(train.x), len(rest.x)),
        digit_rows.copied(copied),
        *digit_rows.code(codes),
        *digit_rows.weight(outcomes, arm, weighting.effective_share(schedule)),
    )
    parts = (
        f"Scikit-learn's digits have 8 x 8 pixels of 17 levels. {len(train.x)} of the "
        f"{digit_data.COUNT} train everything here; {len(rest.x)}, drawn at random, judge it. The "
        f"network has {parameters(network)} numbers and was trained from nothing in "
        f"{seconds:.0f} s: {config.steps} updates of {budget.batch} digits, the label dropped from "
        "one in ten. T = 1000, DDPM's linear table.",
        digit_figures.digits(train, shown),
        digit_figures.guidance(right, far, real),
        digit_figures.weights(outcomes),
        digit_figures.codes(codes),
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


def _shown(schedule: Any, network: Any) -> tuple[Any, Any, "Tensor"]:
    """To draw two of every class."""
    import torch

    return schedule, network, torch.arange(10).repeat(2)


def _codes(
    config: Config, schedule: Any, network: Any, train: Any, rest: Any
) -> "dict[str, Tensor]":
    """Bits a pixel of every held-out digit, `(n,)`, by the network and by simple models."""
    import torch

    from experiments import digit_data
    from experiments.digit_learning import bits, last_error
    from experiments.digit_rows import LAST

    def seeded(part: int) -> torch.Generator:
        return torch.Generator().manual_seed(config.seed + part)

    error = last_error(schedule, network, train, seeded(6), LAST)
    steps = config.bound_steps
    chain = bits(schedule, network, rest, seeded(7), steps, LAST, error)
    whole = bits(schedule, network, rest, seeded(8), steps)
    bell = digit_data.normal(train, seeded(4))
    return {
        f"diffusion, last step from t = {LAST}": chain.bits_per_dimension,
        "diffusion, last step from t = 1": whole.bits_per_dimension,
        "histogram of each pixel": digit_data.histogram_bits(train, rest),
        "one normal, spread over the bins": digit_data.normal_bits(bell, rest, seeded(9)),
        "every level alike": torch.full((len(rest.x),), digit_data.uniform_bits()),
    }
