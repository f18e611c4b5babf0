"""`train --data FOLDER`: what is refused before any work, and what a run leaves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sd import weights
from sd.checkpoint.lora import merge
from sd.checkpoint.parameterization import CONFIG_KEY
from sd.config import VAEConfig
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.train import own
from sd.train.folder import read_folder
from sd.train.lora import FILES
from sd.train.own_options import OwnModel
from sd.train.preview import SEEDS, image_grid
from sd.train.shard import WHOLE
from sd.train.source import Own
from tests.support import own_run

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("text_encoder", "vae", "unet")


REFUSED = {
    "an odd size": ({"--size": "14"}, "--size: wanted a multiple of 4"),
    "heads": ({"--networks.heads": "3"}, "--networks: TextConfig.heads"),
    "a folder of its own": ({"--clip.out": "x"}, "--clip.out: has no effect with --data"),
    "latents": ({"--unet.latents": "100"}, "--unet.latents: has no effect with --data"),
    "two": ({"--unet.two": "0.1"}, "--unet.two: has no effect with --data"),
    "take": ({"--take": "vae"}, "--take: has no effect without --checkpoint"),
    "adapters": ({"--adapter.steps": "3"}, "--adapter.steps: has no effect without --lora"),
    "no checkpoint": ({"--lora": "3"}, "--checkpoint: wanted a checkpoint with --lora"),
    "nothing to learn": ({"--held-out": "1"}, "--held-out: wanted a share that leaves images"),
    "merges": ({"--networks.merges": "-5"}, "--networks.merges: wanted"),
    "layers": ({"--networks.text-layers": "1"}, "--networks.text-layers: wanted"),
    "prompts": ({"--prompts": "number a(BREAK)b"}, "--prompts: the prompt 'a(BREAK)b' has a BREAK"),
    "prediction": ({"--prediction": "sample"}, "--prediction: has no effect without --checkpoint"),
    "another VAE": ({"--vae": "x"}, "--vae: has no effect without --checkpoint"),
    "no folder": ({"--data": "nothing"}, "nothing"),
    "parts": ({"--vae.accumulate": "3"}, "--vae.batch-size: wanted a multiple of --vae.accumulate"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_fault_is_one_line_before_any_work(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed, words = REFUSED[case]
    out = tmp_path / "out"
    assert own_run.run(own_run.flags(own_run.data(tmp_path / "data"), out, changed)) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and said.startswith("error: ")
    assert not out.exists()


def test_a_faulty_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = own_run.data(tmp_path / "data")
    (data / "3.png").write_bytes(b"")
    assert own_run.run(own_run.flags(data, tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert said == f"error: --data {data}: 1 file of 0 bytes (3.png)\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", [".", "runs/one", "../data"])
def test_the_output_lies_outside_the_data(
    inside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its previews would be images without a caption when the run is resumed."""
    data = own_run.data(tmp_path / "data")
    before = sorted(data.rglob("*"))
    assert own_run.run(own_run.flags(data, data / inside)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --out: wanted a folder outside --data {data}, got ")
    assert sorted(data.rglob("*")) == before


@pytest.mark.parametrize("name", ["vae", "unet"])
def test_initial_weights_that_do_not_fit_are_refused_before_any_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = VAEConfig(channels=(8,), layers_per_block=1, groups=4)
    path = tmp_path / "other.safetensors"
    weights.save_network(path, VAE(config), config)
    changed = {f"--{name}.initial": str(path)}
    words = own_run.flags(own_run.data(tmp_path / "data"), tmp_path / "out", changed)
    assert own_run.run(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --{name}.initial: weights file {path} does not fit")
    assert said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_distilled_checkpoint_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A LoRA on it would learn what it no longer predicts."""
    data = own_run.data(tmp_path / "data")
    words = ["--data", str(data), "--out", str(tmp_path / "out"), "--lora", "2"]
    assert own_run.run([*words, "--checkpoint", "shapes-distilled"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --checkpoint: wanted a model that is not distilled, got shapes-")
    assert said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_grid_has_a_row_for_each_prompt() -> None:
    rows = [[Image.new("RGB", (4, 4), c) for c in ("red", "lime")], [Image.new("RGB", (4, 4))]]
    grid = image_grid(rows, gap=1)
    assert grid.size == (9, 9)
    corners = [grid.getpixel(at) for at in ((0, 0), (8, 0), (0, 8), (8, 8), (4, 4))]
    white = (255, 255, 255)
    assert corners == [(255, 0, 0), (0, 255, 0), (0, 0, 0), white, white]


def test_help_has_the_flags_of_ones_own_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert own_run.run(["--data", "x", "--help"]) == 0
    said = capsys.readouterr().out
    wanted = ("--lora", "--held-out", "--networks.unet-channels", "--adapter.alpha", "--checkpoint")
    assert all(flag in said for flag in wanted)


@pytest.mark.slow
def test_a_run_gives_a_model_that_loads_and_a_lora_that_merges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three networks from nothing; again, with nothing to do; then adapters of the result."""
    data, out = own_run.data(tmp_path / "data"), tmp_path / "out"
    words = own_run.flags(data, out)
    assert own_run.run(words) == 0
    said = capsys.readouterr().out
    assert all(f"{name}.safetensors" in said for name in NAMES)
    assert "held_out_loss" in said and "psnr_db" in said
    files = sorted(path.name for path in out.iterdir())
    assert files == [
        "preview-000002.png", "preview-000003.png", "text_encoder.safetensors", "tokenizer.json",
        "training", "unet.safetensors", "vae.safetensors",
    ]  # fmt: skip
    with Image.open(out / "preview-000003.png") as grid:
        assert grid.size == (len(SEEDS) * 18 - 2, 4 * 18 - 2)
    files = sorted([*out.glob("*.safetensors"), out / "tokenizer.json"])
    before = [path.read_bytes() for path in files]
    assert own_run.run(words) == 0 and capsys.readouterr().out == ""
    for other in (["--flip"], ["--networks.merges", "3"], ["--clip.seed", "5"]):
        assert own_run.run([*words, *other]) == 2
        assert "was made with other settings" in capsys.readouterr().err
        assert [path.read_bytes() for path in files] == before

    model = TextToImage.load(out, device="cpu")
    assert model.config.image_size == own_run.SIDE and model.config.unet.channels == (8, 8)
    assert json.loads(weights.read_metadata(out / "unet.safetensors")[CONFIG_KEY])["steps"] == 1000
    (image,) = model("number 3", steps=2, progress=False)
    assert image.size == (own_run.SIDE, own_run.SIDE)

    lora = tmp_path / "lora"
    assert own_run.run(own_run.lora_flags(data, lora, out)) == 0
    assert {*FILES.values(), "preview-000003.png", "training"} == {p.name for p in lora.iterdir()}
    factors = load_file(lora / FILES["kohya"])
    assert any(bool(value.any()) for name, value in factors.items() if "lora_up" in name)
    plain = {name: value.clone() for name, value in model.unet.state_dict().items()}
    merge(model, [(lora / FILES["kohya"], 1.0)])
    one = {name: value.clone() for name, value in model.unet.state_dict().items()}
    assert any(not torch.equal(one[name], value) for name, value in plain.items())
    assert own_run.run(own_run.lora_flags(data, lora, out)) == 0  # nothing left to do


@pytest.mark.slow
def test_networks_of_a_checkpoint_are_taken_as_they_are(tmp_path: Path) -> None:
    """The embedded model's text encoder and VAE; a U-Net from nothing."""
    data, out = own_run.data(tmp_path / "data"), tmp_path / "out"
    none = [f"--{name}.{flag}" for name in ("clip", "vae")
            for flag in ("steps", "batch-size", "warmup", "checkpoint-every")]  # fmt: skip
    changed = {
        "--checkpoint": "shapes", "--networks.text-width": None, "--networks.vae-channels": None,
        **dict.fromkeys(none),
    }  # fmt: skip
    words = own_run.flags(data, out, changed)
    words = [word for word in words if word not in ("--clip.cpu", "--vae.cpu")]
    assert own_run.run(words) == 0
    shapes, model = (TextToImage.load(name, device="cpu") for name in ("shapes", out))
    for name in ("text_encoder", "vae"):
        taken, kept = (getattr(one, name).state_dict() for one in (shapes, model))
        assert all(torch.equal(kept[key], value) for key, value in taken.items())
    assert model.tokenizer.words == shapes.tokenizer.words
    assert model.config.unet.channels == (8, 8)


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float16, 1.0), (torch.bfloat16, 2.0**-20), (torch.float32, 1.0)]
)
def test_a_taken_network_keeps_every_bit(dtype: torch.dtype, size: float, tmp_path: Path) -> None:
    """It is saved in a dtype that holds its weights; float16 does not hold small ones."""
    config = VAEConfig(channels=(8,), layers_per_block=1, groups=4)
    network = VAE(config)
    network.load_state_dict(
        {name: (size * value).to(dtype) for name, value in network.state_dict().items()}
    )
    options = OwnModel(data=tmp_path, out=tmp_path)
    folder = read_folder(own_run.data(tmp_path / "data"), own_run.SIDE)
    run = own._Run(options, Own(folder, 0.1, False), WHOLE, "the command")
    taken = own._take(run, "vae", network, config).state_dict()
    assert all(torch.equal(taken[name], value) for name, value in network.state_dict().items())
    saved = load_file(options.file("vae")).values()
    assert {value.dtype for value in saved} == {dtype}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills by SIGKILL")
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.sd.train.killed_own", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 5 and found["different"] == [], found


def test_the_size_of_a_lora_is_one_that_its_networks_halve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = own_run.data(tmp_path / "data")
    words = own_run.lora_flags(data, tmp_path / "out", "shapes")
    assert own_run.run([*words, "--size", "8"]) == 2
    assert "--size: wanted a multiple of 16" in capsys.readouterr().err
    assert own_run.run(words) == 2  # the checkpoint's size
    assert "24 images smaller than --size 64" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
