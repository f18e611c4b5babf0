"""The weights that ship, through the path a user takes: do they draw what they are asked?

Forty fresh prompts each; the exact binomial false alarm is below 1e-6 for a model that is right
in 95% (seen pairs) and 80% (held-out pairs), while a model right in half of them fails for sure
on the first and by a toss on the second. Larger counts are in the report.
"""

from pathlib import Path

import pytest
from scipy.stats import binom

from experiments.__main__ import main
from experiments.model import Model, draw, shows
from sd.pipeline import TextToImage
from sd.shapes.judge import prompts

COUNT, FALSE_ALARM = 40, 1e-6


@pytest.fixture(scope="module")
def shipped() -> TextToImage:
    return Model(device="cpu").load()


@pytest.mark.parametrize(("held_out", "share"), [(False, 0.95), (True, 0.80)])
def test_prompts_come_true(shipped: TextToImage, held_out: bool, share: float) -> None:
    asked = prompts(7, COUNT, held_out)
    pictures = draw(shipped, asked, range(COUNT))
    right = sum(shows(*pair) is True for pair in zip(pictures, asked, strict=True))
    assert binom.cdf(right, COUNT, share) > FALSE_ALARM, f"{right} of {COUNT}"


def test_like_repeats_a_shipped_picture(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["generate", "--device", "cpu", "--seed", "3", "--out", str(first)]) == 0
    (path,) = first.glob("*.png")
    assert main(["generate", "--like", str(path), "--out", str(second)]) == 0
    assert (second / path.name).read_bytes() == path.read_bytes()
