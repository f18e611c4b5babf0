"""A corpus of mistakes that were made, or are easily made, and the checks that reject them.

They are in the modules beside this one: what was done, where, and what tells it from the right. The
shipped function passes the very check that the mistake fails. A mistake in a formula that the
catalogue of `diffusion_math.testing` has is drawn from there (`named`).
"""

from pathlib import Path

import pytest

from tests.diffusion_math.mistakes.mistake import Mistake
from tests.diffusion_math.mistakes.named import DRAWN
from tests.diffusion_math.mistakes.noise import NOISES
from tests.diffusion_math.mistakes.numbers import NUMBERS
from tests.diffusion_math.mistakes.solvers import SOLVERS
from tests.diffusion_math.mistakes.starts import STARTS
from tests.diffusion_math.mistakes.steps import STEPS
from tests.diffusion_math.mistakes.training import TRAINING

MISTAKES = [*STEPS, *SOLVERS, *NOISES, *STARTS, *TRAINING, *NUMBERS]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_the_mistake_is_rejected(mistake: Mistake) -> None:
    mistake.check(mistake.right)
    with pytest.raises(AssertionError):
        mistake.check(mistake.wrong)


def test_the_corpus_is_a_corpus() -> None:
    """Names are unique; every right version is a function that ships, every wrong one is not it."""
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 20
    for mistake in MISTAKES:
        assert mistake.wrong is not mistake.right
        assert mistake.right.__module__.startswith("diffusion_math.")
        assert mistake.what.endswith(".") and mistake.source and mistake.check.__name__


def test_what_is_drawn_from_the_catalogue_has_its_name() -> None:
    """Hand-made entries are on the page of mistakes, where each is planted and named."""
    page = Path(__file__).resolve().parents[3] / "docs" / "mistakes.md"
    text = page.read_text(encoding="utf-8")
    corpus = {mistake.name: mistake.what for mistake in MISTAKES}
    assert len(DRAWN) >= 10
    starts = "every coefficient is its right value of", "the coefficient of noise is sqrt"
    for name, entry in DRAWN.items():
        assert corpus[name] == f"The catalogue's: {entry}."
        assert entry.startswith(starts) or f"| {entry} |" in text  # or generated
