"""Runs the experiment: learns scores, measures their divergence, samples with them."""

from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.toy import DENSITIES
from diffusion_math.schedule import VPLinear
from experiments.common.statistics import seeded
from experiments.output.result import Heading, Result
from experiments.reverse import Config, claims, figures
from experiments.reverse.learned_score import TARGETS, Budget, Learned, curve, learn, relative
from experiments.reverse.sampling import sampling_errors, trajectories


def run(config: Config) -> Result:
    seed = partial(seeded, config.seed)

    schedule, data = VPLinear(), DENSITIES[config.density]()
    assert isinstance(data, GaussianMixture)
    budgets = [config.steps // k for k in (16, 8, 4)]
    times = [float(t) for t in torch.logspace(-3, 0, 13)]
    with tqdm(total=len(TARGETS) * config.steps + sum(budgets), unit="update", disable=None) as bar:

        def trained(target: str, steps: int) -> Learned:
            budget = Budget(steps, config.batch, config.width)
            return learn(schedule, data, target, budget, config.seed, bar.update)

        learned = {target: trained(target, config.steps) for target in TARGETS}
        by_budget = {steps: trained("eps", steps) for steps in budgets}
    by_budget[config.steps] = learned["eps"]
    n = max(20, config.samples // 25)
    missed, falling = (
        {name: relative(one, data, seed(1), n) for name, one in group.items()}
        for group in (learned, by_budget)
    )
    curves, steps_curves = (
        {name: curve(one, data, times, seed(2), config.samples) for name, one in group.items()}
        for group in (learned, by_budget)
    )
    count, eps = config.samples, learned["eps"]
    errors = sampling_errors(data, eps, config.walks, count, config.seed + 3)
    grid, paths = trajectories(data, eps, config.frames - 1, count, config.seed + 4)
    found = (*claims.divergence(missed, falling), *claims.sampling(errors))
    rows = tuple(row.needing(claims.EXAMPLES, config.steps * config.batch) for row in found)
    parts = (
        f"Each network was trained on {config.steps} x {config.batch} fresh samples of the density "
        f"{config.density}. The score of x_t is exact at every t, so the error of the learned "
        "score is measured: the Fisher divergence E norm(S_theta - S)^2 over x ~ q_t.",
        Heading("Fisher divergence of the learned score"),
        figures.divergence(curves, steps_curves, falling),
        Heading("Samples, step by step"),
        figures.panels(schedule, data, grid, paths),
        figures.animation(schedule, data, grid, paths),
        Heading("Error over the number of steps"),
        figures.steps(errors),
    )
    record: dict[str, Any] = {
        "settings": config,
        "missed_share": {name: one.value for name, one in missed.items()},
        "missed_share_by_steps": {str(steps): one.value for steps, one in falling.items()},
        "fisher_divergence": curves,
        "sampling_errors": errors,
    }
    return Result("reverse", "The reverse process, exact and learned", rows, parts, record)
