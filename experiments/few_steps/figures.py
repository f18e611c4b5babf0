"""The figures of `few-steps`: accuracy against network calls, and images."""

from collections.abc import Mapping, Sequence

from experiments import plots
from experiments.common.statistics import share_of
from experiments.few_steps.measure import Outcome
from experiments.output.result import Figure
from experiments.plots.charts import Axis, Chart, Series, dots, side_by_side
from experiments.plots.gallery import image_rows

SHOWN = 3
"""Images of each kind of prompt in the figure."""


def accuracies(guided: Sequence[Outcome], few: Outcome, kinds: Mapping[str, str]) -> Figure:
    """Prompt accuracy against network calls, a panel for each kind of prompt."""
    calls = sorted({one.calls for one in (*guided, few)})
    x = Axis("network calls for one image", calls[0] / 1.3, calls[-1] * 1.3, "log", calls)
    panels = []
    for kind, named in kinds.items():
        shares = [share_of(one.right[kind]) for one in guided]
        share, interval = share_of(few.right[kind])
        values, ends = zip(*shares, strict=True)
        xs = [one.calls for one in guided]
        series = [
            Series("guided, dpmpp_2m", xs, values, ends),
            dots("distilled", [few.calls], [share], [interval], color=1, marker="D", size=9),
        ]
        y = Axis("share of right images", 0.0, 1.03)
        panels.append(Chart(f"Prompts of {named}", x, y, series, legend="lower right"))
    count = len(few.right["seen"])
    return Figure(
        "few-steps.png",
        plots.png(side_by_side(panels, 5.6, 4.2)),
        f"Prompt accuracy against network calls (logarithmic axis) over {count} fresh prompts in "
        "each panel, with 95% intervals: a curve for the guided model at several numbers of "
        "steps, and a diamond for the distilled one.",
        "Share of right images against network calls, a curve for the guided model and a point "
        "for the distilled one, in two panels.",
    )


def images(
    found: Sequence[Outcome], prompts: Mapping[str, Sequence[str]], kinds: Mapping[str, str]
) -> Figure:
    """The first images of each kind, a row for each of the outcomes."""
    shown = [(kind, index) for kind in kinds for index in range(min(SHOWN, len(prompts[kind])))]
    figure = image_rows(
        [[one.images[kind][index] for kind, index in shown] for one in found],
        rows=[f"{one.name}\n({one.calls} calls)" for one in found],
        texts=[*([] for _ in found[1:]), [prompts[kind][index] for kind, index in shown]],
        side=2.0,
        verdicts=[[one.right[kind][index] for kind, index in shown] for one in found],
    )
    return Figure(
        "few-steps-images.png",
        plots.png(figure),
        "The same prompts and seeds in each column; green frames show their prompt, orange ones do "
        "not. The first half are of pairs seen in training, the second half of pairs never seen.",
        "Rows of images by the guided model with many and few network calls and by the distilled "
        "model.",
    )
