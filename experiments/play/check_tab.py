"""The layout of the tab Check, and what its buttons do."""

import html
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from experiments.play import Config, check, messages
from experiments.play.answers import SOLVERS, answers, figure
from experiments.play.jobs import Tell

__all__ = ["tab"]

OFF = (
    "Pasted code is off: it would run with all of your rights. To turn it on, start the "
    "playground with `--run-pasted-code`."
)
ON = "Pasted code is on. It runs with all of your rights; do not paste what you have not read."


def tab(gr: Any, config: Config, folder: Path) -> None:
    """Lay the tab out. gr: gradio. folder: where the files of an audit lie until its end."""
    own, runs = check.Settings(), config.run_pasted_code
    with gr.Row():
        with gr.Column(scale=2):
            with gr.Row():
                sampler = gr.Dropdown(
                    [one for one in SOLVERS if one != "adaptive"],
                    value=own.sampler,
                    label="Sampler",
                )
                schedule = gr.Dropdown(
                    list(check.SCHEDULES), value=own.schedule, label="Noise schedule"
                )
            pick = gr.Button("Check this sampler", variant="primary", elem_id="check-sampler")
            gr.Markdown(ON if runs else OFF, elem_id="check-pasted")
            code = gr.Code(
                check.EXAMPLE,
                language="python",
                label=f"Code with the name {check.NAME}, a diffusion_math.testing.Sampler",
                interactive=runs,
                lines=14,
                wrap_lines=True,
            )
            paste = gr.Button("Check the code", interactive=runs, elem_id="check-code")
            stop = gr.Button("Stop")
        with gr.Column(scale=3):
            said = gr.HTML(elem_id="check-message")
            plot = gr.HTML(elem_id="check-plot")
            table = gr.HTML(elem_id="check-table")

    def show(report: check.Audited) -> dict[Any, Any]:
        words = "Error over step size: the slope is the order of convergence"
        drawn = "" if report.plot is None else figure(report.plot, words, "")
        defects = sum(row["verdict"] == "defect" for row in report.rows)
        text = f"{len(report.rows)} checks, {defects or 'no'} defect{'s' * (defects > 1)}"
        return {said: messages.note(text), plot: drawn, table: _table(report.rows)}

    def work(pasted: bool, *values: Any) -> Iterator[dict[Any, Any]]:
        def ask() -> Callable[[Tell], None]:
            names = ("code",) if pasted else ("sampler", "schedule")
            settings = check.Settings(**dict(zip(names, values, strict=True)))
            return partial(check.check, settings, runs, folder)

        yield from answers(ask, show, said)

    more: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    outputs = [said, plot, table]
    events = [
        pick.click(partial(work, False), [sampler, schedule], outputs, **more),
        paste.click(partial(work, True), [code], outputs, **more),
    ]
    stop.click(None, cancels=events, api_visibility="private")


def _table(rows: list[dict[str, Any]]) -> str:
    """The rows of an audit as HTML."""
    head = "".join(f"<th>{one}</th>" for one in check.COLUMNS)
    lines = [
        "".join(f"<td>{html.escape(str(row[one]))}</td>" for one in check.COLUMNS) for row in rows
    ]
    body = "".join(
        f'<tr class="{html.escape(row["verdict"])}">{line}</tr>'
        for row, line in zip(rows, lines, strict=True)
    )
    return f'<table class="checks"><tr>{head}</tr>{body}</table>'
