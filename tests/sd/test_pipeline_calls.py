"""The pipeline's defaults, its progress bar, and what it hands to its networks."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from diffusion_math.noise import start_noise
from diffusion_math.solvers.registry import SOLVERS
from sd import loading, pipeline
from sd.config import UNetConfig
from sd.img2img import img2img_grid
from sd.networks.unet import UNet
from sd.pipeline import TextToImage
from tests.support.pixel_pipeline import EVENT, SCHEDULE, Identity, Nothing, model, photo, sampled


def test_the_defaults() -> None:
    states = sampled(model(Nothing()), "red")
    assert len(states) == 1 + 25
    assert torch.equal(states[0].x, start_noise([0], EVENT, torch.float64))


@pytest.mark.parametrize(("options", "disabled"), [({}, None), ({"progress": False}, True)])
def test_the_bar_counts_the_steps(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], disabled: bool | None
) -> None:
    """`disable=None` shows the bar on a terminal only; the initial state is at -1."""
    seen = []

    def bar(states: Any, **words: Any) -> Any:
        seen.append(words)
        return states

    monkeypatch.setattr(pipeline, "tqdm", bar)
    model(Nothing())("red", steps=7, **options)
    assert seen == [{"total": 7, "initial": -1, "unit": "step", "disable": disabled}]


@pytest.mark.parametrize("scale", [0, 0.5])
def test_a_guidance_scale_below_one_is_legal(scale: float) -> None:
    assert len(sampled(model(Nothing()), "red", steps=2, guidance_scale=scale)) == 3


def test_a_solver_is_a_name_or_a_function_that_returns_a_step() -> None:
    of_name = sampled(model(Nothing()), "red", steps=3, solver="ddim")
    of_function = sampled(model(Nothing()), "red", steps=3, solver=SOLVERS["ddim"])
    assert torch.equal(of_name[-1].x, of_function[-1].x)
    message = "^solver: wanted a function that returns a step, got int$"
    with pytest.raises(ValueError, match=message):
        sampled(model(Nothing()), "red", solver=lambda schedule: 3)


def test_times_exclude_strength_and_another_number_of_steps() -> None:
    times = torch.tensor([1000.0, 0.0], dtype=torch.float64)
    options = {"grid": times, "image": photo(1)}
    with pytest.raises(ValueError, match=r"^grid: wanted a name, with strength, got tensor\("):
        sampled(model(Nothing()), "red", strength=0.5, **options)
    with pytest.raises(ValueError, match=r"^grid: wanted a name, with steps, got tensor\("):
        sampled(model(Nothing()), "red", steps=2, **options)


def test_a_picture_may_be_one_pixel() -> None:
    (drawn,) = model(Nothing())("red", width=1, height=1, steps=1, progress=False)
    assert drawn.size == (1, 1)


def test_a_schedule_of_zero_terminal_snr() -> None:
    rescaled = model(Nothing(), zero_terminal_snr=True, prediction="v_prediction")
    assert rescaled.schedule(1000)[0] < 1e-3
    assert model(Nothing()).schedule(1000)[0] > 0.06


class ReachedError(Exception):
    """A network was reached; what it got is known."""


class Spy(nn.Module):
    """It stands for a VAE or a U-Net, and stops at the first tensor it gets."""

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        raise ReachedError(x.device.type, x.dtype)

    encode = decode = forward


def on_meta(dtype: torch.dtype = torch.float64, **parts: Any) -> TextToImage:
    """The pipeline of a device without values, so that what stays behind shows."""
    one = model(parts.get("unet", Nothing()), dtype)
    vae = parts.get("vae", one.vae)
    encoder = parts.get("text_encoder", one.text_encoder)
    return TextToImage(
        one.config, one.tokenizer, encoder, vae, one.unet, torch.device("meta"), dtype
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_vae_gets_its_dtype_on_its_device(dtype: torch.dtype) -> None:
    wanted = torch.float32 if dtype == torch.float16 else dtype
    with pytest.raises(ReachedError) as found:
        on_meta(dtype, vae=Spy()).decode(torch.zeros(1, *EVENT))
    assert found.value.args == ("meta", wanted)
    with pytest.raises(ReachedError) as found:
        on_meta(dtype, vae=Spy()).encode_image(photo(1), 2, 2)
    assert found.value.args == ("meta", wanted)


@pytest.mark.parametrize("words", ["red", "(red:2)"])
def test_the_text_encoder_gets_tokens_on_its_device(words: str) -> None:
    """With a weight the empty prompt is encoded as well; without, it is not."""
    seen = []

    class Encoder(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            seen.append(tokens.device.type)
            return torch.zeros(*tokens.shape, 2)

    on_meta(text_encoder=Encoder()).encode_prompts([words])
    assert seen == ["meta"] * (1 if words == "red" else 2)


def test_noise_is_brought_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoder(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.zeros(*tokens.shape, 2)

    def first(step: Any, denoise: Any, x: Tensor, *_: Any) -> Any:
        raise ReachedError(x.device.type)

    monkeypatch.setattr(pipeline, "trajectory", first)
    with pytest.raises(ReachedError, match="meta"):
        on_meta(text_encoder=Encoder())("red", progress=False)


def test_clip_skip_asks_for_the_states_of_an_earlier_layer() -> None:
    seen = []

    class Encoder(nn.Module):
        def states(self, tokens: Tensor, layers: int) -> Tensor:
            seen.append((tokens.shape, layers))
            return torch.zeros(*tokens.shape, 2)

    one = model(Nothing())
    layers = one.config.text.layers
    skipping = TextToImage(one.config, one.tokenizer, Encoder(), one.vae, one.unet, one.device)
    skipping.encode_prompts(["red", "blue"], clip_skip=1)
    assert seen == [((2, one.tokenizer.context_length), layers - 1)]


def test_latents_that_are_large_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Grey(Identity):
        def decode(self, z: Tensor) -> Tensor:
            seen.append(len(z))
            return z.expand(-1, 3, -1, -1)

    one = model(Nothing())
    grey = TextToImage(one.config, one.tokenizer, one.text_encoder, Grey(), one.unet, one.device)
    monkeypatch.setattr(pipeline, "_AT_ONCE", 1)
    assert len(grey.decode(torch.zeros(3, 1, 2, 2))) == 3
    assert seen == [1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_latent_is_in_float32_or_wider(dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    assert model(Nothing(), dtype).encode_image(photo(1), 2, 2).dtype == wide


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_denoiser_of_half_precision_answers_in_the_dtype_of_its_question(prediction: str) -> None:
    denoise = model(Nothing(), torch.float16, prediction=prediction).denoiser(
        (torch.zeros(1, 24, 1),) * 2, 1
    )
    assert denoise(torch.ones(1, *EVENT), torch.tensor(400.0)).dtype == torch.float32


@torch.no_grad()
def test_keys_of_the_prompt_are_computed_once_for_all_steps() -> None:
    one = model(Nothing())
    width = one.config.text.width
    unet = UNet(UNetConfig(3, 3, (4,), 1, 1, width, (True,), 4)).eval()
    counted = []
    for name, part in unet.named_modules():
        if name.endswith("attn2.to_k"):
            part.register_forward_hook(lambda *_: counted.append(1))
    layers = sum(name.endswith("attn2.to_k") for name, _ in unet.named_modules())
    denoise = TextToImage(
        one.config, one.tokenizer, one.text_encoder, one.vae, unet, one.device
    ).denoiser((torch.zeros(1, 24, width), torch.ones(1, 24, width)), 2.0)
    for t in (900.0, 500.0, 100.0):
        denoise(torch.zeros(1, *EVENT), torch.tensor(t))
    assert len(counted) == layers > 0


def test_load_reads_the_embedded_model_on_the_fastest_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    where = torch.device("meta")

    def parts(*words: Any, **options: Any) -> Any:
        seen.append((words, options))
        raise ReachedError

    monkeypatch.setattr(pipeline.devices, "pick", lambda name: (seen.append(name), where)[1])
    monkeypatch.setattr(loading, "load_model", parts)
    with pytest.raises(ReachedError):
        TextToImage.load(low_memory=True)
    assert seen == ["auto", (("shapes", where, torch.float32), {"low_memory": True})]


def test_a_default_device_is_not_an_image_s() -> None:
    """With "meta", what is made without a device has no numbers: loading, a photo, a mask."""
    photo_of, mask = Image.new("RGB", (64, 64), "red"), Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))

    def drawn() -> np.ndarray:
        loaded = TextToImage.load("shapes", device="cpu")
        call: dict[str, Any] = {"seed": 0, "steps": 2, "progress": False}
        one = loaded("a (small:1.2) red circle", **call)
        two = loaded("a blue square", **call, image=photo_of, strength=0.5)
        three = loaded("a blue square", **call, image=photo_of, mask=mask, strength=1.0)
        return np.stack([np.asarray(image) for (image,) in (one, two, three)])

    wanted = drawn()
    with torch.device("meta"):
        assert np.array_equal(drawn(), wanted)


def test_a_loaded_pipeline_knows_its_device() -> None:
    assert TextToImage.load(device="cpu").device == torch.device("cpu")


def test_a_start_between_two_steps() -> None:
    assert img2img_grid(SCHEDULE, "trailing", 10, 0.0004).dtype == torch.float64
    assert len(img2img_grid(SCHEDULE, "trailing", 10, 0.5)) == 1 + 5
