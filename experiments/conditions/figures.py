"""The figures and the table of the experiment `conditions`."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL.Image import Image

from experiments import plots
from experiments.common.statistics import share_of, share_of_groups
from experiments.conditions.measure import Case, Outcome
from experiments.output.result import Figure, Table, bracketed
from experiments.plots.charts import Axis, Chart, line, side_by_side
from experiments.plots.gallery import image_rows
from sd.shapes.placement import NEAR


def kinds(
    digits: Sequence[Image],
    plain: Sequence[Outcome],
    mapped: Sequence[Outcome],
    cases: Sequence[Case],
) -> Figure:
    """A class, a text, a map: five images of each."""
    n = len(digits)
    texts = [case.prompt for case in cases[:n]]
    images = [
        digits,
        [one.image for one in plain[:n]],
        [case.hint for case in cases[:n]],
        [one.image for one in mapped[:n]],
    ]
    words = [
        [f"class {k}" for k in range(n)],
        [f"text: {text}" for text in texts],
        ["map" for _ in texts],
        ["the map above, and the text" for _ in texts],
    ]
    by_text, by_map = ([one.prompt for one in each] for each in (plain[:n], mapped))
    verdicts: list[list[bool | None]] = [[None] * n, by_text, [None] * n, by_map]
    drawing = image_rows(images, verdicts=verdicts, side=2.0, texts=words)
    return Figure(
        "conditions.png",
        plots.png(drawing),
        "The three kinds of condition. First row: a number, the class of a digit. Second row: a "
        "text. Third and fourth row: a map over the pixels, each class in its color, and the image "
        "of that map with the text and the noise of the second row. Green frame: the reader finds "
        "all that the text names; orange: it does not. Nothing is selected.",
        "Four rows of images: digits, shapes of a prompt, class-index maps, and their images.",
    )


def conflicts(groups: Mapping[str, tuple[Sequence[Case], Sequence[Outcome]]], shown: int) -> Figure:
    """Maps, and images of prompts that contradict them."""
    images: list[list[Image]] = []
    texts: list[list[str]] = []
    verdicts: list[list[bool | None]] = []
    for name, (cases, outcomes) in groups.items():
        images += [[c.hint for c in cases[:shown]], [one.image for one in outcomes[:shown]]]
        texts += [[f"map; the prompt names {name}"] * shown, [c.prompt for c in cases[:shown]]]
        verdicts += [[None] * shown, [one.prompt for one in outcomes[:shown]]]
    return Figure(
        "conditions-conflicts.png",
        plots.png(image_rows(images, verdicts=verdicts, side=2.0, texts=texts)),
        "Maps, and below them the images of prompts that contradict them: of other shapes, and of "
        "another number of things. Green frame: the image shows its prompt; orange: it does not.",
        "Rows of class-index maps, each with a row of images of prompts that contradict them.",
    )


def distances(groups: Mapping[str, Sequence[Outcome]]) -> Figure:
    """The share of things within a distance of their place in the map."""
    radii = np.linspace(0.0, 8.0, 161)
    series = []
    for name, outcomes in groups.items():
        errors = np.array([error for one in outcomes for error in one.errors])
        shares = [100 * float(np.mean(errors <= radius)) for radius in radii]
        series.append(line(name, radii, shares))
    chart = Chart(
        "Distance of things from their places in the map",
        Axis("distance between centroids (pixels of 64)", 0, 8),
        Axis("things within that distance (%)", 0, 102),
        series,
        marked_x=(NEAR, ""),
    )
    return Figure(
        "conditions-distances.png",
        plots.png(side_by_side([chart], 8.5, 4.8, legend_columns=2)),
        "Share of the map's things (vertical, percent) that the image has within a distance "
        "(horizontal, pixels of 64). Without the map the prompt leaves the place open. Where the "
        "reader finds another number of things than the map has, all of them are infinitely far. "
        f"The dashed line is at {NEAR:g} pixels.",
        "Curves of shares against distance: with the map they rise at once, without it slowly.",
    )


def winners(groups: Mapping[str, Sequence[Outcome]]) -> Table:
    """Of images of contradicting conditions: which they show."""
    rows = []
    for name, outcomes in groups.items():
        each = [
            [one.prompt for one in outcomes],
            [one.map for one in outcomes],
            [not one.prompt and not one.map for one in outcomes],
        ]
        shares = [share_of(one) for one in each]
        shares.append(share_of_groups([one.placed for one in outcomes]))
        rows.append((name, str(len(outcomes)), *(bracketed(*one) for one in shares)))
    header = ("the prompt names", "images", "show the prompt", "show the map", "neither", "placed")
    caption = (
        "Images of a map and a prompt that contradict each other, with 95% intervals. "
        "An image shows the map if it has the map's shapes in their places and nothing else. "
        f"Placed: share of the map's things with a thing, of whatever shape, within {NEAR:g} "
        "pixels."
    )
    return Table(header, tuple(rows), caption)
