"""The contrastive training: its loss in closed form, which captions are true of which image."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sd.config import SHAPES_CONFIG, TextConfig
from sd.networks.text_encoder import TextEncoder
from sd.shapes.caption import caption, describe, parse
from sd.shapes.reader import agrees
from sd.shapes.scene import HELD_OUT, Scene, Thing, sample_scene
from sd.text.tokenizer import Tokenizer
from sd.train.clip import CLIPTraining, batches, info_nce, train_clip
from sd.train.contrastive_pairs import alter, contrastive_pairs, truths
from sd.train.source import Shapes
from tests.support.chance import pinned
from tests.support.measuring import Measured

seeds = st.integers(0, 2**32)


@pytest.mark.claim("C30", "sd.train.clip.info_nce")
def test_the_loss_is_its_closed_form(measured: Measured) -> None:
    """Both directions, pair by pair: -log(e^l_ii / sum_j e^l_ij) over the rows and over the columns
    of a matrix that is not symmetric, the sums without the captions that are true beside their own.

    The loss in one direction is another number, and so is that with the true captions left in.
    """
    logits = 3 * torch.randn(5, 5, generator=pinned(0), dtype=torch.float64)
    true = torch.eye(5, dtype=torch.bool)
    true[0, 3] = true[4, 1] = True
    logits[0, 3] = logits[4, 1] = 4.0

    def rows(scores: np.ndarray, left_out: np.ndarray) -> float:
        each = []
        for i in range(5):
            kept = [scores[i, j] for j in range(5) if j == i or not left_out[i, j]]
            each.append(math.log(sum(map(math.exp, kept))) - scores[i, i])
        return sum(each) / 5

    images = rows(logits.numpy(), true.numpy())
    captions = rows(logits.T.numpy(), true.T.numpy())
    loss, _ = info_nce(logits, true)
    error = abs(float(loss) / ((images + captions) / 2) - 1)
    measured(error, 1e-12, "relative error of the contrastive loss: its closed form")
    assert abs(images - captions) > 0.01
    assert abs(rows(logits.numpy(), np.zeros((5, 5))) - images) > 0.1
    perfect, matched = info_nce(100 * torch.eye(5, dtype=torch.float64), true)
    assert float(perfect) < 1e-12 and float(matched) == 1.0


def test_true_captions_are_no_negatives() -> None:
    """Caption 1 is true of image 0: that entry is out of the sums of row 0 and column 1."""
    logits = torch.tensor([[1.0, 9.0], [2.0, 3.0]], dtype=torch.float64)
    true = torch.tensor([[True, True], [False, True]])
    loss, matched = info_nce(logits, true)
    rows = [0.0, math.log(math.exp(2) + math.exp(3)) - 3]
    columns = [math.log(math.exp(1) + math.exp(2)) - 1, 0.0]
    assert float(loss) == pytest.approx((sum(rows) + sum(columns)) / 4, rel=1e-12)
    assert float(matched) == pytest.approx(0.75)  # column 0 prefers image 1


@settings(max_examples=20)
@given(seeds)
def test_truth_agrees_with_the_reader_of_images(seed: int) -> None:
    """Two independent comparisons of what is said with what there is."""
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng) for _ in range(6)]
    scenes += [alter(scene, rng) for scene in scenes]
    captions = [caption(scene, rng) for scene in scenes]
    said = [parse(text) for text in captions]
    assert None not in said
    wanted = [[agrees(describe(scene), text) for text in said if text] for scene in scenes]
    found = truths(scenes, captions)
    assert found.tolist() == wanted
    assert found.diagonal().all()


def test_either_order_of_the_things_says_the_same() -> None:
    a, b = (
        Thing("ring", "red", "small", -0.5, 0.0, 0.2),
        Thing("star", "blue", "large", 0.5, 0.0, 0.3),
    )
    scene = Scene((a, b), "left of", "gray")
    claims = {
        "a red ring left of a blue star": True,
        "a blue star right of a red ring": True,
        "a blue star right of a small red ring on a gray background": True,
        "a blue star left of a red ring": False,
        "a red ring above a blue star": False,
        "a large red ring left of a blue star": False,
        "a red ring left of a blue star on a black background": False,
        "a red star left of a blue ring": False,
        "a red ring": False,
    }
    assert truths([scene], list(claims))[0].tolist() == list(claims.values())
    with pytest.raises(ValueError, match="wanted captions"):
        truths([scene], ["a red dog"])


@given(seeds)
@example(967)
def test_an_altered_scene_is_new_and_of_the_training_world(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    other = alter(scene, rng)
    found = [(thing.color, thing.shape) for thing in other.things]
    assert describe(other) != describe(scene)
    assert not HELD_OUT.intersection(found)
    assert len(set(found)) == len(found)
    # Scenes keep within 0.95. A square that becomes a star is wider by 0.35 radii of 0.36 at most.
    for thing in other.things:
        assert max(abs(thing.x) + thing.half_extent[0], abs(thing.y) + thing.half_extent[1]) < 1.08


def test_pairs_are_a_function_of_their_arguments() -> None:
    one, two, other = (
        contrastive_pairs(0, 3, 16, 0.5),
        contrastive_pairs(0, 3, 16, 0.5),
        contrastive_pairs(0, 4, 16, 0.5),
    )
    assert one.captions == two.captions
    assert np.array_equal(one.images, two.images)
    assert one.captions != other.captions
    assert one.images.shape == (16, 64, 64, 3)
    with pytest.raises(ValueError, match="alike: wanted a number in"):
        contrastive_pairs(0, 0, 16, 1.5)


def test_a_short_training_learns_and_can_be_asked_again(tmp_path: Path) -> None:
    config = TextConfig(
        vocab_size=29, width=32, layers=1, heads=2, context_length=24, intermediate=64
    )
    training = CLIPTraining(
        steps=12, batch_size=16, learning_rate=2e-3, out=tmp_path, warmup=2, ema=0.5,
        log_every=1, checkpoint_every=12, cpu=True,
    )  # fmt: skip
    state, figures = train_clip(training, config, evaluation=1)
    TextEncoder(config).load_state_dict(state, strict=True)
    assert set(figures) == {
        "fresh_loss", "fresh_matched", "fresh_alike_loss", "fresh_alike_matched",
    }  # fmt: skip
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < losses[0]
    again, same = train_clip(training, config, evaluation=1)  # nothing left to do
    assert same == figures
    for name, weight in state.items():
        assert torch.equal(again[name], weight), name


def test_batches_hold_tokens_of_the_captions() -> None:
    images, tokens, true = batches(Tokenizer.embedded(), partial(Shapes(1).pairs, size=8))(5)
    assert images.dtype == torch.uint8
    assert (
        tokens.tolist()
        == Tokenizer.embedded().encode(contrastive_pairs(1, 5, 8, 0.5).captions).tolist()
    )
    assert true.shape == (8, 8)
    assert int(tokens.max()) == SHAPES_CONFIG.text.end_token
