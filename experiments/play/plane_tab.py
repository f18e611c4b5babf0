"""The layout of the tab Plane, and what its buttons do."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from PIL import Image

import diffusion_math as dm
from experiments.play import plane
from experiments.play.answers import GRIDS, SOLVERS, answers, figure, number, png
from experiments.play.jobs import Tell

__all__ = ["tab"]


def tab(gr: Any) -> None:
    """Lay the tab out. gr: gradio."""
    own = plane.Settings()
    with gr.Row():
        with gr.Column(scale=2):
            density = gr.Dropdown(list(dm.DENSITIES), value=own.density, label="Density")
            process = gr.Radio(
                [plane.REVERSE, plane.LANGEVIN], value=own.process, label="Process", type="value"
            )
            with gr.Row():
                condition = gr.Dropdown(
                    list(plane.LABELS), value=own.condition, label="Condition (mixtures)"
                )
                scale = gr.Number(own.guidance_scale, label="Guidance scale w")
            with gr.Group() as reverse:
                schedule = gr.Dropdown(
                    list(plane.SCHEDULES), value=own.schedule, label="Noise schedule"
                )
                with gr.Row():
                    solver = gr.Dropdown(SOLVERS, value=own.solver, label="Solver")
                    grid = gr.Dropdown(GRIDS, value=own.grid, label="Time grid")
            with gr.Group(visible=False) as langevin, gr.Row():
                chain = gr.Dropdown(
                    ["unadjusted", "Metropolis", "annealed"], value=own.chain, label="Langevin"
                )
                delta = gr.Number(own.step_size, label="Step size")
            with gr.Row():
                steps = gr.Number(own.steps, label="Steps (1 to 500)", min_width=100)
                points = gr.Number(own.points, label="Points (50 to 2000)", min_width=100)
                seed = gr.Number(own.seed, label="Seed", min_width=100)
            with gr.Row():
                draw = gr.Button("Sample", variant="primary", elem_id="plane-sample")
                stop = gr.Button("Stop")
        with gr.Column(scale=3):
            said = gr.HTML(elem_id="plane-message")
            shown = gr.HTML(elem_id="plane-animation")
            gr.Markdown(
                "Lines enclose 50 and 95% of the density. Points are divided by "
                "$\\sqrt{\\alpha_t^2 + \\sigma_t^2}$.",
                latex_delimiters=[{"left": "$", "right": "$", "display": False}],
            )
    fields = (
        "density", "process", "condition", "guidance_scale", "schedule", "solver", "grid",
        "chain", "step_size", "steps", "points", "seed",
    )  # fmt: skip
    inputs = [density, process, condition, scale, schedule, solver, grid, chain, delta, steps]
    inputs += [points, seed]

    def show(report: plane.Moment | plane.Animated) -> dict[Any, Any]:
        if isinstance(report, plane.Moment):
            frame = png(Image.fromarray(report.frame))
            return {shown: figure(frame, f"frame {report.number} of {report.of}", "")}
        return {shown: figure(report.gif, report.error, "", "gif")}

    def work(*values: Any) -> Iterator[dict[Any, Any]]:
        def ask() -> Callable[[Tell], None]:
            given = dict(zip(fields, map(number, values), strict=True))
            return partial(plane.animate, plane.Settings(**given))

        yield from answers(ask, show, said)

    def switch(chosen: str) -> tuple[Any, ...]:
        langevin_on = chosen == plane.LANGEVIN
        usual = 200 if langevin_on else own.steps
        return gr.Group(visible=not langevin_on), gr.Group(visible=langevin_on), usual

    event = draw.click(
        work, inputs, [said, shown], show_progress="hidden", api_visibility="private"
    )
    stop.click(None, cancels=[event], api_visibility="private")
    process.change(switch, process, [reverse, langevin, steps], api_visibility="private")
