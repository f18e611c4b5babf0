"""Each claim's own test rejects each wrong version that the verification page names."""

from collections import Counter

import pytest

from experiments.verify.claims import IDS, Rejection, rejections
from tests.claims import (  # noqa: F401  (they fill the corpus)
    bound,
    conditions,
    forward,
    sampling,
    score,
)
from tests.claims.wrong import CORPUS, Wrong, rejected, run

SLOW = ("test_c01_", "test_c31_", "test_prompts_come_true_", "test_c19_weight_one_")
"""Tests that train or sample with whole networks."""


def case(one: Wrong) -> object:
    slow = one.test.__name__.startswith(SLOW)
    return pytest.param(one, marks=pytest.mark.slow if slow else (), id=one.id)


@pytest.mark.usefixtures("unchecked")  # the wrong versions answer to no annotation
@pytest.mark.parametrize("one", [case(one) for one in CORPUS])
def test_the_wrong_version_is_rejected(one: Wrong) -> None:
    rejected(one)


RUNS = {(one.test, tuple(one.arguments.items())): one for one in CORPUS}


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("one", [case(one) for one in RUNS.values()])
def test_the_right_version_passes_the_same_way(one: Wrong) -> None:
    run(one.test, one.arguments)


@pytest.fixture(scope="module")
def on_the_page() -> list[Rejection]:
    return rejections()


@pytest.mark.parametrize("claim", IDS)
def test_every_claim_has_two_wrong_versions_on_the_page(
    claim: str, on_the_page: list[Rejection]
) -> None:
    """Two at least, each with a sentence of its own; what is on the page is what is run."""
    run = [one for one in CORPUS if one.claim == claim]
    said = [one for one in on_the_page if one.claim == claim]
    assert len({one.name for one in run}) >= 2
    assert Counter(one.name for one in run) == Counter(one.name for one in said)
    for one in said:
        assert one.what.endswith(".") and len(one.what) > 20


@pytest.mark.parametrize("one", CORPUS, ids=lambda one: one.id)
def test_its_test_is_a_proof_of_its_claim(one: Wrong) -> None:
    """The test carries the claim's mark; the versions' names are unique in a claim and test."""
    marks = [mark for mark in getattr(one.test, "pytestmark", []) if mark.name == "claim"]
    assert one.claim in {mark.args[0] for mark in marks}
    assert sum(other.id == one.id for other in CORPUS) == 1
