from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd.shapes.caption import (
    OMIT,
    VOCABULARY,
    Description,
    Mention,
    caption,
    describe,
    parse,
    phrase,
)
from sd.shapes.scene import BACKGROUNDS, COLORS, RELATIONS, SHAPES, SIZES, sample_scene
from tests.support.chance import Count, rare
from tests.support.chance import rng as generator

MENTIONS = [Mention(*m) for m in product(SHAPES, COLORS, (None, *SIZES))]
GROUNDS = (None, *BACKGROUNDS)
NUMBERS = st.integers(0, len(MENTIONS) - 1)


def test_parse_is_the_inverse_of_phrase_for_every_single_thing() -> None:
    for mention, ground in product(MENTIONS, GROUNDS):
        description = Description((mention,), None, ground)
        assert parse(phrase(description)) == description


@given(NUMBERS, NUMBERS)
def test_parse_is_the_inverse_of_phrase(one: int, two: int) -> None:
    for relation, ground in product(RELATIONS, GROUNDS):
        description = Description((MENTIONS[one], MENTIONS[two]), relation, ground)
        assert parse(phrase(description)) == description


@given(NUMBERS, NUMBERS)
def test_captions_are_of_the_vocabulary_with_the_right_articles(one: int, two: int) -> None:
    for relation, ground in product(RELATIONS, GROUNDS):
        words = phrase(Description((MENTIONS[one], MENTIONS[two]), relation, ground)).split()
        assert set(words) <= set(VOCABULARY)
        for article, word in pairwise(words):
            if article in ("a", "an"):
                assert (article == "an") == (word == "orange")


@given(st.integers(0, 2**32), st.booleans())
def test_a_caption_says_of_its_scene_nothing_but_the_truth(seed: int, held_out: bool) -> None:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, held_out)
    said, full = parse(caption(scene, rng)), describe(scene)
    assert said is not None and said.relation == full.relation
    assert said.background in (None, full.background)
    for part, whole in zip(said.things, full.things, strict=True):
        assert (part.color, part.shape) == (whole.color, whole.shape)
        assert part.size in (None, whole.size)


@pytest.mark.chance(1.2e-8, "a rate of 0.2 or 0.4; all three left out together")
def test_sizes_and_background_are_left_out_independently_at_the_stated_rate() -> None:
    """How often each of the three is left out, and each two, of 4000 captions: binomial counts."""
    rng = generator(0)
    scene = sample_scene(rng)
    while scene.relation is None:
        scene = sample_scene(rng)
    said = [parse(caption(scene, rng)) for _ in range(4000)]
    left_out = np.array(
        [
            [d.things[0].size is None, d.things[1].size is None, d.background is None]
            for d in said
            if d
        ]
    )
    n = len(left_out)
    assert n == 4000
    for i in range(3):
        alone = Count(n, OMIT, 1e-9)
        assert alone.holds(int(left_out[:, i].sum()))
        assert rare(alone.misses(OMIT - 0.1) + alone.misses(OMIT + 0.1))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = Count(n, OMIT**2, 1e-9)
        assert both.holds(int((left_out[:, i] & left_out[:, j]).sum()))
        assert rare(both.misses(OMIT))


@pytest.mark.parametrize(
    "text",
    [
        "A Large Red Circle above a small BLUE ring on a black background.",
        "large red circle above small blue ring on a black background",
        "  a large  red circle above an small blue ring on a black background ",
    ],
)
def test_parse_forgives_case_spacing_and_articles(text: str) -> None:
    things = (Mention("circle", "red", "large"), Mention("ring", "blue", "small"))
    assert parse(text) == Description(things, "above", "black")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "circle",
        "red",
        "a red",
        "a circle red",
        "a red large circle",
        "a pink circle",
        "a red circle a blue ring",
        "a red circle above",
        "above a red circle",
        "a red circle left a blue ring",
        "a red circle above a blue ring above a red star",
        "a red circle on a pink background",
        "a red circle on black background",
        "a red circle on a background",
        "on a black background",
        "background",
        "a a red circle",
        "a red circle on a black background on a black background",
        "a photo of a cat",
    ],
)
def test_parse_rejects_what_is_not_of_the_grammar(text: str) -> None:
    assert parse(text) is None


@given(st.lists(st.sampled_from(VOCABULARY), max_size=14).map(" ".join))
def test_parse_never_fails_and_keeps_every_word_it_accepts(text: str) -> None:
    description = parse(text)
    if description is not None:
        articles = ("a", "an")
        assert [w for w in phrase(description).split() if w not in articles] == [
            w for w in text.split() if w not in articles
        ]


def test_vocabulary_has_no_doubles_and_is_all_used() -> None:
    texts = [
        phrase(Description((Mention(s, c, z), Mention(s, c, z)), r, g))
        for s in SHAPES
        for c in COLORS
        for z in (None, *SIZES)
        for r in RELATIONS
        for g in BACKGROUNDS
    ]
    assert sorted({word for text in texts for word in text.split()}) == sorted(VOCABULARY)
