"""Calibration inputs are those of the model's own trajectories, and 8 bits are what they say."""

import re
from dataclasses import replace

import pytest
import torch

from diffusion_math.noise import start_noise
from sd import quantization
from sd.config import UNetConfig
from sd.engine import OpenVINO
from sd.networks.unet import UNet
from sd.pipeline import TextToImage
from sd.text.tokenizer import Tokenizer, word_level

PROMPTS = ("a red circle", "a small blue square")


@pytest.fixture(scope="module")
def eager() -> TextToImage:
    return TextToImage.load("shapes", device="cpu")


def test_the_inputs_are_those_of_the_sampling(eager: TextToImage) -> None:
    """Both halves of the guided pair, from the noise of seed i, at falling times."""
    found = quantization.recorded(eager, PROMPTS, steps=2)
    assert len(found) == 4
    for seed, prompt in enumerate(PROMPTS):
        states: list[torch.Tensor] = []
        eager(prompt, seed=seed, steps=2, progress=False, watch=lambda s, to=states: to.append(s.x))
        context = eager.encode_prompts(["", prompt])
        for (x, t, given), state, time in zip(
            found[2 * seed :][:2], states, (999.0, 499.0), strict=False
        ):
            assert torch.equal(x, torch.cat([state, state])) and torch.equal(given, context)
            assert t.unique().tolist() == [time]
            assert all(one.dtype == torch.float32 and one.ndim > 0 for one in (x, t, given))
    assert torch.equal(found[2][0][:1], start_noise([1], eager.config.latent_shape))


def test_a_distilled_model_is_recorded_at_its_own_nodes(recwarn: pytest.WarningsRecorder) -> None:
    found = quantization.recorded(TextToImage.load("shapes-distilled", device="cpu"), PROMPTS[:1])
    assert [float(t.flatten()[0]) for _, t, _ in found] == [999, 832, 666, 499, 332, 166]
    assert list(recwarn) == []


def test_prompts_of_a_model_are_in_its_words(eager: TextToImage) -> None:
    captions = quantization.calibration_prompts(eager.tokenizer)
    assert len(set(captions)) == quantization.CAPTIONS
    assert not any(map(eager.tokenizer.unknown_words, captions))
    words = dict.fromkeys(" ".join(quantization.PROMPTS).replace(",", " ").split())
    english = Tokenizer(word_level([*words, ","]), 20)
    assert quantization.calibration_prompts(english) == quantization.PROMPTS
    other = Tokenizer(word_level(["word1"]), 20)
    with pytest.raises(ValueError, match="calibration: wanted prompts in the model's own words"):
        quantization.calibration_prompts(other)


def test_refusals(eager: TextToImage) -> None:
    with pytest.raises(ValueError, match="calibration: wanted a sequence of texts, got 'red'"):
        quantization.recorded(eager, "red")
    with pytest.raises(ValueError, match="calibration: wanted one prompt or more, got none"):
        quantization.recorded(eager, ())
    channels = 2 * eager.config.vae.latent_channels + 1
    unet = replace(eager.config.unet, in_channels=channels)
    model = replace(eager, config=replace(eager.config, unet=unet))
    with pytest.raises(ValueError, match="engine: wanted another than openvino-int8 with an inp"):
        quantization.recorded(model, PROMPTS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the tracer's
def test_all_layers_but_the_named_ones_are_of_8_bits() -> None:
    """And the error is that of 8 bits: below a twentieth, and above that of bfloat16."""
    pytest.importorskip("nncf")
    torch.manual_seed(0)
    config = UNetConfig(
        channels=(16, 32), layers_per_block=1, heads=2, context_width=8, attention=(True, True),
        groups=4,
    )  # fmt: skip
    unet = UNet(config).eval()
    inputs = [
        (torch.randn(2, 4, 8, 8), torch.full((2,), 100.0 * i), torch.randn(2, 5, 8))
        for i in range(10)
    ]
    with torch.no_grad():
        wanted = torch.stack([unet(*some) for some in inputs])
    network = OpenVINO(unet, torch.float32, inputs)
    found = torch.stack([network(*some) for some in inputs])
    assert 2e-3 < float((found - wanted).norm() / wanted.norm()) < 0.05
    floating, layers = re.compile("|".join(quantization.FLOAT)), 0
    for op in network.request.get_compiled_model().get_runtime_model().get_ops():
        told = op.get_rt_info()
        if told["layerType"].astype(str) in ("Convolution", "FullyConnected"):
            name = told["originalLayersNames"].astype(str).partition(",")[0]
            found_in = told["runtimePrecision"].astype(str)
            assert (found_in == "f32") == bool(floating.fullmatch(name)), (name, found_in)
            assert found_in in ("f32", "u8", "i8")
            layers += 1
    assert layers > 60
