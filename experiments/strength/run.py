"""Runs X2: image to image from one input at rising strengths."""

from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from experiments import plots
from experiments.common.model import distance, draw, load, shows
from experiments.common.statistics import mean_of, share_of
from experiments.output.result import Figure, Measurement, Part, Result, Table, estimated, percent
from experiments.plots.charts import Axis, Chart, Series, side_by_side
from experiments.plots.gallery import image_rows
from experiments.strength import Config
from sd.files import image_tensor
from sd.pipeline import TextToImage
from sd.shapes.render import render
from sd.shapes.scene import Scene, Thing


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
    samples = []
    with tqdm(total=len(strengths) * config.seeds, unit="image", disable=None) as bar:
        for strength in strengths:
            call = {**config.sampling.call(pipeline), "image": source, "strength": strength}
            samples.append(draw(pipeline, prompts, seeds, bar, **call))
    distances = [[distance(one, source) for one in group] for group in samples]
    verdicts = [[shows(one, config.prompt) for one in group] for group in samples]
    left = [float(pipeline.schedule(round(s * pipeline.schedule.T))[0]) for s in strengths]
    base = distance(rebuilt, source)
    row = _row(strengths, distances)
    data: dict[str, Any] = {
        "settings": config,
        "strengths": strengths,
        "alpha": left,
        "distances": distances,
        "shows_the_prompt": verdicts,
        "reconstruction_distance": base,
    }
    parts = _parts(config, strengths, left, source, rebuilt, samples, distances, verdicts, base)
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
    config: Config,
    strengths: list[float],
    left: list[float],
    source: Image.Image,
    rebuilt: Image.Image,
    samples: list[list[Image.Image]],
    distances: list[list[float]],
    verdicts: list[list[bool | None]],
    base: float,
) -> tuple[Part, ...]:
    shown = min(3, config.seeds)
    images = [
        [source if i == 0 else None, rebuilt if i == 0 else None, *(group[i] for group in samples)]
        for i in range(shown)
    ]
    frames = [[None, None, *(group[i] for group in verdicts)] for i in range(shown)]
    columns = ["input", "VAE alone", *(f"strength {s:g}" for s in strengths)]
    rows = [f"seed {config.seed + i}" for i in range(shown)]
    means, ends = zip(*map(mean_of, distances), strict=True)
    panels = [
        Chart(
            "Distance from the input",
            Axis("strength"),
            Axis("mean RMS distance (0 to 255)", 0),
            [Series("distance", strengths, means, ends)],
            levels=[(base, "VAE alone")],
        ),
        Chart(
            "Signal of the input in the start",
            Axis("strength"),
            Axis(r"$\alpha_t$ at $t$ = strength $T$", 0, 1.02),
            [Series("alpha", strengths, left)],
        ),
    ]
    readable = None not in verdicts[0]
    if readable:
        shares, bars = zip(*(share_of([*map(bool, each)]) for each in verdicts), strict=True)
        line = Series("right", strengths, 100 * np.array(shares), 100 * np.array(bars))
        title = "Prompt accuracy"
        share = Axis(f"images that show the prompt (% of {config.seeds})", -4, 104)
        panels.insert(1, Chart(title, Axis("strength"), share, [line]))
    header = ("strength", "alpha at the start", "distance from the input", "shows the prompt")
    cells = [
        (
            f"{s:g}",
            f"{a:.3f}",
            f"{m:.1f} [{lo:.1f}, {hi:.1f}]",
            percent(fmean(map(bool, v))) if readable else "–",
        )
        for s, a, m, (lo, hi), v in zip(strengths, left, means, ends, verdicts, strict=True)
    ]
    return (
        "The input's latent x_0 is noised to x_t = alpha_t x_0 + sigma_t eps at t = strength T, "
        "and the reverse process starts there, under the prompt "
        f"“{config.prompt}”. Even at strength 1 the start contains alpha_T = {left[-1]:.3f} of the "
        "input's latent, because this beta schedule does not end in pure noise."
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
        Table(header, tuple(cells), "Distances are RMS differences of pixels, 0 to 255."),
    )
