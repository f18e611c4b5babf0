"""What has no effect on a picture is warned of before it is drawn."""

import warnings
from typing import Any

import pytest
import torch

from sd.text import clip_vocabulary
from sd.text.tokenizer import Tokenizer
from sd.unused_arguments import warn_prompts
from tests.support.pixel_pipeline import SCHEDULE, Nothing, model


def test_a_word_that_was_learned_is_missed_until_a_prompt_has_it() -> None:
    pipeline = model(Nothing())
    pipeline.tokenizer.learn("<Toy>", [1, 2])
    with pytest.warns(UserWarning, match="no prompt so far has '<toy>'; an embedding acts only"):
        pipeline("red", steps=1, progress=False)
    pipeline("red", negative_prompt="a <TOY>", steps=1, progress=False)
    pipeline("red", steps=1, progress=False)


def test_a_learned_word_counts_where_every_word_is_known() -> None:
    """CLIP's vocabulary has no unknown word; the first prompt with the learned one is enough."""
    rules = clip_vocabulary.rules_of_merges([("c", "a"), ("ca", "t</w>")])
    tokenizer = Tokenizer(rules, 20)
    tokenizer.learn("cat-toy", [1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_prompts(tokenizer, ["a cat-toy"])
    tokenizer.learn("dog-toy", [3])
    with pytest.warns(UserWarning, match="no prompt so far has 'dog-toy'"):
        warn_prompts(tokenizer, ["a cat-toy"])


def test_marks_of_other_interfaces_are_warned_of_once() -> None:
    pipeline = model(Nothing())
    shown = r"\[red\|red\] \(alternating words\), \( \(a weight of all that follows\)"
    with pytest.warns(UserWarning, match=f"prompt: read as plain words, .*: {shown}") as seen:
        pipeline(["[red|red]", "(red"], negative_prompt="[red|red]", steps=1, progress=False)
    assert len(seen) == 1


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_an_interval_between_two_nodes_is_for_solvers_that_look_there(solver: str) -> None:
    """Two steps from the noise levels of t = 1000 and 500."""
    pipeline = model(Nothing())
    alpha, sigma = SCHEDULE(torch.tensor([1000, 500]))
    high, low = (sigma / alpha).tolist()
    options: dict[str, Any] = {"solver": solver, "steps": 2, "progress": False}
    between = {"guidance_interval": (low * 1.01, high * 0.99)}
    if solver == "heun":
        pipeline("red", **between, **options)
    else:
        with pytest.warns(UserWarning, match="guidance_interval: no step has a noise level in"):
            pipeline("red", **between, **options)
    pipeline("red", guidance_interval=(low * 0.99, low * 1.01), **options)
    with pytest.warns(UserWarning, match="guidance_interval: no step has a noise level in"):
        pipeline("red", guidance_interval=(high * 1.01, high * 2), **options)
