"""A corpus of mistakes that were made, or are easily made, and the checks that reject them.

They are read in `mistakes_of_steps`, `mistakes_of_solvers`, `mistakes_of_noise`,
`mistakes_of_starts`, `mistakes_of_training` and `mistakes_of_numbers`: what was done, where, and
what tells it from the right. The shipped function passes the very check that the mistake fails.
"""

import pytest

from tests.diffusion_math.mistakes.mistake import Mistake
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
