"""LoRA: what is trained, that both files merge exactly, and that diffusers and peft agree."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sd.checkpoint.lora import merge
from sd.networks.unet import UNet
from sd.train.lora import FILES, TARGETS, Adapters, save_lora
from tests.support import small_models
from tests.support.small_models import V1

RANK, ALPHA = 3, 1.5


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return small_models.networks(V1).unet


def trained(unet: nn.Module, alpha: float = ALPHA) -> Adapters:
    """Adapters with random factors."""
    adapters = Adapters(unet, RANK, alpha)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in adapters.parameters():
            weight.normal_(0.0, 0.2, generator=generator)
    return adapters.requires_grad_(False)


@pytest.fixture
def model() -> SimpleNamespace:
    """The model, whose weights a test may change."""
    whole = small_models.networks(V1)
    own = UNet(V1.unet).requires_grad_(False).eval()
    own.load_state_dict(whole.unet.state_dict())
    return SimpleNamespace(config=V1, text_encoder=whole.text_encoder, unet=own)


def given() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    return x, torch.tensor([10.0, 700.0]), torch.randn(2, 20, 64, generator=generator)


def test_adapters_change_nothing_at_first(unet: nn.Module) -> None:
    adapters = Adapters(unet, RANK, ALPHA)
    plain = unet(*given())
    with adapters.attached(unet):
        assert torch.equal(unet(*given()), plain)
    assert all(name.endswith(TARGETS) for name in adapters.layers)
    attention = [name for name, _ in unet.named_modules() if name.endswith(TARGETS)]
    assert list(adapters.layers) == attention and len(attention) > 8


def test_only_the_factors_learn(unet: nn.Module) -> None:
    adapters = trained(unet).requires_grad_(True)
    with adapters.attached(unet):
        unet(*given()).square().mean().backward()
    assert all(weight.grad is not None for weight in adapters.parameters())
    assert all(weight.grad is None for weight in unet.parameters())
    plain = unet(*given())
    with adapters.attached(unet), pytest.raises(RuntimeError, match="stop"):
        raise RuntimeError("stop")
    assert torch.equal(unet(*given()), plain)  # the hooks are gone


def test_a_rank_above_the_narrowest_layer_is_refused(unet: nn.Module) -> None:
    with pytest.raises(ValueError, match="rank: wanted at most 32, the narrowest layer's, got 33"):
        Adapters(unet, 33, 1.0)


@pytest.mark.parametrize("naming", FILES)
def test_merged_weights_are_the_sum_to_rounding(
    naming: str, model: SimpleNamespace, tmp_path: Path
) -> None:
    """W + (alpha / r) B A, computed in double precision; the network gives what was trained."""
    adapters = trained(model.unet)
    with adapters.attached(model.unet):
        wanted = model.unet(*given())
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    save_lora(tmp_path, adapters, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = merge(model, [(tmp_path / FILES[naming], 1.0)])
    changed = {name for _, name in merged.weights}
    assert changed == {f"{name}.weight" for name in adapters.layers}
    for name, down, up in adapters.factors():
        key = f"{name}.weight"
        exact = before[key].double() + ALPHA / RANK * (up.double() @ down.double())
        assert torch.allclose(model.unet.state_dict()[key].double(), exact, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model.unet(*given()), wanted, rtol=1e-4, atol=1e-5)
    merged.unmerge()
    assert all(torch.equal(value, before[k]) for k, value in model.unet.state_dict().items())


def test_the_two_files_have_the_same_numbers(unet: nn.Module, tmp_path: Path) -> None:
    kohya, other = (load_file(path) for path in save_lora(tmp_path, trained(unet), {}))
    assert len(kohya) == 3 * len(other) // 2
    for name, value in other.items():
        stem, end = name.removeprefix("unet.").rsplit(".lora_", 1)
        role = {"A.weight": "down", "B.weight": "up"}[end]
        assert torch.equal(kohya[f"lora_unet_{stem.replace('.', '_')}.lora_{role}.weight"], value)
    assert {float(v) for name, v in kohya.items() if name.endswith(".alpha")} == {ALPHA}


@pytest.mark.slow
@pytest.mark.parametrize("naming", FILES)
def test_diffusers_and_peft_load_the_files_alike(naming: str, tmp_path: Path) -> None:
    """`load_lora_weights` of a pipeline: the peer's U-Net then gives what ours was trained to."""
    pytest.importorskip("peft")
    diffusers = pytest.importorskip("diffusers")
    peer = small_models.peer_unet(V1.unet)
    peer.load_state_dict(small_models.truth(V1)["unet"])
    ours = small_models.networks(V1).unet
    adapters = trained(ours)
    with adapters.attached(ours):
        wanted = ours(*given())
    save_lora(tmp_path, adapters, {})

    others = small_models.peers(V1)
    scheduler = diffusers.DDIMScheduler()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = diffusers.StableDiffusionPipeline(
            vae=others["vae"], text_encoder=others["text_encoder"], tokenizer=None, unet=peer,
            scheduler=scheduler, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
        pipeline.load_lora_weights(str(tmp_path), weight_name=FILES[naming])
    x, time, context = given()
    found = peer(x, time, context).sample.detach()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    plain = ours(x, time, context)
    assert float((found - plain).abs().max()) > 0.01
