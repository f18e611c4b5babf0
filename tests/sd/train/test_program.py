"""`python -m sd.train`: what is judged is what ships, what is done is not done again unawares."""

import errno
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sd import weights
from sd.config import to_json
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.text.tokenizer import Tokenizer
from sd.train import __main__ as program
from sd.train import clip, control, distillation, evaluation, trainer, unet, vae
from tests.support.tiny_training import CONFIG, TRAININGS, flags, run

NAMES = ("text_encoder", "vae", "unet", "control", "distilled")


def odd(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights that float16 can't hold."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator) / 3.0
        for name, value in network.state_dict().items()
    }


def untrained(patch: pytest.MonkeyPatch) -> dict[str, Mapping[str, Tensor]]:
    """Put odd weights for what training would give; returns what is judged, as it is judged."""
    judged: dict[str, Mapping[str, Tensor]] = {}

    def note(name: str, network: nn.Module) -> dict[str, float]:
        judged[name] = {k: v.clone() for k, v in network.state_dict().items()}
        return {"figure": 0.5}

    patch.setattr(clip, "fit", lambda module, *_: odd(module, 1))
    patch.setattr(clip, "matching", lambda module, *_: note("text_encoder", module.text))
    patch.setattr(vae, "fit", lambda module, *_: odd(module, 2))
    patch.setattr(unet, "fit", lambda module, *_: odd(module, 3))
    patch.setattr(control, "fit", lambda module, *_: odd(module, 4))
    patch.setattr(distillation, "fit", lambda module, *_: odd(module, 5))
    patch.setattr(evaluation, "reconstruction", lambda module, _: note("vae", module))
    patch.setattr(evaluation, "accuracy", lambda model, _: note(which(model), model.unet))
    patch.setattr(evaluation, "controlled", lambda model, network, _: note("control", network))
    return judged


def which(model: TextToImage) -> str:
    """The name of its U-Net."""
    return "distilled" if model.config.distilled else "unet"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, Mapping[str, Tensor]]:
    return untrained(monkeypatch)


def test_what_is_judged_is_what_ships(tmp_path: Path) -> None:
    """Bit for bit the numbers in the file: averaged, rounded to float16, and only then judged."""
    with pytest.MonkeyPatch.context() as patch:
        judged = untrained(patch)
        assert run(patch, *flags(tmp_path)) == 0
    assert judged.keys() == set(NAMES)
    for name, network in judged.items():
        shipped = load_file(tmp_path / "model" / f"{name}.safetensors")
        assert shipped.keys() == network.keys()
        for key, value in network.items():
            assert shipped[key].dtype == torch.float16
            assert torch.equal(shipped[key].float(), value), (name, key)
    own = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    assert own == json.loads(Tokenizer.embedded().to_json())
    given = odd(UNet(CONFIG.unet), 3)
    assert all(torch.equal(judged["unet"][key], given[key].half().float()) for key in given)


def test_files_say_how_they_were_made(quick: Any, tmp_path: Path) -> None:
    words = flags(tmp_path, {"--unet.seed": "7"})
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, *words) == 0
    found = weights.read_metadata(tmp_path / "model" / "unet.safetensors")
    settings = json.loads(found["settings"])
    assert settings["--unet.seed"] == 7 == int(found["seed"]) and settings["--judged"] == 2
    assert {"data", "config", "vae", "text_encoder"} <= settings.keys()
    assert found["command"].startswith("python -m sd.train --model ")
    assert found["figures"] == '{"figure": 0.5}' and found["config"] == to_json(CONFIG.unet)


CHANGED = {
    "a seed": ({"--clip.seed": "1"}, "text_encoder.safetensors", "--clip.seed 0 there, 1 now"),
    "a rate": ({"--vae.learning-rate": "0.1"}, "vae.safetensors", "--vae.learning-rate 0.002"),
    "steps": ({"--unet.steps": "9"}, "unet.safetensors", "--unet.steps 3 there, 9 now"),
    "what is judged": ({"--judged": "3"}, "vae.safetensors", "--judged 2 there, 3 now"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_finished_network_of_other_settings_is_refused(
    case: str, quick: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed, file, words = CHANGED[case]
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, *flags(tmp_path)) == 0
        before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
        assert run(patch, *flags(tmp_path)) == 0  # nothing left to do
        capsys.readouterr()
        assert run(patch, *flags(tmp_path, changed)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert file in said and words in said and "--keep" in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def test_a_unet_on_another_autoencoder_is_refused(
    quick: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, *flags(tmp_path)) == 0
        (tmp_path / "model" / "vae.safetensors").unlink()
        patch.setattr(vae, "fit", lambda module, *_: odd(module, 9))
        assert run(patch, *flags(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "unet.safetensors was made with other settings: vae " in said


def shipped(folder: Path) -> None:
    """Networks that do not say how they were trained."""
    folder.mkdir()
    weights.save_network(folder / "text_encoder.safetensors", TextEncoder(CONFIG.text), CONFIG.text)
    weights.save_network(folder / "vae.safetensors", VAE(CONFIG.vae), CONFIG.vae)


def test_networks_of_unknown_make_are_kept_only_where_asked(
    quick: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped(tmp_path / "model")
    words = flags(tmp_path)
    unet_alone = ["--keep", "text_encoder", "vae", *words[:2]]
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, *words) == 2
        assert "does not say how it was trained; keep it as it is with --keep text_encoder" in (
            capsys.readouterr().err
        )
        assert run(patch, *unet_alone, "--vae.seed", "3") == 2
        assert "--vae.seed: has no effect with --keep vae" in capsys.readouterr().err
        latest = ["--unet.latents", "100", "--unet.out", str(tmp_path / "unet")]
        latest += ["--control.latents", "100", "--control.out", str(tmp_path / "control")]
        latest += ["--distilled.trajectories", "100", "--distilled.calls", "1"]
        latest += ["--distilled.scales", "1", "--distilled.out", str(tmp_path / "distilled")]
        assert run(patch, *unet_alone, *latest) == 0
    assert sorted(quick) == ["control", "distilled", "unet"]


def test_a_network_to_keep_has_to_be_there(
    quick: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "--model", str(tmp_path / "new"), "--keep", "vae") == 2
    assert "--keep vae: " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_initial_file_that_does_not_fit_is_refused_before_any_work(
    quick: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.safetensors"
    weights.save_network(path, TextEncoder(CONFIG.text), CONFIG.text)
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, *flags(tmp_path, {"--unet.initial": str(path)})) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --unet.initial: weights file {path} does not fit UNet")
    assert quick == {} and [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["vae", "unet"])
def test_a_kept_network_that_does_not_fit_is_refused_before_any_work(
    name: str, quick: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / f"{name}.safetensors"
    weights.save_network(path, TextEncoder(CONFIG.text), CONFIG.text)
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "--model", str(path.parent), "--keep", name) == 2
    said = capsys.readouterr().err
    assert path.name in said and "does not fit" in said and said.count("\n") == 1
    assert quick == {}


def test_without_accelerate_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert run(monkeypatch, *flags(tmp_path)) == 2
    said = capsys.readouterr().err
    wanted = "error: the package accelerate is not installed: pip install 'diffusion-math[train]'\n"
    assert said == wanted
    assert list(tmp_path.iterdir()) == []


def test_a_warm_up_that_never_ends_is_said(
    quick: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, *flags(tmp_path, {"--vae.warmup": "3"})) == 0
    said = capsys.readouterr().err
    assert said.startswith(
        "warning: --vae.warmup 3 is not below the number of steps: the learning rate "
    )
    assert said.count("\n") == 1


@pytest.mark.parametrize("fault", ["interrupt", "full disk"])
def test_a_run_that_is_stopped_says_one_line_and_resumes(
    fault: str, quick: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the autoencoder, after the text encoder: the same command carries on from there."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    error, code = (KeyboardInterrupt, 130) if fault == "interrupt" else (full, 2)

    def stop(*_: Any) -> Any:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "fit", stop)
        assert run(patch, *flags(tmp_path)) == code
    said = capsys.readouterr().err
    assert (
        said
        == {
            "interrupt": "interrupted; the same command resumes from the last checkpoint\n",
            "full disk": "error: No space left on device\n",
        }[fault]
    )
    assert list(quick) == ["text_encoder"]
    quick.clear()
    untrained_again = pytest.MonkeyPatch()
    again = untrained(untrained_again)
    assert run(untrained_again, *flags(tmp_path)) == 0
    untrained_again.undo()
    assert sorted(again) == ["control", "distilled", "unet", "vae"]


@pytest.mark.slow
def test_the_whole_program_ends_alike_interrupted_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at the second step of each network; files but for their command, and logs, agree."""
    changed = {"--judged": "1", "--unet.batch-size": "2", "--control.batch-size": "2"}
    assert run(monkeypatch, *flags(tmp_path / "whole", changed)) == 0
    update, stopped = trainer.learning_rate, []

    def stopping(training: Any, step: int) -> float:
        if step == 2 and training.prefix not in stopped:
            stopped.append(training.prefix)
            raise KeyboardInterrupt
        return update(training, step)

    monkeypatch.setattr(trainer, "learning_rate", stopping)
    codes = [run(monkeypatch, *flags(tmp_path / "stopped", changed)) for _ in range(6)]
    assert codes == [130, 130, 130, 130, 130, 0]
    for name in TRAININGS:
        logs = [(tmp_path / one / name / "log.jsonl").read_text() for one in ("whole", "stopped")]
        assert logs[0] == logs[1]
    for name in NAMES:
        paths = [tmp_path / one / "model" / f"{name}.safetensors" for one in ("whole", "stopped")]
        one, other = ({**weights.read_metadata(path), "command": ""} for path in paths)
        assert one == other  # figures and the tensors' checksum among them
    left = [path for path in tmp_path.rglob("*") if path.suffix == ".tmp" or path.name == ".lock"]
    assert left == []


def test_help_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("--unet.steps", "--keep", "--vae.decoder-only", "--model"))
