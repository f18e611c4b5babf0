"""The layout of the tab Image, and what its buttons do."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from experiments.common.model_options import PROMPT
from experiments.play import Config, image, messages
from experiments.play.answers import GRIDS, SOLVERS, answers, figure, number, png
from experiments.play.jobs import Tell
from sd.files.image_tensor import read_image
from sd.img2img import default_strength
from sd.pipeline import TextToImage

__all__ = ["tab"]


def tab(gr: Any, config: Config, pipeline: TextToImage, folder: Path) -> None:
    """Lay the tab out. gr: gradio. folder: where results lie until they are served."""
    own = image.Settings(prompt=PROMPT)
    with gr.Row():
        with gr.Column(scale=2):
            prompt = gr.Textbox(PROMPT, label="Prompt", lines=2, max_length=image.LONGEST)
            against = gr.Textbox("", label="Negative prompt", max_length=image.LONGEST)
            with gr.Row():
                scale = gr.Number(
                    pipeline.config.guidance_scale, label="Guidance scale w", min_width=100
                )
                seed = gr.Number(own.seed, label="Seed", min_width=100)
                steps = gr.Number(
                    pipeline.config.sampling_steps,
                    label=f"Steps (1 to {image.MOST_STEPS})",
                    min_width=100,
                )
            with gr.Row():
                solver = gr.Dropdown(SOLVERS, value=pipeline.config.solver, label="Solver")
                grid = gr.Dropdown(GRIDS, value=own.grid, label="Time grid")
            both = gr.Checkbox(False, label="Guidance on and off, side by side on this seed")
            with gr.Accordion("Start from an image", open=False):
                start = gr.File(label="Image, at most 8 MB", file_types=["image"], height=110)
                thumbnail = gr.HTML()
                usual = round(default_strength(pipeline.config, False), 2)
                strength = gr.Number(usual, label="Strength, above 0 up to 1")
            with gr.Row():
                draw = gr.Button("Sample", variant="primary", elem_id="image-sample")
                stop = gr.Button("Stop")
        with gr.Column(scale=3):
            said = gr.HTML(elem_id="image-message")
            with gr.Row():
                shown = {
                    image.ON: gr.HTML(elem_id="image-on"),
                    image.OFF: gr.HTML(elem_id="image-off"),
                }
            with gr.Row():
                saved = {
                    image.ON: gr.DownloadButton("Download PNG", interactive=False),
                    image.OFF: gr.DownloadButton("Download PNG, guidance off", visible=False),
                }
                use = gr.Button("Start from this image", interactive=False)
            gr.Markdown(
                "The PNG holds its settings: `diffusion-math generate --like FILE` repeats it."
            )
    fields = (
        "prompt", "negative_prompt", "guidance_scale", "side_by_side", "seed", "solver", "grid",
        "steps", "image", "strength",
    )  # fmt: skip
    inputs = [prompt, against, scale, both, seed, solver, grid, steps, start, strength]

    def show(report: image.Preview | image.Drawn) -> dict[Any, Any]:
        side = f"guidance {report.side}" if report.side == image.OFF else "guidance on"
        if isinstance(report, image.Preview):
            text = f"E[x0 | x_t] at step {report.step}, t = {report.time:.4g}, {side}"
            return {shown[report.side]: figure(png(report.image), text, "pixels")}
        place = Path(tempfile.mkdtemp(dir=folder), report.name)
        place.write_bytes(report.png)
        button = gr.DownloadButton(value=str(place), interactive=True, visible=True)
        more = {use: gr.Button(interactive=True)} if report.side == image.ON else {}
        final = figure(report.png, f"the image, {side}", "pixels")
        return {shown[report.side]: final, saved[report.side]: button, **more}

    def work(*values: Any) -> Iterator[dict[Any, Any]]:
        def ask() -> Callable[[Tell], None]:
            given = dict(zip(fields, map(number, values), strict=True))
            given["image"] = _uploaded(given["image"], folder)
            settings = image.Settings(**given)
            return partial(image.sample, settings, config.model, pipeline, config.preview_every)

        off = gr.DownloadButton(visible=False)
        yield {shown[image.ON]: "", shown[image.OFF]: "", saved[image.OFF]: off}
        yield from answers(ask, show, said)

    def thumb(path: str | None) -> str:
        if path is None:
            return ""
        try:
            image.bounded(Path(_uploaded(path, folder) or ""))
            small = read_image(_uploaded(path, folder) or "")
        except ValueError as error:
            return messages.error(str(error).replace(f" {path}", ""))
        small.thumbnail((256, 256))
        return figure(png(small), f"starts from {Path(path).name}", "")

    outputs = [said, *shown.values(), *saved.values(), use]
    event = draw.click(work, inputs, outputs, show_progress="hidden", api_visibility="private")
    stop.click(None, cancels=[event], api_visibility="private")
    start.change(thumb, start, thumbnail, show_progress="hidden", api_visibility="private")
    use.click(lambda path: path, saved[image.ON], start, api_visibility="private")


def _uploaded(path: str | None, folder: Path) -> Path | None:
    """The path of an upload; ValueError for one outside the folder of the uploads."""
    if path is None or Path(path).resolve().is_relative_to(folder.resolve()):
        return None if path is None else Path(path)
    raise ValueError("image: wanted an uploaded file, got a path")
