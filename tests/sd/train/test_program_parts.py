"""`python -m sd.train` by its parts: what each hands to the next, with stand-ins for the work."""

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from diffusion_math.schedule import Discrete
from sd import device, weights
from sd.config import to_json
from sd.networks.vae import VAE
from sd.text.tokenizer import Tokenizer
from sd.train import __main__ as program
from sd.train import clip, control, distillation, evaluation, settings, source, unet, vae
from sd.train.__main__ import All, check, finished, main, train, wanted
from sd.train.checkpoint import Log, load_checkpoint, machine
from sd.train.distillation import Distillation
from sd.train.settings import agree
from tests.support.tiny_training import CONFIG, TRAININGS

pytestmark = pytest.mark.usefixtures("unchecked")

OPTIONS = All(model=Path("made"), judged=7, distilled=Distillation(sampling_eta=0.9))
STAGES = ("text_encoder", "vae", "unet", "control", "distilled")


class Made(SimpleNamespace):
    """Stands for the model: keeps its parts."""

    def __init__(self, *parts: Any, **more: Any) -> None:
        super().__init__(parts=parts, **more)


def accuracy(models: list[Any], words: tuple[Any, ...]) -> dict[str, int]:
    """Keep what is judged; the first is the U-Net, the second the student."""
    models.append(words)
    return {"figure": 3 if len(models) % 2 else 5}


def test_each_network_is_made_from_the_ones_before(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, Any] = {}
    said: list[str] = []
    saved: dict[str, Any] = {}
    asked: dict[str, Any] = {}

    def note(name: str, answer: Any) -> Any:
        def call(*words: Any) -> Any:
            calls[name] = words
            return answer

        return call

    def settings(options: All, config: Any, name: str, networks: Any = None) -> dict[str, Any]:
        return {"of": name, "networks": networks}

    def unfinished(options: All, name: str, settings: Any) -> bool:
        asked[name] = settings
        return False

    def save(path: Path, network: nn.Module, own: Any, **words: Any) -> None:
        saved[path.name] = network, own, words

    loaded = {name: object() for name in STAGES}
    state = VAE(CONFIG.vae).state_dict()
    monkeypatch.setattr(program, "wanted", settings)
    monkeypatch.setattr(program, "finished", unfinished)
    monkeypatch.setattr(program, "say", said.append)
    monkeypatch.setattr(program, "write_file", note("write_file", None))
    monkeypatch.setattr(program, "rounded", lambda network, state: network)
    monkeypatch.setattr(program, "TextToImage", Made)
    monkeypatch.setattr(weights, "save_network", save)
    monkeypatch.setattr(weights, "load_network", lambda path, *_: loaded[path.stem])
    monkeypatch.setattr(clip, "train_clip", note("clip", ("state", {"figure": 1})))
    monkeypatch.setattr(vae, "train_vae", note("vae", state))
    monkeypatch.setattr(source, "images", note("images", "some images"))
    monkeypatch.setattr(vae, "standardise", note("standardise", None))
    monkeypatch.setattr(evaluation, "reconstruction", note("reconstruction", {"figure": 2}))
    monkeypatch.setattr(unet, "train_unet", note("unet", "state"))
    judged_models: list[Any] = []
    monkeypatch.setattr(evaluation, "accuracy", lambda *words: accuracy(judged_models, words))
    monkeypatch.setattr(control, "train_control", note("control", "state"))
    monkeypatch.setattr(evaluation, "controlled", note("controlled", {"figure": 4}))
    monkeypatch.setattr(distillation, "distil", note("distil", "state"))

    program._train(OPTIONS, "the command", CONFIG)

    before = loaded["vae"], loaded["text_encoder"]
    all_three = (*before, loaded["unet"])
    networks = {"text_encoder": None, "vae": None, "unet": before}
    networks |= {"control": all_three, "distilled": all_three}
    assert asked == {name: {"of": name, "networks": networks[name]} for name in STAGES}
    assert said == [f'{name}.safetensors {{"figure": {k}}}' for k, name in enumerate(STAGES, 1)]
    own = {"text_encoder": CONFIG.text, "vae": CONFIG.vae, "unet": CONFIG.unet}
    own |= {"control": control.control_config(CONFIG), "distilled": CONFIG.unet}
    few = distillation.distilled(CONFIG, OPTIONS.distilled.calls, 0.9)
    for k, name in enumerate(STAGES, 1):
        _, config, words = saved[f"{name}.safetensors"]
        assert config == own[name]
        assert words == {
            "licence": "MIT",
            "command": "the command",
            "seed": 0,
            "settings": asked[name],
            "figures": {"figure": k},
            **({"model_config": to_json(few)} if name == "distilled" else {}),
        }
    assert calls["clip"] == (OPTIONS.clip, CONFIG.text)
    assert calls["vae"] == (OPTIONS.vae, CONFIG.vae)
    assert calls["images"] == (0, range(2000))
    assert calls["standardise"][1] == "some images"
    assert calls["reconstruction"] == (saved["vae.safetensors"][0], 7)
    training, config, autoencoder, encoder, tokenizer, schedule = calls["unet"]
    assert (training, config, autoencoder, encoder) == (OPTIONS.unet, CONFIG, *before)
    assert tokenizer.words == Tokenizer.embedded().words
    assert tokenizer.context_length == CONFIG.text.context_length
    assert torch.equal(schedule.betas, Discrete.scaled_linear(CONFIG.steps).betas)
    (model, judged), (student, again) = judged_models
    assert judged == again == 7 and model.device == torch.device("cpu")
    network = saved["unet.safetensors"][0]
    assert model.parts == (CONFIG, tokenizer, loaded["text_encoder"], loaded["vae"], network)
    training, config, *three, words, same = calls["control"]
    assert (training, config, *three) == (OPTIONS.control, CONFIG, *all_three)
    assert words is tokenizer and torch.equal(same.betas, schedule.betas)
    model, branch, judged = calls["controlled"]
    assert judged == 7 and branch is saved["control.safetensors"][0]
    assert model.parts == (CONFIG, tokenizer, *(loaded[name] for name in STAGES[:3]))
    assert calls["distil"] == (OPTIONS.distilled, CONFIG, *all_three, tokenizer)
    network = saved["distilled.safetensors"][0]
    assert student.parts == (few, tokenizer, loaded["text_encoder"], loaded["vae"], network)

    calls.clear()
    decoder = replace(OPTIONS, vae=replace(OPTIONS.vae, decoder_only=True))
    program._train(decoder, "the command", CONFIG)
    assert "vae" in calls and "standardise" not in calls


def test_a_network_depends_on_its_training_its_data_and_the_networks_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clip, "context", lambda config: {"clip": config})
    monkeypatch.setattr(vae, "context", lambda config: {"vae": config})
    monkeypatch.setattr(unet, "context", lambda config, *networks: {"unet": networks})
    monkeypatch.setattr(control, "context", lambda config, *networks: {"control": networks})
    monkeypatch.setattr(distillation, "context", lambda config, *networks: {"student": networks})
    own = {name: training.settings() for name, training in OPTIONS.stages.items()}
    judged = {"--judged": 7}
    found = {name: wanted(OPTIONS, CONFIG, name) for name in STAGES}
    assert found["text_encoder"] == own["text_encoder"] | {"clip": CONFIG.text}
    assert found["vae"] == own["vae"] | judged | {"vae": CONFIG.vae}
    assert found["unet"] == own["unet"] | judged
    pair: Any = ("autoencoder", "encoder")
    assert wanted(OPTIONS, CONFIG, "unet", pair) == own["unet"] | judged | {"unet": pair}
    assert wanted(OPTIONS, CONFIG, "unet", judged=False) == own["unet"]
    three: Any = (*pair, "unet")
    assert wanted(OPTIONS, CONFIG, "control", three) == own["control"] | judged | {"control": three}
    student = own["distilled"] | judged | {"student": three}
    assert wanted(OPTIONS, CONFIG, "distilled", three) == student


@pytest.fixture
def unmade(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """No network is finished; returns the checkpoints that are asked for."""
    seen: list[Any] = []
    monkeypatch.setattr(program, "finished", lambda *_: False)
    monkeypatch.setattr(program, "wanted", lambda *words, judged=True: (words[2], judged))
    monkeypatch.setattr(program.checkpoint, "load_checkpoint", lambda *words: seen.append(words))
    return seen


def test_a_checkpoint_does_not_depend_on_what_is_judged(unmade: list[Any]) -> None:
    check(OPTIONS, CONFIG)
    assert unmade == [(OPTIONS.stages[name], (name, False)) for name in STAGES]


def test_what_is_finished_is_asked_with_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(program, "wanted", lambda *words, judged=True: (words[2], judged))
    monkeypatch.setattr(program, "finished", lambda *words: seen.append(words) is None)
    check(OPTIONS, CONFIG)
    assert seen == [(OPTIONS, name, (name, True)) for name in STAGES]


@pytest.mark.parametrize("devices", [("cuda:0", "cpu"), ("cpu",)])
@pytest.mark.parametrize("alike", [True, False])
def test_one_device_trains_all(
    unmade: list[Any], monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...], alike: bool
) -> None:
    monkeypatch.setattr(device, "available", lambda: devices)
    mixed = replace(OPTIONS, unet=replace(OPTIONS.unet, cpu=not alike))
    if alike or devices == ("cpu",):
        return check(mixed, CONFIG)
    flags = ", ".join(f"--{name}.cpu" for name in TRAININGS)
    message = f"^{flags}: give all of them or none$"
    with pytest.raises(ValueError, match=message):
        check(mixed, CONFIG)


@pytest.mark.parametrize(
    ("words", "made"),
    [({"settings": '{"--x": 1}'}, {"--x": 1}), ({}, None), ({"settings": "{"}, None)],
)
def test_a_finished_network_is_compared_by_its_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: dict[str, str], made: Any
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(weights, "read_metadata", lambda path: words)
    monkeypatch.setattr(settings, "agree", lambda *words: seen.append(words))
    options = replace(OPTIONS, model=tmp_path)
    assert not finished(options, "vae", {"--y": 2})
    path = tmp_path / "vae.safetensors"
    path.touch()
    assert finished(options, "vae", {"--y": 2})
    advice = "keep it as it is with --keep vae, give another --model, or delete the file"
    assert seen == [(path, made, {"--y": 2}, advice)]


def test_the_program_reads_its_flags_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def guarded(work: Any, interrupted: str) -> int:
        work()
        seen.append(interrupted)
        return 130

    monkeypatch.setattr(program, "parsed", lambda *words: seen.append(words))
    monkeypatch.setattr(program, "guarded", guarded)
    monkeypatch.setattr(sys, "argv", ["train", "--judged", "3"])
    assert main() == 130
    assert seen == [
        (All, "python -m sd.train", ["--judged", "3"]),
        "the same command resumes from the last checkpoint",
    ]


def test_folders_are_named_by_their_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of networks that are there already are left alone."""
    seen: list[Any] = []

    def opened(*words: Any) -> Any:
        seen.append(words)
        return nullcontext()

    for name in ("output_folder", "locked"):
        monkeypatch.setattr(program, name, opened)
    for name in ("check", "_train"):
        monkeypatch.setattr(program, name, lambda *_: None)
    options = replace(OPTIONS, model=tmp_path)
    options.file("vae").touch()
    train(options, "the command", CONFIG)
    assert seen == [
        (tmp_path, "--model"),
        (tmp_path, "--model"),
        (options.clip.out, "--clip.out"),
        (options.unet.out, "--unet.out"),
        (options.control.out, "--control.out"),
        (options.distilled.out, "--distilled.out"),
    ]


def test_one_folder_for_two_is_named_by_both_flags() -> None:
    with pytest.raises(ValueError, match=r"^--model, --vae.out: wanted two folders, got runs"):
        replace(OPTIONS, model=OPTIONS.vae.out).check()


@pytest.mark.parametrize("length", [57, 58, 59])
def test_a_long_setting_is_shown_by_sixty_letters(length: int) -> None:
    text = f'"{"a" * length}"'
    shown = text if len(text) <= 60 else f"{text[:60]}..."
    message = (
        f"^made was made with other settings: --x {shown} there, 1 now; give the same again, or go$"
    )
    with pytest.raises(ValueError, match=message):
        agree(Path("made"), {"--x": "a" * length}, {"--x": 1}, "go")


def test_settings_are_compared_without_their_order() -> None:
    agree(Path("made"), {"x": {"a": 1, "b": 2}}, {"x": {"b": 2, "a": 1}}, "go")


@pytest.mark.parametrize("name", ["--steps", "--unet.steps"])
def test_other_steps_are_another_schedule(name: str) -> None:
    why = r" \(the learning rate's schedule depends on the number of steps\); give"
    with pytest.raises(ValueError, match=f": {name} 2 there, 3 now{why}"):
        agree(Path("made"), {name: 2}, {name: 3}, "go")


def test_a_file_is_known_by_sixteen_digits_of_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    found = replace(OPTIONS.vae, initial=tmp_path / "abc").settings()
    assert found["--vae.initial"] == "ba7816bf8f01cfea"


def test_a_log_begins_with_the_lines_so_far(tmp_path: Path) -> None:
    log, old = Log(tmp_path / "log.jsonl", ["a\n", "b\n"]), tmp_path / "log.jsonl.old"
    log.path.touch()
    log.begin(anew=True)
    assert log.path.read_text("utf-8") == "a\nb\n" and not old.exists()
    log.path.write_text("c", "utf-8")
    log.begin(anew=True)
    assert old.read_text("utf-8") == "c"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_log_on_a_full_disk_is_named() -> None:
    with pytest.raises(OSError, match="/dev/full"):
        Log(Path("/dev/full"), []).add(1, {"loss": 1.0})


def test_a_checkpoint_is_read_as_tensors_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []
    training = replace(OPTIONS.vae, out=tmp_path)
    (tmp_path / "checkpoint.pt").touch()
    state = {"module": {}, "optimizer": {}, "step": 1}
    monkeypatch.setattr(torch, "load", lambda path, **words: seen.append(words) or state)
    with pytest.raises(ValueError, match=r"checkpoint.pt does not say how it was trained; give"):
        load_checkpoint(training, {})
    assert seen == [{"map_location": "cpu", "weights_only": True}]


def test_the_machine_is_its_device_its_torch_and_its_threads() -> None:
    threads = torch.get_num_threads()
    wanted = {"device": "meta", "torch": str(torch.__version__), "threads": threads}
    assert machine(torch.device("meta")) == wanted
