"""Runs X2: image to image from one input at rising strengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from experiments import plots
from experiments.common.model import distance, draw, load, shows
from experiments.common.statistics import mean_of, share_of
from experiments.output.result import Figure, Measurement, Part, Result, bracketed, estimated, table
from experiments.plots.charts import Axis, Chart, Series, measured, side_by_side
from experiments.plots.gallery import image_rows
from experiments.strength import Config
from sd.files import image_tensor
from sd.pipeline import TextToImage
from sd.shapes.render import render
from sd.shapes.scene import Scene, Thing

LEFT = r"$\alpha_t$ at $t$ = strength $T$"


@dataclass(frozen=True)
class Point:
    """The images at one strength; alpha is that of their start, a distance is from the input."""

    strength: float
    alpha: float
    images: list[Image.Image]
    distances: list[float]
    verdicts: list[bool | None]


def run(config: Config, pipeline: TextToImage | None = None) -> Result:
    """Sample at each strength, and measure the distance from the input."""
    strengths = sorted(set(config.strengths))
    source = rendered() if config.image is None else image_tensor.read_image(config.image)
    pipeline = pipeline or load(config.model)
    size = pipeline.config.image_size
    source = image_tensor.fit(source, size, size)
    rebuilt = pipeline.decode(pipeline.encode_image(source, size, size))[0]
    seeds = range(config.seed, config.seed + config.seeds)
    prompts = [config.prompt] * config.seeds
    points = []
    with tqdm(total=len(strengths) * config.seeds, unit="image", disable=None) as bar:
        for strength in strengths:
            call = {**config.sampling.call(pipeline), "image": source, "strength": strength}
            images = draw(pipeline, prompts, seeds, bar, **call)
            distances = [distance(one, source) for one in images]
            verdicts = [shows(one, config.prompt) for one in images]
            left = float(pipeline.schedule(round(strength * pipeline.schedule.T))[0])
            points.append(Point(strength, left, images, distances, verdicts))
    row = _row(strengths, [point.distances for point in points])
    data: dict[str, Any] = {
        "settings": config,
        "strengths": strengths,
        "alpha": [point.alpha for point in points],
        "distances": [point.distances for point in points],
        "shows_the_prompt": [point.verdicts for point in points],
        "reconstruction_distance": distance(rebuilt, source),
    }
    parts = _parts(config, points, source, rebuilt)
    return Result("strength", "X2: image to image at rising strengths", (row,), parts, data)


def rendered() -> Image.Image:
    """The default input: a large red circle left of a small blue square."""
    things = (
        Thing("circle", "red", "large", -0.42, 0.05, 0.34),
        Thing("square", "blue", "small", 0.52, -0.05, 0.20),
    )
    return Image.fromarray(render(Scene(things, "left of", "white")))


def _row(strengths: list[float], distances: list[list[float]]) -> Measurement:
    """The slope of the distance against the strength, averaged over the seeds."""
    slopes = np.polyfit(strengths, distances, 1)[0].tolist()
    return estimated(
        "strength",
        "X2: the distance of the image from its input grows with the strength. Slope of the RMS "
        f"distance (0 to 255) per unit of strength, over {len(slopes)} seeds, above 0",
        mean_of(slopes),
        least=0.0,
    )


def _parts(
    config: Config, points: Sequence[Point], source: Image.Image, rebuilt: Image.Image
) -> tuple[Part, ...]:
    shown, strengths = min(3, config.seeds), [point.strength for point in points]
    images = [
        [*((source, rebuilt) if i == 0 else (None, None)), *(point.images[i] for point in points)]
        for i in range(shown)
    ]
    frames = [[None, None, *(point.verdicts[i] for point in points)] for i in range(shown)]
    columns = ["input", "VAE alone", *(f"strength {s:g}" for s in strengths)]
    rows = [f"seed {config.seed + i}" for i in range(shown)]
    x, away = Axis("strength"), Axis("mean RMS distance (0 to 255)", 0)
    means = measured("distance", strengths, (mean_of(point.distances) for point in points))
    base, start = (distance(rebuilt, source), "VAE alone"), Axis(LEFT, 0, 1.02)
    alphas = Series("alpha", strengths, [point.alpha for point in points])
    panels = [
        Chart("Distance from the input", x, away, [means], levels=[base]),
        Chart("Signal of the input in the start", x, start, [alphas]),
    ]
    readable = None not in points[0].verdicts
    if readable:
        shares = (share_of([*map(bool, point.verdicts)]) for point in points)
        right = measured("right", strengths, shares, 0.01)
        share = Axis(f"images that show the prompt (% of {config.seeds})", -4, 104)
        panels.insert(1, Chart("Prompt accuracy", x, share, [right]))
    return (
        "The input's latent x_0 is noised to x_t = alpha_t x_0 + sigma_t eps at t = strength T, "
        "and the reverse process starts there, under the prompt "
        f"“{config.prompt}”. Even at strength 1 the start contains alpha_T = "
        f"{points[-1].alpha:.3f} of the input's latent, because this beta schedule does not end in "
        "pure noise."
        if strengths[-1] == 1
        else f"The reverse process starts at t = strength T, under the prompt “{config.prompt}”.",
        Figure(
            "strength-row.png",
            plots.png(image_rows(images, rows, columns, f"“{config.prompt}”", frames)),
            "The input, its VAE reconstruction, and samples at rising strength, a row for each "
            "seed. Green frame: the rule-based reader finds all that the prompt names; orange: it "
            "does not."
            if readable
            else "The input, its VAE reconstruction, and samples at rising strength.",
            "Rows of images from the input to one that follows the prompt.",
        ),
        Figure(
            "strength-curves.png",
            plots.png(side_by_side(panels, 5.4)),
            f"Against the strength: RMS distance of the pixels from the input, means over "
            f"{config.seeds} seeds with 95% intervals; the share of images that show the prompt; "
            "and alpha at the start. The dotted line is the VAE's reconstruction error.",
            "Curves against strength: distance from the input, prompt accuracy, alpha.",
        ),
        table(
            points,
            {
                "strength": lambda point: f"{point.strength:g}",
                "alpha at the start": lambda point: f"{point.alpha:.3f}",
                "distance from the input": lambda point: bracketed(
                    *mean_of(point.distances), ".1f"
                ),
                "shows the prompt": lambda point: (
                    f"{fmean(map(bool, point.verdicts)):.1%}" if readable else "–"
                ),
            },
            "Distances are RMS differences of pixels, 0 to 255.",
        ),
    )
