"""Runs X1: generates every prompt with and without guidance, and reads the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, cycle, islice
from statistics import fmean
from typing import Any

from PIL.Image import Image
from tqdm import tqdm

from experiments import plots
from experiments.cfg import Config
from experiments.common.model import distance, draw, load, require_plain, shows
from experiments.common.sampling_options import scale_of
from experiments.common.statistics import (
    Interval,
    geometric_ratio,
    mean_of,
    paired_difference,
    share_of,
)
from experiments.output.result import (
    Figure,
    Heading,
    Measurement,
    Part,
    Result,
    bracketed,
    estimated,
    table,
)
from experiments.plots.charts import Axis, Chart, measured, side_by_side
from experiments.plots.gallery import image_rows
from sd.pipeline import TextToImage
from sd.shapes import accuracy as judge
from sd.shapes.scene import COLORS, HELD_OUT, SHAPES

BARS = {"seen": 0.95, "held-out": 0.80}
"""Least accuracy at the default setting, for pairs seen in training and held-out pairs."""
FREE = "free"
"""The kind of prompts that the diversity is measured on."""


@dataclass(frozen=True)
class Point:
    """What was measured at one scale."""

    scale: float
    right: dict[str, list[bool]]
    spread: list[float]
    images: list[Image]

    def accuracy(self, kind: str) -> tuple[float, Interval]:
        """The share of images that show their prompt, and its Wilson interval."""
        return share_of(self.right[kind])


def run(config: Config, pipeline: TextToImage | None = None) -> Result:
    """Sample with guidance on and off, sweep the scale, and read the images."""
    pipeline = pipeline or load(config.model)
    require_plain(pipeline, "guidance is in its weights")
    own = scale_of(config.sampling.guidance_scale, pipeline)
    scales = sorted({*config.scales, 1.0, own})
    by_kind = {
        "seen": judge.fresh_prompts(0, config.count),
        "held-out": judge.fresh_prompts(0, config.count, held_out=True),
    }
    few = {kind: prompts[: config.swept] for kind, prompts in by_kind.items()}
    free = _free_prompts(config.diversity_prompts)
    wanted = {w: _wanted(config, by_kind if w in (1.0, own) else few, free) for w in scales}
    total = 2 * config.shown + sum(len(set(_jobs(config, w, wanted[w]).values())) for w in scales)
    with tqdm(total=total, unit="image", disable=None) as bar:
        pair = _pair(config, pipeline, bar)
        points = {w: _point(config, pipeline, w, wanted[w], bar) for w in scales}
    data: dict[str, Any] = {
        "settings": config,
        "default_scale": own,
        "prompts": by_kind,
        "diversity_prompts": free,
        "sweep": [
            {"w": w, "right": one.right, "diversity": one.spread} for w, one in points.items()
        ],
    }
    rows, parts = _rows(points[own], points[1.0]), _parts(config, own, pair, points, free[0])
    return Result("cfg", "X1: guidance on and off", rows, parts, data)


def _free_prompts(count: int) -> list[str]:
    """Prompts that name a color and a shape only, of seen pairs."""
    colors = list(COLORS)
    places = ((colors[(i + i // 6) % 6], SHAPES[i % 6]) for i in range(36))
    pairs = islice(cycle(pair for pair in places if pair not in HELD_OUT), count)
    return [f"{'an' if color[0] in 'aeiou' else 'a'} {color} {shape}" for color, shape in pairs]


def _pair(config: Config, pipeline: TextToImage, bar: "tqdm[Any]") -> dict[bool, list[Image]]:
    """The same prompt and seeds with guidance and without."""
    seeds = [config.seed + i for i in range(config.shown)]
    call = config.sampling.call(pipeline)
    prompts = [config.prompt] * config.shown
    plain = {name: value for name, value in call.items() if not name.startswith("guidance_")}
    return {
        on: draw(pipeline, prompts, seeds, bar, do_cfg=on, **(call if on else plain))
        for on in (True, False)
    }


Wanted = dict[str, list[tuple[str, int]]]
"""Prompts and seeds of the images that one scale is judged by."""


def _wanted(config: Config, by_kind: dict[str, list[str]], free: Sequence[str]) -> Wanted:
    """Prompts of each kind, each with a seed of its own, and free ones with several."""
    fixed = {kind: [(text, seed) for seed, text in enumerate(by_kind[kind])] for kind in BARS}
    return {**fixed, FREE: [(text, s) for text in free for s in range(config.diversity_seeds)]}


def _jobs(config: Config, scale: float, wanted: Wanted) -> dict[tuple[str, int], tuple[str, int]]:
    """Which prompt and seed gives the image of each: at w = 0 the prompt has no effect."""
    blind = scale == 0 and config.sampling.guidance_interval is None
    text = wanted[FREE][0][0]
    return {one: (text, one[1]) if blind else one for kind in wanted.values() for one in kind}


def _point(
    config: Config, pipeline: TextToImage, scale: float, wanted: Wanted, bar: "tqdm[Any]"
) -> Point:
    """Accuracy and diversity at one scale."""
    call = {**config.sampling.call(pipeline), "guidance_scale": scale}
    jobs = _jobs(config, scale, wanted)
    each = list(dict.fromkeys(jobs.values()))
    texts, seeds = zip(*each, strict=True)
    drawn = dict(zip(each, draw(pipeline, texts, seeds, bar, **call), strict=True))
    free = [drawn[jobs[one]] for one in wanted[FREE]]
    right = {kind: [bool(shows(drawn[jobs[one]], one[0])) for one in wanted[kind]] for kind in BARS}
    many = config.diversity_seeds
    groups = [free[i : i + many] for i in range(0, len(free), many)]
    spread = [fmean(distance(a, b) for a, b in combinations(group, 2)) for group in groups]
    return Point(scale, right, spread, groups[0])


def _rows(guided: Point, plain: Point) -> tuple[Measurement, ...]:
    """The gain of accuracy by guidance, and the accuracies against their least values."""
    both = [p.right["seen"] + p.right["held-out"] for p in (guided, plain)]
    gain = fmean(both[0]) - fmean(both[1])
    rows = [
        estimated(
            "cfg",
            "X1: guidance raises the prompt accuracy, the share of images that show all that their "
            f"prompt names. Difference of w = {guided.scale:g} from no guidance over "
            f"{len(both[0])} fresh prompts, same seeds, above 0",
            (gain, paired_difference(*both)),
            least=0.0,
        )
    ]
    for kind, bar in BARS.items():
        for point, name in ((guided, "guided"), (plain, "unguided")):
            count = len(point.right[kind])
            wanted = f", at least {bar:g}" if point is guided else ""
            what = "with" if point is guided else "without"
            claim = f"Prompt accuracy over {count} fresh prompts of {kind} pairs {what} guidance"
            least = bar if point is guided else None
            share = point.accuracy(kind)
            rows.append(estimated(f"cfg-{kind}-{name}", claim + wanted, share, least=least))
    claim = (
        f"Diversity at w = {guided.scale:g} over diversity without guidance, geometric mean over "
        f"{len(plain.spread)} prompts"
    )
    variety = geometric_ratio(guided.spread, plain.spread)
    return (*rows, estimated("cfg-diversity", claim, variety))


def _parts(
    config: Config, own: float, pair: dict[bool, list[Image]], points: dict[float, Point], free: str
) -> tuple[Part, ...]:
    verdicts = {on: [shows(one, config.prompt) for one in pair[on]] for on in pair}
    hits = {on: sum(one is True for one in verdicts[on]) for on in pair}
    read = (
        "Green frame: the rule-based reader finds all that the prompt names; orange: it does not. "
        f"With guidance {hits[True]} of {config.shown} show the prompt, without {hits[False]}."
        if None not in verdicts[True]
        else "The reader does not understand this prompt, so there are no verdicts."
    )
    how, seeds = [f"do_cfg=True\n(w = {own:g})", "do_cfg=False"], range(config.shown)
    columns, title = [f"seed {config.seed + i}" for i in seeds], f"“{config.prompt}”"
    together = image_rows([*pair.values()], how, columns, title, [*verdicts.values()])
    images = [point.images[:8] for point in points.values()]
    frames = [[shows(one, free) for one in row] for row in images]
    columns = [f"seed {i}" for i in range(len(images[0]))]
    scales = [f"w = {w:g}" for w in points]
    strips = image_rows(images, scales, columns, f"“{free}”", frames, side=1.2)
    best = max(points, key=lambda w: sum(points[w].accuracy(kind)[0] for kind in BARS))
    last = max(points)
    few = min(config.swept, config.count)
    counts = (
        f"Accuracy is over {config.count} prompts of each kind at w = 1 and w = {own:g}, and over "
        f"{few} at every other w, with the same seeds."
    )
    return (
        "Guidance replaces the prediction by x0_u + w (x0_c - x0_u), where x0_c is the conditional "
        "prediction and x0_u the unconditional one. w = 1 is no guidance (do_cfg=False); the "
        f"model's own scale is w = {own:g}.",
        Figure(
            "cfg-on-off.png",
            plots.png(together),
            f"Images of one prompt with guidance (top) and without (bottom), same seeds. {read}",
            "Two rows of images of one prompt, with and without guidance.",
        ),
        Heading("Accuracy and diversity over the guidance scale"),
        Figure(
            "cfg-sweep.png",
            plots.png(side_by_side(_panels(points, own), 6.2)),
            "Against the guidance scale w, with 95% intervals. Left: prompt accuracy, highest at "
            f"w = {best:g}. Right: diversity, the mean RMS distance of pixels between images of "
            f"one prompt: {fmean(points[1.0].spread):.0f} without guidance, "
            f"{fmean(points[last].spread):.0f} at w = {last:g}. {counts}",
            "Two curves against the guidance scale: prompt accuracy, and diversity.",
        ),
        Figure(
            "cfg-strips.png",
            plots.png(strips),
            "Images of a prompt that leaves size, place and background open, a row for each w, the "
            "same seeds in every row. At w = 0 the prompt has no effect; a larger w gives images "
            "that are more alike.",
            "A grid of images, a row for each guidance scale.",
        ),
        table(
            points.values(),
            {
                "w": lambda point: f"{point.scale:g}",
                "accuracy, seen pairs": lambda point: bracketed(*point.accuracy("seen")),
                "accuracy, held-out pairs": lambda point: bracketed(*point.accuracy("held-out")),
                "diversity (0 to 255)": lambda point: f"{fmean(point.spread):.1f}",
            },
            f"Prompt accuracy, with Wilson's 95% intervals, and diversity against w. {counts}",
        ),
    )


def _panels(points: dict[float, Point], own: float) -> list[Chart]:
    w, each = list(points), points.values()
    lines = [
        measured(f"{kind} pairs", w, (one.accuracy(kind) for one in each), 0.01) for kind in BARS
    ]
    spread = measured("diversity", w, (mean_of(one.spread) for one in each))
    chosen, x = (own, "default"), Axis("guidance scale w")
    shown = Axis("images that show the prompt (%)", 0, 104)
    away = Axis("mean RMS distance (0 to 255)", 0)
    return [
        Chart("Prompt accuracy", x, shown, lines, marked_x=chosen),
        Chart("Diversity of images of one prompt", x, away, [spread], marked_x=chosen),
    ]
