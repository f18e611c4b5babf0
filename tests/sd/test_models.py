"""Checkpoints as pipelines: diffusers' own files, run beside diffusers."""

from pathlib import Path

import pytest
import torch

from sd import checkpoint
from sd.pipeline import TextToImage
from sd.tokenizer import word_level
from tests.sd.checkpoint import models
from tests.sd.whole_run import OTHER, Run, apart

diffusers = pytest.importorskip("diffusers")

WORDS = tuple(
    f"word{i}" for i in range(47)
)  # with three special tokens, the 50 of the small models
STEPS, SCALE, SEED = 4, 7.5, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with its tokenizer."""
    place = tmp_path_factory.mktemp("checkpoint") / "model"
    checkpoint.save_folder(place, models.networks(models.V1))
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
@pytest.mark.parametrize("redraws", [False, True])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
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
    checkpoint.save_single(file, models.networks(models.V1))
    one = TextToImage.load(folder, device="cpu")
    two = TextToImage.load(file, device="cpu", tokenizer=folder / "tokenizer")
    assert torch.equal(end(one, "word1"), end(two, "word1"))
    with pytest.raises(ValueError, match="has no vocabulary of its own; name one with --tokenizer"):
        TextToImage.load(file, device="cpu")


@pytest.mark.slow
def test_prompts_longer_than_a_row_and_weights(folder: Path) -> None:
    pipeline = TextToImage.load(folder, device="cpu")
    long = " ".join(WORDS[:40])
    assert pipeline.encode_prompts([long, "word1"], "chunk").shape[1] == 3 * 20
    assert not torch.allclose(end(pipeline, long), end(pipeline, " ".join(WORDS[:18])), atol=1e-3)
    assert not torch.allclose(end(pipeline, "(word1:1.5)"), end(pipeline, "word1"), atol=1e-4)
    assert torch.equal(end(pipeline, "word1", clip_skip=0), end(pipeline, "word1"))
    assert not torch.allclose(end(pipeline, "word1", clip_skip=1), end(pipeline, "word1"))


def test_options_are_a_checkpoints(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ema, variant: wanted a checkpoint with it, got 'shapes'"):
        TextToImage.load("shapes", device="cpu", ema=True, variant="fp16")
    with pytest.raises(
        ValueError, match="model: wanted 'shapes', a folder of weights, a checkpoint"
    ):
        TextToImage.load(tmp_path / "nowhere", device="cpu")
