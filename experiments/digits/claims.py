"""The rows of the experiment `digits`: what is claimed of the digits, measured, and concluded."""

from collections.abc import Sequence
from statistics import fmean

from torch import Tensor

from diffusion_math.metrics import Estimate
from experiments.common.statistics import (
    difference,
    mean_interval,
    normal_interval,
    paired_difference,
    wilson,
)
from experiments.digits.loss_weights import BOUND, DRAWN, SIMPLE, Outcome
from experiments.digits.training import Budget
from experiments.output.result import (
    MEASURED,
    Measurement,
    above,
    at_least,
    at_most,
)

LAST = 40
"""Where the bound's chain leaves for 0: there the noise is about as wide as a level's bin."""


def agreement(right: dict[float, list[bool]], real: list[bool]) -> tuple[Measurement, ...]:
    count = len(real)

    def share(seen: list[bool]) -> tuple[float, tuple[float, float]]:
        return sum(seen) / len(seen), wilson(sum(seen), len(seen))

    conditional, interval = share(right[1.0])
    rows = [
        Measurement(
            "digits",
            f"C27: digits drawn with label and no guidance are read as that label by a classifier "
            f"trained on real digits alone; share of {count}, at least 0.9",
            conditional,
            interval,
            at_least(*interval, 0.9),
        ),
        Measurement(
            "digits-real", f"The same of {count} held-out real digits", *share(real), MEASURED
        ),
    ]
    for w, seen in right.items():
        if w == 0:
            found, ends = share(seen)
            claim = "C28, C29: at w = 0 the same network draws without the label: share, at most"
            rows.append(
                Measurement("digits-free", f"{claim} 0.2", found, ends, at_most(*ends, 0.2))
            )
        elif w != 1:
            gap, ends = (sum(seen) - sum(right[1.0])) / count, paired_difference(seen, right[1.0])
            claim = f"C29: share at w = {w:g} less that at w = 1, the same noise: not lower by 0.02"
            rows.append(
                Measurement(f"digits-guided-{w:g}", claim, gap, ends, at_least(*ends, -0.02))
            )
    return tuple(rows)


def distance(
    distances: dict[float, Estimate], plain: Estimate, floor: Estimate, trained: int, count: int
) -> tuple[Measurement, ...]:
    gap, ends = difference(plain, distances[1.0])
    found = [
        Measurement(
            "digits-distance",
            f"C20: by how much nearer to the held-out digits {count} draws at w = 1 are, in energy "
            "distance, than samples of independent pixels with the digits' histograms, above 0",
            gap,
            ends,
            above(*ends, 0.0),
        )
    ]
    for name, one, what in (
        (
            "digits-distance-0",
            distances[0.0],
            f"{count} draws at w = 0, from the network without label",
        ),
        ("digits-distance-1", distances[1.0], f"{count} draws at w = 1"),
        ("digits-distance-pixels", plain, "samples of independent pixels"),
        ("digits-distance-real", floor, f"the {trained} digits of the training"),
    ):
        claim = f"Squared energy distance of {what} from the held-out digits, pixels in [-1, 1]"
        found.append(Measurement(name, claim, one.value, normal_interval(*one), MEASURED))
    return tuple(found)


def copied(gap: list[bool]) -> Measurement:
    """Are the samples copies of training digits?"""
    right = sum(gap)
    return Measurement(
        "digits-copies",
        "Share of draws nearer to a training digit than 95% of held-out digits are; 0.05 for fresh "
        "digits, 1 for copies",
        right / len(gap),
        wilson(right, len(gap)),
        MEASURED,
    )


def code(codes: dict[str, Tensor]) -> tuple[Measurement, ...]:
    ours, whole, histogram, normal, _ = codes.values()
    saved = (histogram - ours).tolist()
    ends = mean_interval(saved)
    return (
        Measurement(
            "digits-bits",
            f"C13, C15: bound on the bits a pixel of {len(ours)} held-out digits given their "
            f"label, 17 levels, last step from t = {LAST}",
            ours.mean().item(),
            mean_interval(ours.tolist()),
            MEASURED,
        ),
        Measurement(
            "digits-bits-saved",
            "By how much that is less than with a histogram of each pixel, digit by digit, above 0",
            fmean(saved),
            ends,
            above(*ends, 0.0),
        ),
        *(
            Measurement(f"digits-bits-{name}", what, fmean(each), mean_interval(each), MEASURED)
            for name, what, each in (
                ("fine", "The bound where the last step leaves from t = 1", whole.tolist()),
                ("histogram", "Bits a pixel with a histogram of each", histogram.tolist()),
                ("normal", "Bits a pixel with one normal over the bins", normal.tolist()),
            )
        ),
    )


def weight(
    outcomes: dict[str, list[Outcome]], budget: Budget, share: float
) -> tuple[Measurement, ...]:
    """C19: the simple weight against the bound's own, in pairs of one seed."""
    simple, lambda_t, samples = (outcomes[name] for name in (SIMPLE, BOUND, DRAWN))
    how = f"{len(simple)} pairs of networks, {budget.steps} updates each"

    def row(
        name: str, claim: str, first: Sequence[float], second: Sequence[float], bound: bool
    ) -> Measurement:
        gaps = [a - b for a, b in zip(first, second, strict=True)]
        ends = mean_interval(gaps)
        verdict = above(*ends, 0.0) if bound else MEASURED
        return Measurement(name, claim, fmean(gaps), ends, verdict)

    def energies(one: list[Outcome]) -> list[float]:
        return [each.energy for each in one]

    def shares(one: list[Outcome]) -> list[float]:
        return [each.agreement for each in one]

    return (
        row(
            "digits-simple",
            f"C19: by how much farther from held-out digits, in energy distance, the samples are "
            f"when trained with lambda_t than with weight 1, above 0; {how}",
            energies(lambda_t),
            energies(simple),
            True,
        ),
        row(
            "digits-simple-read",
            "C19: share of draws read as their label, with weight 1 less with lambda_t, above 0",
            shares(simple),
            shares(lambda_t),
            True,
        ),
        row(
            "digits-drawn-read",
            "Why: the same expected loss by times drawn in proportion to lambda_t, without its "
            "large weights; share read less that with lambda_t (positive: their noise does harm)",
            shares(samples),
            shares(lambda_t),
            False,
        ),
        row(
            "digits-drawn-rest",
            "Why: share read with weight 1 less that by those times (positive: so does the "
            "weighting itself, which neglects the noisy times where a digit is decided)",
            shares(simple),
            shares(samples),
            False,
        ),
        row(
            "digits-simple-bits",
            "Bound in bits a pixel, last step from t = 1: with lambda_t less with weight 1",
            [each.bits for each in lambda_t],
            [each.bits for each in simple],
            False,
        ),
        row(
            "digits-drawn-bits",
            "The same with times drawn in proportion to lambda_t, less with weight 1",
            [each.bits for each in samples],
            [each.bits for each in simple],
            False,
        ),
        Measurement(
            "digits-simple-share",
            "As how large a part of its size a batch weighted by lambda_t counts (Kish), t uniform",
            share,
            None,
            MEASURED,
        ),
    )
