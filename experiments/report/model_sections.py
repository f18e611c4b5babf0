"""The report's own two sections: prompts with their images, and where the weights come from."""

import json
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from experiments import plots
from experiments.common.model import shows
from experiments.common.model_options import PROMPT, Model
from experiments.common.statistics import wilson
from experiments.generate import run as generate
from experiments.output import page
from experiments.output.result import Figure, Result, Table, bracketed
from experiments.plots.gallery import image_rows
from sd.embedded import UNETS, is_embedded
from sd.files.image_file import open_image
from sd.pipeline import TextToImage
from sd.weights import read_metadata

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


def pictures(model: Model, pipeline: TextToImage, prompts: tuple[str, ...] = PROMPTS) -> Result:
    """Prompts and their images, at the default setting."""
    drawn = generate.run(generate.Config(prompt=prompts, model=model), pipeline, hold=True)
    images = [open_image(figure.image) for figure in drawn.figures]
    verdicts = [shows(*pair) for pair in zip(images, prompts, strict=True)]
    wide = min(5, len(prompts))
    lines = range(0, len(prompts), wide)
    rows, texts, frames = (
        [each[i : i + wide] for i in lines] for each in (images, prompts, verdicts)
    )
    figure = image_rows(rows, verdicts=frames, side=2.3, texts=texts)
    caption = (
        f"One seed each, nothing picked. Green frame: the reader finds all that the prompt names "
        f"({sum(map(bool, verdicts))} of {len(verdicts)} here); orange: not all."
    )
    alt = "Images of colored shapes with their prompts below them."
    parts = (Figure("pictures.png", plots.png(figure), caption, alt),)
    data = {**drawn.data, "right": verdicts}
    return Result("pictures", "Prompts and images", (), parts, data)


def weights(model: Model) -> Result:
    """What the weights' files say of themselves: how they were made, what they reached."""
    embedded = is_embedded(model.weights)
    source = files("sd") / "assets" / "shapes" if embedded else Path(model.weights)
    with as_file(source) as folder:  # type: ignore[arg-type]
        found = {
            path.stem: read_metadata(path) | {"size": f"{path.stat().st_size / 1e6:.2f} MB"}
            for path in sorted(folder.glob("*.safetensors"))
        }
    found = {name: dict(sorted(words.items())) for name, words in found.items()}
    lines = [
        (name, key.replace("_", " "), _readable(value))
        for name, words in found.items()
        for key, value in words.items()
        if key not in ("config", "sha256")
    ]
    text = "The weights that ship were trained by this project's own commands; their files say how."
    caption = "From the safetensors files' metadata; figures were measured when training ended."
    table = Table(("network", "what", "value"), tuple(lines), caption)
    own = UNETS.get(str(model.weights), "unet")
    parts = (text, *judged(found.get(own, {})), table) if lines else (text,)
    return Result("weights", "The weights", (), parts, {"metadata": found})


WAYS = {"_guided": "right with guidance", "_unguided": "right without", "": "right"}
"""The ends of the names of figures, and what each is; a distilled model has one without an end."""


def judged(words: dict[str, str]) -> tuple[Table, ...]:
    """How often the U-Net's own last examination found all that a prompt names.

    words: the metadata of its file.
    """
    figures = json.loads(words.get("figures", "{}"))
    if "judged" not in figures:
        return ()
    count = figures["judged"]

    def cell(kind: str, how: str) -> str:
        share = figures[f"{kind}{how}"]
        return bracketed(share, wilson(round(share * count), count))

    ways = [how for how in WAYS if f"seen{how}" in figures]
    lines = tuple(
        (named, *(cell(kind, how) for how in ways))
        for kind, named in (("seen", "seen in training"), ("held_out", "never seen together"))
    )
    header = ("pairs of color and shape", *(WAYS[how] for how in ways))
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
    texts = {k: page.number(v) if isinstance(v, float) else v for k, v in content.items()}
    return ", ".join(f"{key.replace('_', ' ')} {text}" for key, text in texts.items())
