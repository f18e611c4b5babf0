"""docs/tuned-grids.md: its example runs as it stands, and does what the page says."""

import re
from pathlib import Path

import pytest

from diffusion_math.fitting.grids import distances, errors
from diffusion_math.solvers.registry import SOLVERS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tuned-grids.md"


@pytest.mark.usefixtures("unchecked")
def test_the_example_ends_nearer_than_what_it_contains():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    names = {}
    exec(code, names)
    path = names["path"]
    mine = distances(names["x"], path.states[-1]).log().mean()
    for name in ("ddim", "dpmpp_2m", "unipc"):
        step = SOLVERS[name](names["schedule"])
        its = errors(step, names["denoise"], path.states[0], path.states[-1], names["grid"])
        assert mine < its.log().mean() - 0.5, name
