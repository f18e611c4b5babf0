"""Checkpoints as pipelines: diffusers' own files, run beside diffusers."""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sd import checkpoint
from sd.pipeline import TextToImage
from sd.text import clip_vocabulary
from sd.text.tokenizer import word_level
from tests.support import small_models
from tests.support.whole_run import OTHER, Run, apart

diffusers = pytest.importorskip("diffusers")

WORDS = tuple(
    f"word{i}" for i in range(47)
)  # with three special tokens, the 50 of the small models
STEPS, SCALE, SEED = 4, 7.5, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with its tokenizer."""
    place = tmp_path_factory.mktemp("checkpoint") / "model"
    checkpoint.save_folder(place, small_models.networks(small_models.V1))
    (place / "tokenizer").mkdir(exist_ok=True)
    word_level(WORDS).save(str(place / "tokenizer" / "tokenizer.json"))
    return place


def end(pipeline: TextToImage, prompt: str, **call: object) -> torch.Tensor:
    states: list[torch.Tensor] = []
    pipeline(
        prompt, seed=SEED, steps=STEPS, guidance_scale=SCALE, height=64, width=64, progress=False,
        watch=lambda state: states.append(state.x), **call,
    )  # fmt: skip
    return states[-1]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("solver", "redraws"),
    [
        ("ddim", False),
        pytest.param("ddim", True, marks=pytest.mark.slow),
        pytest.param("dpmpp_2m", False, marks=pytest.mark.slow),
        ("dpmpp_2m", True),
    ],
)
def test_a_picture_is_diffusers(folder: Path, solver: str, redraws: bool) -> None:
    """Prompts, guidance, schedule and steps together: the latents after guided steps.

    In float64, since random networks and a scale of 7.5 blow rounding up; what is left is that of
    the peer's tables, which are float32.
    """
    run = Run(solver, redraws, side=64)
    pipeline = TextToImage.load(folder, device="cpu", dtype=torch.float64)
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet").double()
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae").double()
    wanted = run.theirs(pipeline, unet, vae)
    assert apart(run.ours(pipeline), wanted) < 1e-4
    assert apart(run.ours(pipeline, OTHER), wanted) > 1e-2


def test_a_single_file_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    """With its vocabulary named; without one there is one line that says how to name it."""
    file = tmp_path / "model.safetensors"
    checkpoint.save_single(file, small_models.networks(small_models.V1))
    one = TextToImage.load(folder, device="cpu")
    two = TextToImage.load(file, device="cpu", tokenizer=folder / "tokenizer")
    assert torch.equal(end(one, "word1"), end(two, "word1"))
    with pytest.raises(ValueError, match="has no vocabulary of its own; name one with --tokenizer"):
        TextToImage.load(file, device="cpu")


def test_what_is_no_checkpoint_is_said_before_a_missing_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"x": torch.ones(1)}, file)
    for place in (tmp_path, file):
        with pytest.raises(ValueError, match=rf"^checkpoint {re.escape(str(place))}: "):
            TextToImage.load(place, device="cpu")
    with pytest.raises(ValueError, match=r"^model: wanted 'shapes', .*, got \w+Path\('shapes'\)"):
        TextToImage.load(Path("shapes"), device="cpu")


@pytest.mark.slow
def test_prompts_longer_than_a_row_and_weights(folder: Path) -> None:
    pipeline = TextToImage.load(folder, device="cpu")
    long = " ".join(WORDS[:40])
    assert pipeline.encode_prompts([long, "word1"], "chunk").shape[1] == 3 * 20
    assert not torch.allclose(end(pipeline, long), end(pipeline, " ".join(WORDS[:18])), atol=1e-3)
    assert not torch.allclose(end(pipeline, "(word1:1.5)"), end(pipeline, "word1"), atol=1e-4)
    assert torch.equal(end(pipeline, "word1", clip_skip=0), end(pipeline, "word1"))
    assert not torch.allclose(end(pipeline, "word1", clip_skip=1), end(pipeline, "word1"))


def test_an_image_does_not_depend_on_longer_prompts_beside_it(folder: Path) -> None:
    """Not by empty rows that fill its context up, with and without a long negative prompt."""
    pipeline = TextToImage.load(folder, device="cpu")
    long, longest = " ".join(WORDS[:30]), " ".join(WORDS[:50])

    def images(prompts: list[str], seeds: list[int], **call: object) -> Tensor:
        own = {"steps": 2, "height": 32, "width": 32, "progress": False, **call}
        drawn = pipeline(prompts, seed=seeds, **own)  # type: ignore[arg-type]
        return torch.stack([torch.from_numpy(np.asarray(one).astype(int)) for one in drawn])

    for call in ({}, {"negative_prompt": long}, {"guidance_scale": 1.0}):
        beside = images([longest, "word1", long, "word2"], [1, 2, 3, 4], **call)
        alone = [images([p], [k], **call)[0] for p, k in (("word1", 2), (long, 3), (longest, 1))]
        # Networks may round otherwise in another batch: a level of 255.
        assert (beside[[1, 2, 0]] - torch.stack(alone)).abs().max() <= 1
    other = images(["word1"], [2], negative_prompt=long)
    assert (images(["word1"], [2]) - other).abs().max() > 20


def test_options_are_a_checkpoints(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ema, variant: wanted a checkpoint with it, got 'shapes'"):
        TextToImage.load("shapes", device="cpu", ema=True, variant="fp16")
    with pytest.raises(
        ValueError,
        match="model: wanted 'shapes', 'shapes-distilled', a folder of weights, a checkpoint",
    ):
        TextToImage.load(tmp_path / "nowhere", device="cpu")


MERGES = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
RULES = clip_vocabulary.rules_of_merges(MERGES)
SIZE = RULES.get_vocab_size()
CLIPS = replace(small_models.V1, text=replace(small_models.V1.text, vocab_size=SIZE))
GROWN: dict[str, tuple[int, bool, str | None]] = {  # rows of the table, words added, the complaint
    "as it was": (SIZE, False, None),
    "two words more": (SIZE + 2, True, None),
    "padded": (528, False, None),
    "two words more, and padded": (528, True, None),
    "padded too far": (SIZE // 8 * 8 + 136, False, "name the tokenizer folder that was saved with"),
    "rows that no word has": (SIZE + 1, False, "rows. Where textual inversion added words, name"),
    "words that have no row": (
        SIZE,
        True,
        f"it has {SIZE + 2} tokens, the text encoder {SIZE} row",
    ),
}


@pytest.mark.parametrize("name", GROWN)
def test_a_folder_saved_after_textual_inversion(name: str, tmp_path: Path) -> None:
    """The table of the text encoder grew with the tokenizer: its new rows are words of prompts."""
    transformers = pytest.importorskip("transformers")
    rows, words, complaint = GROWN[name]
    small_models.write_folder(tmp_path, CLIPS)
    text = transformers.CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text.resize_token_embeddings(rows)
    text.save_pretrained(tmp_path / "text_encoder")
    peer = transformers.CLIPTokenizer(vocab=RULES.get_vocab(), merges=MERGES)
    if words:
        peer.add_tokens(["<toy>", "<toy>_1"])
    peer.save_pretrained(tmp_path / "tokenizer")
    if complaint is not None:
        with pytest.raises(ValueError, match=complaint):
            TextToImage.load(tmp_path, device="cpu")
        return
    found = TextToImage.load(tmp_path, device="cpu")
    tokens = peer("a <toy> <toy>_1 dog", padding="max_length", max_length=20)["input_ids"]
    wanted = text(torch.tensor([tokens])).last_hidden_state
    context = found.encode_prompts(["a <toy> dog" if words else "a <toy> <toy>_1 dog"], "truncate")
    torch.testing.assert_close(context, wanted.detach(), rtol=1e-4, atol=1e-5)
