"""C09, C19, C20, C26: a learned score against the exact one, and the reverse walks of both."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from experiments.results import Result
from sd.flags import Range, Seed, Several, check

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Config:
    """Learn the score of a known density, measure the error, and walk back from noise with both.

    Networks that predict eps, x0, v and the score itself are trained by one budget on one loss
    (C19, C26). The exact score is known at every t, so their Fisher divergence from it is measured
    and not guessed. Then noise is walked to data (C20) by the true reverse kernels, by Gaussian
    steps with the exact denoiser (C09), and by Gaussian steps with the learned one.
    """

    density: Literal["ring", "two_moons", "grid25", "pinwheel", "spirals"] = "ring"
    """The data."""
    steps: Annotated[int, Range(16, 10**7)] = 4500
    """Updates of each network, at least 16."""
    batch: Annotated[int, Range(2, 10**6)] = 256
    """Examples in an update, at least 2."""
    width: Annotated[int, Range(4, 8192)] = 96
    """Width of the networks' three hidden layers, at least 4."""
    walks: Annotated[tuple[int, ...], Range(2, 1000), Several(2)] = (2, 3, 5, 10, 20, 50, 200)
    """Numbers of sampling steps, two or more, 2 to 1000."""
    samples: Annotated[int, Range(100, 10**6)] = 2000
    """Draws that are judged, at least 100."""
    frames: Annotated[int, Range(2, 45)] = 40
    """Frames of the animation, 2 to 45."""
    seed: Seed = 0
    """Of weights, data and draws."""
    out: Path = Path("out/reverse")
    """Folder for reverse.md, reverse.json and the figures."""

    def __post_init__(self) -> None:
        check(self)


def run(config: Config) -> Result:
    """Train all targets, measure the divergence, walk back."""
    import torch
    from tqdm import tqdm

    from diffusion_math.density import DENSITIES
    from diffusion_math.oracle import GaussianMixture
    from diffusion_math.schedule import VPLinear
    from experiments import reverse_figures, reverse_rows
    from experiments.learned_score import TARGETS, Budget, curve, learn, relative
    from experiments.reverse_walks import judge, ways

    def seeded(part: int) -> torch.Generator:
        return torch.Generator().manual_seed(config.seed + part)

    schedule, data = VPLinear(), DENSITIES[config.density]()
    assert isinstance(data, GaussianMixture)
    budgets = [config.steps // k for k in (16, 8, 4)]
    times = [float(t) for t in torch.logspace(-3, 0, 13)]
    with tqdm(total=len(TARGETS) * config.steps + sum(budgets), unit="update", disable=None) as bar:
        learned = {
            target: learn(
                schedule, data, target, Budget(config.steps, config.batch, config.width),
                config.seed, bar.update,
            )
            for target in TARGETS
        }  # fmt: skip
        by_budget = {
            steps: learn(
                schedule, data, "eps", Budget(steps, config.batch, config.width),
                config.seed, bar.update,
            )
            for steps in budgets
        }  # fmt: skip
    by_budget[config.steps] = learned["eps"]
    n = max(20, config.samples // 25)
    missed = {name: relative(one, data, seeded(1), n) for name, one in learned.items()}
    falling = {steps: relative(one, data, seeded(1), n) for steps, one in by_budget.items()}
    curves = {
        name: curve(one, data, times, seeded(2), config.samples) for name, one in learned.items()
    }
    steps_curves = {
        steps: curve(one, data, times, seeded(2), config.samples)
        for steps, one in by_budget.items()
    }

    walked = judge(schedule, data, learned["eps"], config.walks, config.samples, config.seed + 3)
    grid, paths = ways(
        schedule, data, learned["eps"], config.frames - 1, config.samples, config.seed + 4
    )
    rows = (
        *reverse_rows.divergence(missed, falling),
        *reverse_rows.walks(walked),
    )
    parts = (
        f"Each network saw {config.steps} x {config.batch} fresh draws of the density "
        f"{config.density} and nothing else. The exact score of x_t is known at every t, so what "
        "they learned is measured: the Fisher divergence E norm(S_theta - S)^2 over x ~ q_t.",
        reverse_figures.divergence(curves, steps_curves, falling),
        reverse_figures.panels(schedule, data, grid, paths),
        reverse_figures.animation(schedule, data, grid, paths),
        reverse_figures.steps(walked),
    )
    record: dict[str, Any] = {
        "settings": config,
        "missed_share": {name: one.value for name, one in missed.items()},
        "missed_share_by_steps": {str(steps): one.value for steps, one in falling.items()},
        "fisher_divergence": curves,
        "walks": walked,
    }
    return Result("reverse", "The reverse process, exact and learned", rows, parts, record)
