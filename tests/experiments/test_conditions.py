"""The three kinds of condition: prompts that contradict their maps, and what is counted."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.conditions import measure
from experiments.conditions import run as conditions
from sd.shapes.caption import describe, parse
from sd.shapes.reader import agrees
from sd.shapes.render import render
from sd.shapes.scene import HELD_OUT
from tests.support.result_schema import check

CASES = measure.agreeing(60)


def test_a_prompt_of_other_shapes_shares_none_with_the_map() -> None:
    for case in CASES:
        said = parse(measure.other_shapes(case).prompt)
        assert said is not None and len(said.things) == len(case.scene.things)
        named = [(one.color, one.shape) for one in said.things]
        assert not {shape for _, shape in named} & {one.shape for one in case.scene.things}
        assert [color for color, _ in named] == [one.color for one in case.scene.things]
        assert len(set(named)) == len(named) and not set(named) & HELD_OUT


def test_a_prompt_of_another_number_keeps_the_first_thing() -> None:
    for case in CASES:
        said = parse(measure.other_number(case).prompt)
        assert said is not None and len(said.things) == 3 - len(case.scene.things)
        first = case.scene.things[0]
        assert (said.things[0].color, said.things[0].shape) == (first.color, first.shape)
        assert not agrees(describe(case.scene), said)


def test_agreeing_prompts_are_true_of_their_scenes() -> None:
    for case in CASES:
        said = parse(case.prompt)
        assert said is not None and agrees(describe(case.scene), said)
    assert len({case.prompt for case in CASES}) > 50


class Obedient:
    """Stands for the model: draws the scene of the seed where there is a map, else nothing."""

    dtype = device = None

    def __call__(
        self, prompts: list[str], seed: list[int], progress: bool, controls: Any = ()
    ) -> Any:
        blank = np.full((64, 64, 3), 250, np.uint8)
        drawn = [render(CASES[one].scene) if controls else blank for one in seed]
        assert not controls or np.array_equal(controls[0], CASES[seed[0]].hint)
        return list(map(Image.fromarray, drawn))


@pytest.fixture
def result(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(conditions, "load", lambda model: Obedient())
    monkeypatch.setattr(conditions, "load_controlnet", lambda *_, **__: object())
    monkeypatch.setattr(measure, "Control", lambda network, image: image)
    return conditions.run(conditions.Config(count=48, conflicts=8, digit_steps=2))


def test_schema_and_what_is_counted(result: Any) -> None:
    """All is as the map has it with the map, and nothing without it."""
    check(result, "conditions")
    found = {row.name: (row.measured, row.verdict) for row in result.rows}
    assert found["conditions"] == (1.0, "holds")
    assert found["conditions-median"][0] < 0.5
    assert found["conditions-placed-without"][0] == found["conditions-accuracy-without"][0] == 0.0
    assert found["conditions-accuracy"][0] == 1.0
    assert found["conditions-gain"] == (1.0, "holds")
    for name in ("shapes", "number"):
        assert found[f"conditions-{name}-map"][0] == 1.0
        assert found[f"conditions-{name}-prompt"][0] == 0.0


def test_few_scenes_decide_nothing() -> None:
    blank = Image.new("RGB", (64, 64))
    outcomes = [measure.Outcome(blank, True, True, [0.1])]
    found = dict.fromkeys((conditions.SHAPES, conditions.NUMBER), outcomes)
    verdicts = {row.verdict for row in conditions._rows(outcomes, outcomes, found)}
    assert verdicts == {"too few samples", "measured"}
