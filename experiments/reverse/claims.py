"""The rows of the experiment `reverse`."""

from diffusion_math.metrics import Estimate
from experiments.common.statistics import difference, ratio, with_interval
from experiments.output.result import Measurement, estimated
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
    what = "E sigma_t^2 norm(S_theta - S)^2 / E sigma_t^2 norm(S)^2, t uniform, x ~ q_t"
    one, other = sorted(("eps", "score"), key=lambda name: -missed[name].value)
    worst = max(missed, key=lambda name: missed[name].value)
    best = min(missed, key=lambda name: missed[name].value)
    least, most = min(falling), max(falling)
    return (
        estimated(
            "reverse",
            f"C19, C26: an eps-network's score -eps_theta / sigma_t is the score: {what}, at most "
            f"{MISSED}",
            with_interval(missed["eps"]),
            most=MISSED,
        ),
        *(
            estimated(
                f"reverse-{target}",
                f"The same of the network that predicts {target}, one loss and budget for all",
                with_interval(found),
            )
            for target, found in missed.items()
        ),
        estimated(
            "reverse-targets",
            "C26: predicting eps and predicting the score are one objective. Ratio of their "
            f"divergences after equal budgets, {one}'s over {other}'s, at most {APART:g}",
            ratio(missed[one], missed[other]),
            most=APART,
        ),
        estimated(
            "reverse-spread",
            f"Largest divergence of the four targets ({worst}) over the smallest ({best}). The "
            "loss has one minimiser, but training differs: an error in x0 is one in eps times "
            "alpha_t / sigma_t, unbounded at small t, and one in v times alpha_t",
            ratio(missed[worst], missed[best]),
        ),
        estimated(
            "reverse-updates",
            f"C19: training reduces the divergence: ratio after {most} training steps to that "
            f"after {least}, at most 0.5",
            ratio(falling[most], falling[least]),
            most=0.5,
        ),
    )


def sampling(found: SamplingErrors) -> tuple[Measurement, ...]:
    """The errors of the samples."""
    kernels, exact, learned = (found.of(method) for method in (KERNELS, EXACT, LEARNED))
    few, most = min(kernels), max(learned)
    one_normal = "over that of one normal with the data's mean and variances"
    return (
        estimated(
            "reverse-learned",
            f"C20: energy distance from fresh data of samples by the learned score, {most} steps, "
            f"{one_normal}, at most 0.5",
            ratio(learned[most], found.one_normal),
            most=0.5,
        ),
        estimated(
            "reverse-exact",
            f"C09, C20: the same with the exact score, {most} steps, at most 0.2",
            ratio(exact[most], found.one_normal),
            most=0.2,
        ),
        estimated(
            "reverse-gaussian",
            f"C09: a Gaussian is not the true reverse kernel of a long step: energy distance with "
            f"{few} Gaussian steps and the exact denoiser less that with {few} true ones, above 0",
            difference(exact[few], kernels[few]),
            more=0.0,
        ),
        estimated(
            "reverse-kernels",
            f"Squared energy distance of the true kernels' samples from fresh data, {few} steps",
            with_interval(kernels[few]),
        ),
        estimated(
            "reverse-floor",
            "Squared energy distance between two sets of fresh data",
            with_interval(found.floor),
        ),
    )
