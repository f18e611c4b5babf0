"""The rows of the experiment `reverse`."""

from diffusion_math.metrics import Estimate
from experiments.common.statistics import difference, normal_interval, ratio
from experiments.output.result import MEASURED, Measurement, above, at_most
from experiments.reverse.sampling import EXACT, KERNELS, LEARNED, SamplingErrors

MISSED = 0.05
"""The part of the score that a network which has learned it may miss."""
EXAMPLES = 100_000
"""With fewer examples in its training a network shows nothing of what it can learn."""
APART = 5.0
"""Fisher divergences within this factor are called comparable."""


def divergence(
    missed: dict[str, Estimate], falling: dict[int, Estimate]
) -> tuple[Measurement, ...]:
    """What is missed of the score, by target and by number of updates."""
    ends = normal_interval(*missed["eps"])
    what = "E sigma_t^2 norm(S_theta - S)^2 / E sigma_t^2 norm(S)^2, t uniform, x ~ q_t"
    rows = [
        Measurement(
            "reverse",
            f"C19, C26: an eps-network's score -eps_theta / sigma_t is the score: {what}, at most "
            f"{MISSED}",
            missed["eps"].value,
            ends,
            at_most(*ends, MISSED),
        )
    ]
    for target, one in missed.items():
        claim = f"The same of the network that predicts {target}, one loss and budget for all"
        rows.append(
            Measurement(f"reverse-{target}", claim, one.value, normal_interval(*one), MEASURED)
        )
    one, other = sorted(("eps", "score"), key=lambda name: -missed[name].value)
    value, ends = ratio(missed[one], missed[other])
    rows.append(
        Measurement(
            "reverse-targets",
            "C26: predicting eps or the score is one objective, and by one budget they come to "
            f"comparable divergences: {one}'s over {other}'s, at most {APART:g}",
            value,
            ends,
            at_most(*ends, APART),
        )
    )
    worst = max(missed, key=lambda name: missed[name].value)
    best = min(missed, key=lambda name: missed[name].value)
    value, ends = ratio(missed[worst], missed[best])
    rows.append(
        Measurement(
            "reverse-spread",
            f"Of all four the worst ({worst}) over the best ({best}): one loss has one minimiser, "
            "but not one way there. An error in x0 is one in eps times alpha_t / sigma_t, without "
            "bound near the data, one in v times alpha_t",
            value,
            ends,
            MEASURED,
        )
    )
    least, most = min(falling), max(falling)
    value, ends = ratio(falling[most], falling[least])
    rows.append(
        Measurement(
            "reverse-updates",
            f"C19: descending the loss descends the divergence: after {most} updates over after "
            f"{least}, at most 0.5",
            value,
            ends,
            at_most(*ends, 0.5),
        )
    )
    return tuple(rows)


def sampling(found: SamplingErrors) -> tuple[Measurement, ...]:
    """The errors of the samples."""
    kernels, exact, learned = (found.of(method) for method in (KERNELS, EXACT, LEARNED))
    few, most = min(kernels), max(learned)
    gap, gap_ends = difference(exact[few], kernels[few])
    distance, far_ends = ratio(learned[most], found.one_normal)
    near, near_ends = ratio(exact[most], found.one_normal)
    one_normal = "over that of one normal with the data's mean and variances"
    return (
        Measurement(
            "reverse-learned",
            f"C20: energy distance from fresh data of draws by the learned score, {most} steps, "
            f"{one_normal}, at most 0.5",
            distance,
            far_ends,
            at_most(*far_ends, 0.5),
        ),
        Measurement(
            "reverse-exact",
            f"C09, C20: the same with the exact score, {most} steps, at most 0.2",
            near,
            near_ends,
            at_most(*near_ends, 0.2),
        ),
        Measurement(
            "reverse-gaussian",
            f"C09: a Gaussian is not the true reverse kernel of a long step: energy distance with "
            f"{few} Gaussian steps and the exact denoiser less that with {few} true ones, above 0",
            gap,
            gap_ends,
            above(*gap_ends, 0.0),
        ),
        Measurement(
            "reverse-kernels",
            f"Squared energy distance of the true kernels' draws from fresh data, {few} steps",
            kernels[few].value,
            normal_interval(*kernels[few]),
            MEASURED,
        ),
        Measurement(
            "reverse-floor",
            "Squared energy distance between two sets of fresh data",
            found.floor.value,
            normal_interval(*found.floor),
            MEASURED,
        ),
    )
