"""Inpainting checkpoints of diffusers: they load, save, and run as diffusers' pipeline does."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sd import checkpoint
from sd.config import ModelConfig
from sd.pipeline import TextToImage
from sd.text.tokenizer import word_level
from tests.support import small_models
from tests.support.whole_run import OTHER, TABLE, Run, apart

diffusers = pytest.importorskip("diffusers")


def inpainting(config: ModelConfig) -> ModelConfig:
    """The same model with a U-Net that reads a mask and the known pixels."""
    return replace(config, unet=replace(config.unet, in_channels=9))


CONFIGS = {"v1": inpainting(small_models.V1), "v2": inpainting(small_models.V2)}


def written(folder: Path, config: ModelConfig) -> Path:
    """A folder as diffusers saves its inpainting pipeline, and a vocabulary of as many words."""
    peers = small_models.peers(config)
    scheduler = diffusers.DDIMScheduler(**TABLE, steps_offset=1, clip_sample=False)
    diffusers.StableDiffusionInpaintPipeline(
        peers["vae"], peers["text_encoder"], None, peers["unet"], scheduler, None, None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    (folder / "tokenizer").mkdir()
    words = word_level([f"word{i}" for i in range(config.text.vocab_size - 3)])
    words.save(str(folder / "tokenizer" / "tokenizer.json"))
    return folder


def doubled(config: ModelConfig) -> list[nn.Module]:
    """Copies in float64 of the peers' U-Net and VAE, which are shared by all tests."""
    return [deepcopy(small_models.peers(config)[kind]).double() for kind in ("unet", "vae")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("inpainting") / "model", CONFIGS["v1"])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_and_a_single_file_load(name: str, tmp_path: Path) -> None:
    """The shape of the first convolution says that the U-Net reads a mask."""
    config = CONFIGS[name]
    found = checkpoint.load(written(tmp_path / "model", config))
    assert found.config.unet == config.unet and found.config.reads_mask
    assert f"Stable Diffusion {name} inpainting" in str(found.account)
    small_models.same(found, config)
    if name == "v1":  # of a single file in v2's layout the heads are 64 wide, as here; groups too
        save_file(small_models.single(config), tmp_path / "model.safetensors")
        one = checkpoint.load(tmp_path / "model.safetensors")
        assert one.config.unet == config.unet
        small_models.same(one, config)


def test_what_is_saved_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    config = CONFIGS["v1"]
    checkpoint.save_folder(tmp_path / "again", small_models.networks(config))
    small_models.same(checkpoint.load(tmp_path / "again"), config)
    read = diffusers.DiffusionPipeline.load_config(tmp_path / "again")
    assert read["_class_name"] == "StableDiffusionInpaintPipeline"
    checkpoint.save_single(tmp_path / "again.safetensors", small_models.networks(config))
    small_models.same(checkpoint.load(tmp_path / "again.safetensors"), config)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("solver", "strength"),
    [("ddim", 1.0), pytest.param("dpmpp_2m", 0.5, marks=pytest.mark.slow)],
)
def test_an_inpainting_model_runs_as_in_diffusers(
    folder: Path, solver: str, strength: float
) -> None:
    """In float64, for a mask whose edges cut through the latents."""
    run = Run(solver, True, side=32, strength=strength, hole=3)
    pipeline = TextToImage.load(folder, device="cpu", dtype=torch.float64)
    wanted = run.theirs(pipeline, *doubled(CONFIGS["v1"]))
    assert apart(run.ours(pipeline), wanted) < 1e-4
    assert apart(run.ours(pipeline, OTHER), wanted) > 1e-2
    moved = replace(run, hole=7)
    assert apart(moved.ours(pipeline), wanted) > 1e-2


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_text_to_image_model_runs_as_in_diffusers(tmp_path: Path) -> None:
    """The known latents are those of diffusers, where a mask's edges are those of latents."""
    config = small_models.V1
    small_models.write_folder(tmp_path, config)
    (tmp_path / "tokenizer").mkdir()
    words = word_level([f"word{i}" for i in range(47)])
    words.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    run = Run("dpmpp_2m", True, side=32, hole=0)
    pipeline = TextToImage.load(tmp_path, device="cpu", dtype=torch.float64)
    wanted = run.theirs(pipeline, *doubled(config))
    assert apart(run.ours(pipeline), wanted) < 1e-4
    assert apart(replace(run, hole=8).ours(pipeline), wanted) > 1e-2
