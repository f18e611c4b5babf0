"""Both layouts are written so that we and the peers read the same bits, and the same outputs."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sd.checkpoint import load, save_folder, save_single
from sd.checkpoint.textual_inversion import add_embedding
from sd.config import SHAPES_CONFIG, ModelConfig
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.noise_schedule import named_schedule
from sd.text.tokenizer import Tokenizer, word_level
from tests.support import small_models
from tests.support.small_models import V1, V2
from tests.support.tensors import far, normal

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

V2_V = replace(V2, prediction="v_prediction", image_size=256, schedule="linear", steps=77)
COSINE = replace(V1, schedule="cosine", steps=20, image_size=128)
CONFIGS = {"v1": replace(V1, image_size=128), "v2 v": V2_V, "cosine": COSINE}
TOLERANCE = 1e-5  # some 100 roundings (6e-8) of float32, over the largest entry


def model(config: ModelConfig) -> SimpleNamespace:
    """The networks of V1 or V2 under another name of schedule and size."""
    base = V2 if config.unet.linear_projection else V1
    return SimpleNamespace(**{**vars(small_models.networks(base)), "config": config})


def bits(one: object, two: object) -> bool:
    return all(
        torch.equal(a.view(torch.uint8), b.view(torch.uint8)) and a.dtype == b.dtype
        for kind in small_models.KINDS
        for a, b in zip(
            getattr(one, kind).state_dict().values(),
            getattr(two, kind).state_dict().values(),
            strict=True,
        )
    )


TARGETS = {
    "a.safetensors": torch.float32,
    "a.ckpt": torch.bfloat16,
    "folder": torch.float32,
    "folder fp16": torch.float16,
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_round_trip_keeps_every_bit(target: str, name: str, tmp_path: Path) -> None:
    """What is written in a type, read in it, written and read again is the same to the bit."""
    config, dtype = CONFIGS[name], TARGETS[target]
    variant = "fp16" if target.endswith("fp16") else None

    def through(value: object, path: Path) -> object:
        if target.startswith("folder"):
            save_folder(path, value, dtype=dtype, variant=variant)
        else:
            save_single(path, value, dtype=dtype)
        return load(path, dtype=dtype, variant=variant)

    once = through(model(config), tmp_path / f"1{target}")
    twice = through(once, tmp_path / f"2{target}")
    assert once.config == twice.config == config
    assert bits(once, twice)
    for kind, wanted in small_models.truth(V2 if name == "v2 v" else V1).items():
        for key, value in getattr(once, kind).state_dict().items():
            assert torch.equal(value, wanted[key].to(dtype)), key
    assert [p for p in tmp_path.rglob("*") if ".tmp" in p.name] == []


@pytest.mark.parametrize("name", ["v1", "v2 v"])
def test_from_one_layout_to_the_other_and_back(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    save_single(tmp_path / "a.ckpt", model(config))
    one = load(tmp_path / "a.ckpt")
    save_folder(tmp_path / "b", one)
    two = load(tmp_path / "b")
    save_single(tmp_path / "c.safetensors", two)
    three = load(tmp_path / "c.safetensors")
    assert one.config == two.config == three.config == config
    assert bits(one, two) and bits(two, three) and bits(one, model(config))


@pytest.mark.parametrize("name", ["v1", "v2 v"])
@torch.no_grad()
def test_the_peers_read_our_folder_and_compute_the_same(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    save_folder(tmp_path, model(config))
    ours = load(tmp_path)
    text, said = transformers.CLIPTextModel.from_pretrained(
        tmp_path / "text_encoder", output_loading_info=True
    )
    assert not any(said.values())
    tokens = torch.arange(40).reshape(2, 20) % 48
    assert far(ours.text_encoder(tokens), text(tokens).last_hidden_state) < TOLERANCE
    vae = diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae")
    x = normal(1, 3, 16, 24)
    latent = vae.encode(x).latent_dist.mean * vae.config.scaling_factor
    assert far(ours.vae.encode(x).mean, latent) < TOLERANCE
    assert far(ours.vae.decode(latent), vae.decode(latent / vae.config.scaling_factor).sample) < (
        TOLERANCE
    )
    unet = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    x, context, t = normal(2, 4, 8, 8), normal(2, 20, 64, seed=1), torch.tensor([3.0, 900.0])
    assert far(ours.unet(x, t, context), unet(x, t, context).sample) < TOLERANCE
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path / "scheduler")
    assert scheduler.config.prediction_type == config.prediction
    betas = named_schedule(config.schedule, config.steps).betas
    torch.testing.assert_close(scheduler.betas, betas.float(), rtol=1e-5, atol=0)


def test_a_single_file_says_what_it_is(tmp_path: Path) -> None:
    save_single(tmp_path / "a.safetensors", model(CONFIGS["v2 v"]))
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        words, names = file.metadata(), set(file.keys())
    assert words["modelspec.prediction_type"] == "v"
    assert "cond_stage_model.model.transformer.resblocks.2.attn.in_proj_weight" in names
    assert not any("text_model" in name for name in names)
    save_single(tmp_path / "b.safetensors", model(CONFIGS["v1"]))
    with safe_open(tmp_path / "b.safetensors", framework="pt") as file:
        assert file.metadata()["modelspec.prediction_type"] == "epsilon"
        names = set(file.keys())
    assert "cond_stage_model.transformer.text_model.final_layer_norm.bias" in names


def test_a_zip_is_a_function_of_the_model(tmp_path: Path) -> None:
    """Its path is not in it; a safetensors file's metadata come in any order."""
    for name in ("one.ckpt", "two.ckpt"):
        save_single(tmp_path / name, model(CONFIGS["v1"]))
    assert (tmp_path / "one.ckpt").read_bytes() == (tmp_path / "two.ckpt").read_bytes()


@pytest.fixture
def shapes() -> SimpleNamespace:
    """Numbers that no rule for single files gives: groups, heads, an inner layer that is read."""
    networks = {
        "text_encoder": TextEncoder(SHAPES_CONFIG.text),
        "vae": VAE(SHAPES_CONFIG.vae),
        "unet": UNet(SHAPES_CONFIG.unet),
    }
    return SimpleNamespace(config=SHAPES_CONFIG, **networks)


def test_any_numbers_come_back_from_a_single_file(shapes: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.ckpt"):
        save_single(tmp_path / name, shapes)
        found = load(tmp_path / name)
        assert found.config == SHAPES_CONFIG and bits(found, shapes)


@pytest.mark.parametrize("target", ["a.safetensors", "a.ckpt", "folder"])
def test_tokens_of_embeddings_are_left_out(target: str, tmp_path: Path) -> None:
    """The vocabulary of a file has no word for them; what is saved loads, and a line says so."""
    plain = model(CONFIGS["v1"])
    given = deepcopy(plain)
    width = given.config.text.width
    save_file({"emb_params": torch.ones(2, width)}, tmp_path / "toy.safetensors")
    given.tokenizer = Tokenizer(word_level(["a", "b"]), 20)
    add_embedding(given, tmp_path / "toy.safetensors")
    save = save_folder if target == "folder" else save_single
    with pytest.warns(UserWarning, match="^2 tokens of added embeddings are left out") as said:
        save(tmp_path / target, given)
    assert len(said) == 1
    assert bits(load(tmp_path / target), plain)


def test_what_a_folder_cannot_say_is_refused(shapes: SimpleNamespace, tmp_path: Path) -> None:
    line = r"^model: wanted a text encoder with skip = 0, got skip = 1$"
    with pytest.raises(ValueError, match=line):
        save_folder(tmp_path / "folder", shapes)
    assert not (tmp_path / "folder").exists()


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: wanted a name ending in .safetensors or .ckpt"):
        save_single(tmp_path / "a.bin", model(CONFIGS["v1"]))


def failing(*_: object) -> None:
    raise OSError("the disk is full")


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_a_write_that_fails_leaves_what_stood_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    save_single(path, model(CONFIGS["v1"]))
    before = path.read_bytes()
    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="the disk is full"):
        save_single(path, model(CONFIGS["cosine"]))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]
