"""Runs the experiment: error against seconds for solvers, steps and guidance intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from tqdm import tqdm

from experiments.common.machine import describe
from experiments.common.model import draw, load, require_plain, shows
from experiments.common.sampling_options import Interval, scale_of
from experiments.common.statistics import geometric_ratio, paired_difference
from experiments.output.result import Measurement, Result, estimated
from experiments.tradeoff import Config
from experiments.tradeoff.figures import Judged, parts
from experiments.tradeoff.measure import EVERYWHERE, Point, Target, TimedSampling, each, words
from sd.pipeline import TextToImage
from sd.shapes import accuracy

DOUBT = 0.5
"""Largest error of the reference ends, as a share of the lowest error measured."""
JUDGED_STEPS = 20
COMPARED = ("dpmpp_2m", "euler")
"""The solvers of one claim: as many network calls a step, of second order and of first."""


def run(config: Config, pipeline: TextToImage | None = None) -> Result:
    """Compute the reference ends, sample by every solver, and read the images."""
    pipeline = pipeline or load(config.model)
    require_plain(pipeline, "it follows no flow between its own nodes")
    scale = scale_of(config.guidance_scale, pipeline)

    def sampling(count: int) -> TimedSampling:
        seeds = range(config.seed, config.seed + count)
        return TimedSampling(pipeline, accuracy.fresh_prompts(1, count), seeds, scale)

    timed, more = sampling(config.pictures), sampling(config.compared)
    intervals = list(dict.fromkeys([EVERYWHERE, *config.intervals]))
    ways = [(grid, EVERYWHERE) for grid in config.grids]
    ways += [(config.grids[-1], interval) for interval in intervals[1:]]
    jobs = [(solver, n, *way) for way in ways for solver in config.solvers for n in config.counts]
    total = 2 * len(intervals) + len(COMPARED) + config.pictures * len(jobs)
    with tqdm(total=total, unit="sample", disable=None) as bar:
        targets: dict[Interval, Target] = {}
        for interval in intervals:
            targets[interval] = timed.target(interval, config.reference)
            bar.update()
        points = timed.points(jobs, targets, bar.update)
        ends = more.target(EVERYWHERE, config.reference)
        compared = {}
        for solver in COMPARED:
            job = (solver, config.counts[-1], config.grids[-1], EVERYWHERE)
            compared[solver] = more.errors(job, ends)
            bar.update()
        judged = []
        for interval in intervals:
            judged.append(_judged(config, pipeline, interval, targets))
            bar.update()
    machine = describe([str(pipeline.device)])
    data: dict[str, Any] = {
        "settings": config,
        "machine": machine,
        "guidance_scale": scale,
        "solvers": config.solvers,
        "compared": compared,
        "points": [{**asdict(p), "error": p.error, "median_seconds": p.time[0]} for p in points],
        "intervals": [
            {
                "interval": one.interval,
                "doubt_of_the_reference": targets[one.interval].doubt,
                "distance_from_guided": one.away,
                "shows_the_prompt": one.right,
            }
            for one in judged
        ],
    }
    rows = _rows(points, list(targets.values()), judged, compared)
    blocks = parts(points, judged, scale, machine)
    return Result("tradeoff", "Error against seconds", rows, blocks, data)


def _judged(
    config: Config, pipeline: TextToImage, interval: Interval, targets: dict[Interval, Target]
) -> Judged:
    """The images of one interval, of the same prompts and seeds as the others."""
    half = config.judged // 2
    prompts = accuracy.fresh_prompts(2, config.judged - half)
    prompts = [*prompts, *accuracy.fresh_prompts(2, half, held_out=True)]
    images = draw(
        pipeline, prompts, range(len(prompts)), solver="dpmpp_2m", grid=config.grids[-1],
        steps=min(JUDGED_STEPS, config.counts[-1]), guidance_interval=interval,
        guidance_scale=scale_of(config.guidance_scale, pipeline),
    )  # fmt: skip
    right = [shows(*pair) for pair in zip(images, prompts, strict=True)]
    away = each(targets[interval].ends, targets[EVERYWHERE].ends)
    return Judged(interval, away, images, right)


def _rows(
    points: Sequence[Point],
    targets: Sequence[Target],
    judged: Sequence[Judged],
    compared: Mapping[str, Sequence[float]],
) -> tuple[Measurement, ...]:
    """The gain by second order, the error of the reference, and the effect of the intervals."""
    grid, steps = points[-1].grid, points[-1].steps
    second, first = (compared[solver] for solver in COMPARED)
    least = {t.interval: min(p.error for p in points if p.interval == t.interval) for t in targets}
    share = max(t.doubt / max(least[t.interval], 1e-12) for t in targets)
    claim = (
        f"RMS error of dpmpp_2m over that of euler after {steps} steps on the {grid} grid, at "
        f"equal NFE, geometric mean over {len(first)} images, at most 1"
    )
    rows = [estimated("tradeoff", claim, geometric_ratio(second, first), most=1.0)]
    claim = (
        "Error of the reference ends over the lowest error measured against them, the largest "
        f"of {len(targets)} intervals, at most {DOUBT:g}"
    )
    rows.append(estimated("tradeoff-reference", claim, share, most=DOUBT))
    whole = judged[0].right
    for one in judged[1:]:
        if None in one.right:
            continue
        a, b = ([bool(verdict) for verdict in right] for right in (one.right, whole))
        name = f"tradeoff-{one.interval[0]:g}-{one.interval[1]:g}"
        claim = (
            f"Difference of the prompt accuracy over {len(a)} fresh prompts with guidance "
            f"{words(one.interval)} from that with guidance at every noise level, same seeds"
        )
        rows.append(estimated(name, claim, (fmean(a) - fmean(b), paired_difference(a, b))))
    return tuple(rows)
