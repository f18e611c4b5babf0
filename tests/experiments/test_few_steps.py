"""Few network calls: who is asked what, and what is counted."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main
from experiments.common.model_options import Model
from experiments.few_steps import Config
from experiments.few_steps import run as few_steps
from sd.shapes.caption import parse
from sd.shapes.data import FRESH, example
from sd.shapes.scene import HELD_OUT
from tests.support.result_schema import check

COUNT = 48


class Drawing:
    """Stands for a model: draws a prompt rightly at `enough` steps, else nothing."""

    def __init__(self, enough: int, distilled: int) -> None:
        self.enough = enough
        self.config = SimpleNamespace(sampling_steps=distilled)
        self.asked: list[tuple[Any, ...]] = []
        whole = [example(FRESH + 3, i, held) for held in (False, True) for i in range(COUNT)]
        self.images = {one.caption: one.image for one in whole}

    def __call__(
        self, some: Sequence[str], seed: list[int], progress: bool, solver: str = "own",
        steps: int = 6,
    ) -> list[Image.Image]:  # fmt: skip
        self.asked += [(prompt, one, solver, steps) for prompt, one in zip(some, seed, strict=True)]
        blank = np.zeros((64, 64, 3), np.uint8)
        drawn = (self.images[one] if steps >= self.enough else blank for one in some)
        return [Image.fromarray(one) for one in drawn]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[str, Drawing]:
    found = {"shapes": Drawing(6, 0), "shapes-distilled": Drawing(1, 6)}

    def load(model: Model) -> Drawing:
        return found[str(model.weights)]

    monkeypatch.setattr(few_steps, "load", load)
    return found


def test_schema_and_what_is_counted(models: dict[str, Drawing]) -> None:
    """Three guided steps show nothing, six and more show all; six calls of the other show all."""
    result = few_steps.run(Config(count=COUNT, steps=(3, 6), seed=5))
    check(result, "few-steps")
    found = {row.name: (row.measured, row.verdict) for row in result.rows}
    assert found["few-steps"] == (1.0, "holds")
    assert found["few-steps-most"] == (0.0, "measured")
    for kind in ("seen", "new"):
        assert found[f"few-steps-{kind}-guided-3-steps"][0] == 0.0
        assert found[f"few-steps-{kind}-guided-6-steps"][0] == 1.0
        assert found[f"few-steps-{kind}-distilled"][0] == 1.0
    assert [one["calls"] for one in result.data["right"]] == [6, 12, 6]


def test_all_have_the_same_prompts_and_seeds(models: dict[str, Drawing]) -> None:
    """Half of the prompts name a pair that was not seen in training."""
    few_steps.run(Config(count=8, steps=(3, 6), seed=5))
    guided, few = models["shapes"].asked, models["shapes-distilled"].asked
    pairs = [one[:2] for one in few]
    assert [one[:2] for one in guided] == pairs * 2 and len(pairs) == 16
    assert [one[1] for one in few] == [*range(5, 13)] * 2
    assert {one[2:] for one in few} == {("own", 6)}
    assert [one[2:] for one in guided] == [("dpmpp_2m", 3)] * 16 + [("dpmpp_2m", 6)] * 16
    new = []
    for prompt, _ in pairs:
        said = parse(prompt)
        assert said is not None
        new.append(any((one.color, one.shape) in HELD_OUT for one in said.things))
    assert new == [False] * 8 + [True] * 8


def test_few_prompts_decide_nothing(models: dict[str, Drawing]) -> None:
    result = few_steps.run(Config(count=4, steps=(3,)))
    assert {row.verdict for row in result.rows} == {"too few samples", "measured"}


@pytest.mark.parametrize("name", ["cfg", "tradeoff", "evaluate"])
def test_experiments_on_the_flow_or_on_guidance_refuse_a_distilled_model(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([name, "--model", "shapes-distilled", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --model: wanted a model that is not distilled: ")
    assert list(tmp_path.iterdir()) == []


def test_one_number_of_steps_is_compared_once(models: dict[str, Drawing]) -> None:
    result = few_steps.run(Config(count=4, steps=(3,)))
    assert [row.name for row in result.rows[:2]] == ["few-steps", "few-steps-seen-distilled"]
