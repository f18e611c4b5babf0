"""Runs every experiment and writes one report."""

import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from experiments import plots
from experiments.autoencoder import run as autoencoder
from experiments.cfg import run as cfg
from experiments.common.model import load, shows
from experiments.common.model_options import PROMPT
from experiments.common.statistics import wilson
from experiments.generate import run as generate
from experiments.output import page
from experiments.output.files import to_json, utf8, write_files
from experiments.output.result import Figure, Measurement, Result, Table, percent, rows_json
from experiments.plots.gallery import captioned_images
from experiments.report import Config
from experiments.strength import run as strength
from experiments.timing import run as timing
from experiments.tradeoff import run as tradeoff
from sd import weights
from sd.command_line.terminal import say
from sd.files.image_file import load as load_image
from sd.pipeline import TextToImage

TITLE = "From equations to pictures: the report"

LECTURE_PROMPT = (
    "The lecture's own prompt, “A cat stretching on the floor, highly detailed, ultra sharp, "
    "cinematic, 100mm lens, 8k resolution.”, is about a world whose words the embedded "
    "vocabulary does not have, so every experiment here uses prompts of coloured shapes instead."
)
PROMPTS = (
    PROMPT,
    "a large blue star on a black background",
    "a small yellow ring above a large purple square",
    "a green cross right of a red triangle on a gray background",
    "an orange circle below a blue ring on a white background",
    "a large purple star on a white background",
    "a small green ring left of a large yellow cross",
    "a large orange cross above a small blue circle on a black background",
    "a large blue triangle on a gray background",
    "a red square",
)
"""Shown on top; the sixth to the ninth name pairs that training never shows."""

QUICK: dict[str, dict[str, Any]] = {
    "forward": {"samples": 500, "frames": 4},
    "posterior": {"times": (500,), "steps": (1, 350), "points": 2, "samples": 4000, "curve": 2},
    "bound": {"steps": 20, "draws": 50, "finest": 8},
    "likelihood": {
        "points": 8,
        "digits": 8,
        "copies": 20,
        "probes": 4,
        "paths": 500,
        "steps": 4,
    },
    "score-field": {"density": "ring", "times": (100, 1000), "samples": 300},
    "langevin": {"particles": 500, "budget": 40, "chains": 1000, "frames": 4},
    "reverse": {"steps": 30, "batch": 32, "width": 8, "walks": (2, 5), "samples": 100, "frames": 4},
    "densities": {"densities": ("ring", "funnel"), "samples": 2000},
    "errata": {"samples": 1000},
    "digits": {
        "steps": 20,
        "width": 16,
        "blocks": 1,
        "scales": (),
        "sampling": 5,
        "held_out": 40,
        "seeds": 2,
        "pair_steps": 10,
        "bound_steps": 5,
    },
    "families": {"steps": 50, "samples": 200},
    "guidance-truth": {"scales": (3.0,), "shown": 3.0, "nodes": 20, "digits": 3},
    "audit": {"quick": True, "samplers": ("ddim", "ddpm")},
}
"""The experiments on densities and digits, in their order, and what makes each of them quick."""

SHORTER: dict[str, dict[str, Any]] = {
    "audit": {"quick": True},
    "reverse": {"steps": 1500},
    "digits": {"steps": 1500, "seeds": 4, "pair_steps": 500, "bound_steps": 100},
}
"""What the report trains for less time than the experiment on its own."""


@dataclass(frozen=True)
class Report:
    """The results in order, and the facts above them."""

    results: tuple[Result, ...]
    lead: tuple[str | Table, ...]

    @property
    def rows(self) -> tuple[Measurement, ...]:
        """The rows of all results."""
        return tuple(row for result in self.results for row in result.rows)


def run(config: Config, pipeline: TextToImage | None = None) -> Report:
    """Every experiment, on one loaded model."""
    started = time.perf_counter()
    loaded = pipeline or load(config.model)
    work: list[tuple[str, Callable[[], Result]]] = [
        ("pictures", lambda: _pictures(config, loaded)),
        ("cfg", lambda: cfg.run(_cfg(config), loaded)),
        ("strength", lambda: strength.run(_strength(config), loaded)),
        ("timing", lambda: timing.run(_timing(config), pipeline)),
        ("tradeoff", lambda: tradeoff.run(_tradeoff(config), loaded)),
        ("autoencoder", lambda: autoencoder.run(_autoencoder(config), loaded)),
        *((name, partial(_on_its_own, name, config.quick)) for name in QUICK),
        ("weights", lambda: _weights(config)),
    ]
    results = []
    for number, (name, one) in enumerate(work, 1):
        say(f"[{number}/{len(work)}] {name}", error=True)
        results.append(one())
    seconds = time.perf_counter() - started
    how = "quick setting: too few numbers to conclude from" if config.quick else "default setting"
    lead = (
        f"Made by `python -m experiments report` in {seconds:.0f} s ({how}). Every sampling step "
        "was taken by the primitives of `diffusion_math`; whether a picture shows what its prompt "
        "says was decided by a reader of pixels, not by eye.",
        LECTURE_PROMPT,
        _summary(results),
    )
    return Report(tuple(results), lead)


def write(report: Report, folder: Path) -> list[Path]:
    """Everything at once; the paths to look at, report.html first."""
    files: dict[str, bytes] = {}
    for result in report.results:
        files |= {figure.name: figure.image for figure in result.figures}
        record = {"name": result.name, "rows": rows_json(result.rows), **result.data}
        files[f"{result.name}.json"] = to_json(record)
    files["report.json"] = to_json(rows_json(report.rows))
    files["report.md"] = utf8(page.markdown(TITLE, report.results, report.lead))
    files["report.html"] = utf8(page.html(TITLE, report.results, report.lead))
    return write_files(folder, files)[:-4:-1]


def _summary(results: list[Result]) -> Table:
    """The rows that bear the experiments' own names."""
    names = {result.name for result in results}
    rows = [row for result in results for row in result.rows if row.name in names]
    return page.rows_table(rows)


def _pictures(config: Config, pipeline: TextToImage) -> Result:
    """Prompts and what became of them, at the default setting."""
    prompts = PROMPTS[:4] if config.quick else PROMPTS
    drawn = generate.run(generate.Config(prompt=prompts, model=config.model), pipeline, hold=True)
    pictures = [load_image(figure.image) for figure in drawn.figures]
    verdicts = [shows(*pair) for pair in zip(pictures, prompts, strict=True)]
    wide = min(5, len(prompts))
    lines = range(0, len(prompts), wide)
    figure = captioned_images(
        [pictures[i : i + wide] for i in lines],
        [list(prompts[i : i + wide]) for i in lines],
        [verdicts[i : i + wide] for i in lines],
    )
    caption = (
        f"One seed each, nothing picked. Green frame: the reader finds all that the prompt names "
        f"({sum(map(bool, verdicts))} of {len(verdicts)} here); orange: not all."
    )
    alt = "Pictures of coloured shapes with their prompts below them."
    parts = (Figure("pictures.png", plots.png(figure), caption, alt),)
    data = {**drawn.data, "right": verdicts}
    return Result("pictures", "Prompts and pictures", (), parts, data)


def _cfg(config: Config) -> cfg.Config:
    whole = cfg.Config(model=config.model)
    if not config.quick:
        return whole
    return replace(whole, scales=(), count=4, shown=3, diversity_prompts=2, diversity_seeds=2)


def _strength(config: Config) -> strength.Config:
    whole = strength.Config(model=config.model)
    return replace(whole, strengths=(0.3, 0.5, 0.7, 1.0), seeds=2) if config.quick else whole


def _timing(config: Config) -> timing.Config:
    whole = timing.Config(model=config.model)
    return replace(whole, repeats=3, warmup=1, cold_start=False) if config.quick else whole


def _tradeoff(config: Config) -> tradeoff.Config:
    whole = tradeoff.Config(model=config.model)
    if not config.quick:
        return whole
    return replace(
        whole, counts=(3, 6), intervals=((0.28, 2.9),), pictures=2, reference=12, judged=4
    )


def _on_its_own(name: str, quick: bool) -> Result:
    """An experiment that needs no model of pictures, at its default or its quick setting."""
    module = importlib.import_module(f"experiments.{name.replace('-', '_')}.run")
    result: Result = module.run(module.Config(**(QUICK if quick else SHORTER).get(name, {})))
    return result


def _autoencoder(config: Config) -> autoencoder.Config:
    return autoencoder.Config(count=16 if config.quick else 200, model=config.model)


def _weights(config: Config) -> Result:
    """What the weights' files say of themselves: how they were made, what they reached."""
    embedded = config.model.weights == "shapes"
    source = files("sd") / "assets" / "shapes" if embedded else Path(config.model.weights)
    found: dict[str, dict[str, str]] = {}
    with as_file(source) as folder:  # type: ignore[arg-type]
        for path in sorted(folder.glob("*.safetensors")):
            found[path.stem] = weights.metadata(path)
            found[path.stem]["size"] = f"{path.stat().st_size / 1e6:.2f} MB"
    lines = [
        (name, key.replace("_", " "), _readable(value))
        for name, words in found.items()
        for key, value in words.items()
        if key not in ("config", "sha256")
    ]
    text = "The weights that ship were trained by this project's own commands; their files say how."
    caption = (
        "From the metadata of the safetensors files; figures were measured when training ended."
    )
    table = Table(("network", "what", "value"), tuple(lines), caption)
    parts = (text, *_judged(found), table) if lines else (text,)
    return Result("weights", "The weights", (), parts, {"metadata": found})


def _judged(found: dict[str, dict[str, str]]) -> tuple[Table, ...]:
    """How often the weights' own last examination found all that a prompt names."""
    figures = json.loads(found.get("unet", {}).get("figures", "{}"))
    if "judged" not in figures:
        return ()
    count = figures["judged"]

    def cell(kind: str, how: str) -> str:
        share = figures[f"{kind}_{how}"]
        low, high = wilson(round(share * count), count)
        return f"{percent(share)} [{percent(low)}, {percent(high)}]"

    lines = tuple(
        (words, cell(kind, "guided"), cell(kind, "unguided"))
        for kind, words in (("seen", "seen in training"), ("held_out", "never seen together"))
    )
    header = ("pairs of colour and shape", "right with guidance", "right without")
    caption = (
        f"{count} fresh prompts of each kind at the model's own solver and scale, drawn when "
        "training ended; Wilson's 95% intervals."
    )
    return (Table(header, lines, caption),)


def _readable(value: str) -> str:
    """A value of the metadata; a JSON object as "key value, key value"."""
    try:
        content: Any = json.loads(value)
    except json.JSONDecodeError:
        return value
    if not isinstance(content, dict):
        return value
    pairs = ((key.replace("_", " "), one) for key, one in content.items())
    return ", ".join(
        f"{key} {page.number(one) if isinstance(one, float) else one}" for key, one in pairs
    )
