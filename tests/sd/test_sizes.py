"""Pictures of any size that is a multiple of the VAE's factor, beside diffusers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_math.noise import start_noise
from sd import checkpoint
from sd.config import VAEConfig
from sd.pipeline import TextToImage
from sd.text.tokenizer import word_level

diffusers = pytest.importorskip("diffusers")

from tests.support import small_models  # noqa: E402 - it needs diffusers

DEEP = replace(small_models.V1, vae=VAEConfig(channels=(32, 32, 32, 32), layers_per_block=1))
"""A VAE that halves three times, as Stable Diffusion's: a picture's side is 8 times a latent's."""
PROMPTS = ["word1 word7", "word2"]
SEEDS, STEPS, SCALE = [3, 8], 3, 2.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sizes") / "model"
    checkpoint.save_folder(place, small_models.networks(DEEP))
    (place / "tokenizer").mkdir(exist_ok=True)
    word_level([f"word{i}" for i in range(47)]).save(str(place / "tokenizer" / "tokenizer.json"))
    return place


@pytest.fixture(scope="module")
def peer(folder: Path) -> "diffusers.StableDiffusionPipeline":
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, steps_offset=1, set_alpha_to_one=True,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet").double()
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae").double()
    made = diffusers.StableDiffusionPipeline(
        vae, None, None, unet, scheduler, None, None, requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("width", "height"), [(56, 40), (24, 72), (8, 8), (48, 64)])
def test_a_size_is_diffusers(
    width: int, height: int, folder: Path, peer: "diffusers.StableDiffusionPipeline"
) -> None:
    """Two prompts, from tokens to bytes: latents of 7 x 5 and 3 x 9 are odd at every level."""
    pipeline = TextToImage.load(folder, device="cpu", dtype=torch.float64)
    contexts = pipeline.encode_prompts(["", *PROMPTS])
    noise = start_noise(SEEDS, (4, height // 8, width // 8), torch.float64)
    wanted = peer(
        prompt_embeds=contexts[1:], negative_prompt_embeds=contexts[:1].expand(2, -1, -1),
        latents=noise, num_inference_steps=STEPS, guidance_scale=SCALE,
        height=height, width=width, output_type="np",
    ).images  # fmt: skip
    times = [*(float(t) + 1 for t in peer.scheduler.timesteps), 0.0]
    pictures = pipeline(
        PROMPTS, seed=SEEDS, guidance_scale=SCALE, solver="ddim", width=width, height=height,
        grid=torch.tensor(times, dtype=torch.float64), progress=False,
    )  # fmt: skip
    assert [one.size for one in pictures] == [(width, height)] * 2
    found = np.stack([np.asarray(one, dtype=float) for one in pictures])
    assert found.std() > 10  # a picture, not a plain colour
    assert np.abs(found - 255 * wanted).max() < 1  # rounded to whole levels, by the other half


@pytest.mark.parametrize(("width", "height"), [(8, 8), (8, 64), (72, 40)])
def test_the_embedded_model_draws_any_size(width: int, height: int) -> None:
    pipeline = TextToImage.load("shapes", device="cpu")
    call = {"steps": 2, "width": width, "height": height, "progress": False}
    (drawn,) = pipeline("a red ring", **call)
    (redrawn,) = pipeline("a red ring", image=drawn, **call)
    assert drawn.size == redrawn.size == (width, height)
