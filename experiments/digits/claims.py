"""The rows of the experiment `digits`: what is claimed of the digits, measured, and concluded."""

from torch import Tensor

from diffusion_math.metrics import Estimate
from experiments.common.statistics import (
    Interval,
    difference,
    mean_of,
    paired_difference,
    share_of,
    with_interval,
)
from experiments.digits.loss_weights import BOUND, DRAWN, SIMPLE, Outcome
from experiments.digits.training import Budget
from experiments.output.result import Measurement, estimated

LAST = 40
"""Where the bound's chain leaves for 0: there the noise is about as wide as a level's bin."""


def agreement(right: dict[float, list[bool]], real: list[bool]) -> tuple[Measurement, ...]:
    count = len(real)
    rows = [
        estimated(
            "digits",
            f"C27: share of {count} samples with label, no guidance, that a classifier, trained "
            "on real digits only, reads as that label, at least 0.9",
            share_of(right[1.0]),
            least=0.9,
        ),
        estimated("digits-real", f"The same of {count} held-out real digits", share_of(real)),
    ]
    for w, seen in right.items():
        if w == 0:
            claim = "C28, C29: at w = 0 the label has no effect: share read as the label, at most"
            rows.append(estimated("digits-free", f"{claim} 0.2", share_of(seen), most=0.2))
        elif w != 1:
            gap = (sum(seen) - sum(right[1.0])) / count, paired_difference(seen, right[1.0])
            claim = f"C29: share at w = {w:g} less that at w = 1, the same noise: not lower by 0.02"
            rows.append(estimated(f"digits-guided-{w:g}", claim, gap, least=-0.02))
    return tuple(rows)


def distance(
    distances: dict[float, Estimate], plain: Estimate, floor: Estimate, trained: int, count: int
) -> tuple[Measurement, ...]:
    def row(name: str, one: Estimate, what: str) -> Measurement:
        claim = f"Squared energy distance of {what} from the held-out digits, pixels in [-1, 1]"
        return estimated(f"digits-distance-{name}", claim, with_interval(one))

    unlabelled = f"{count} samples at w = 0, from the network without label"
    return (
        estimated(
            "digits-distance",
            "C20: squared energy distance from the held-out digits of independent pixels with the "
            f"digits' histograms, less that of {count} samples at w = 1, above 0",
            difference(plain, distances[1.0]),
            more=0.0,
        ),
        row("0", distances[0.0], unlabelled),
        row("1", distances[1.0], f"{count} samples at w = 1"),
        row("pixels", plain, "samples of independent pixels"),
        row("real", floor, f"the {trained} digits of the training"),
    )


def copied(gap: list[bool]) -> Measurement:
    """The share of samples that are close to a training digit."""
    return estimated(
        "digits-copies",
        "Share of samples closer to a training digit than 95% of held-out digits are; 0.05 "
        "for fresh digits, 1 for copies",
        share_of(gap),
    )


def code(codes: dict[str, Tensor]) -> tuple[Measurement, ...]:
    ours, whole, histogram, normal, _ = codes.values()

    def row(name: str, what: str, bits: Tensor, **bound: float) -> Measurement:
        return estimated(f"digits-bits{name}", what, mean_of(bits.tolist()), **bound)

    return (
        row(
            "",
            f"C13, C15: bound in bits per pixel of {len(ours)} held-out digits given their label, "
            f"17 gray levels, last step from t = {LAST}",
            ours,
        ),
        row(
            "-saved",
            "Bits per pixel of a histogram of each pixel less that bound, digit by digit, above 0",
            histogram - ours,
            more=0.0,
        ),
        row("-fine", "The bound with the last step from t = 1", whole),
        row("-histogram", "Bits per pixel of a histogram of each pixel", histogram),
        row("-normal", "Bits per pixel of one normal over the bins", normal),
    )


def weight(
    outcomes: dict[str, list[Outcome]], budget: Budget, share: float
) -> tuple[Measurement, ...]:
    """C19: the simple weight against the bound's own, in pairs of one seed."""
    simple, lambda_t, samples = (outcomes[name] for name in (SIMPLE, BOUND, DRAWN))
    how = f"{len(simple)} pairs of networks, {budget.steps} training steps each"

    def less(first: list[Outcome], second: list[Outcome], of: str) -> tuple[float, Interval]:
        pairs = zip(first, second, strict=True)
        return mean_of([getattr(a, of) - getattr(b, of) for a, b in pairs])

    return (
        estimated(
            "digits-simple",
            "C19: squared energy distance of samples from held-out digits after training with the "
            f"weight lambda_t, less that with weight 1, above 0; {how}",
            less(lambda_t, simple, "energy"),
            more=0.0,
        ),
        estimated(
            "digits-simple-read",
            "C19: share of samples read as their label, with weight 1 less with lambda_t, above 0",
            less(simple, lambda_t, "agreement"),
            more=0.0,
        ),
        estimated(
            "digits-drawn-read",
            "Share read as the label with times sampled in proportion to lambda_t, which has the "
            "same expected loss, less that with the weight lambda_t (positive: large weights harm)",
            less(samples, lambda_t, "agreement"),
        ),
        estimated(
            "digits-drawn-rest",
            "Share read as the label with weight 1, less that with these times (positive: the "
            "weighting itself harms, since it neglects large t, where the digit is determined)",
            less(simple, samples, "agreement"),
        ),
        estimated(
            "digits-simple-bits",
            "Bound in bits per pixel, last step from t = 1: with lambda_t less that with weight 1",
            less(lambda_t, simple, "bits"),
        ),
        estimated(
            "digits-drawn-bits",
            "The same with times sampled in proportion to lambda_t, less that with weight 1",
            less(samples, simple, "bits"),
        ),
        estimated(
            "digits-simple-share",
            "Effective sample size (Kish) with the weight lambda_t, share of the batch, t uniform",
            share,
        ),
    )
