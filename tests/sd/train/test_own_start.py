"""The checkpoint of `train --data --checkpoint`: how it is read, and what is refused."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from sd import weights
from sd.command_line.flags import FlagError, flags_of
from sd.loading_options import LoadingOptions
from sd.text.tokenizer import word_level
from sd.train.lora import FILES
from sd.train.own_options import OwnModel
from sd.train.own_start import Start, started
from sd.train.preview import Prompts, of_captions
from tests.support import own_run
from tests.support.captioned import captioned

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.support import checkpoint_writers, small_models
from tests.support.small_models import V1, V2

NAMES = [*"0123456789", "number", *(f"word{i}" for i in range(36))]
RANK = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captioned images, a vocabulary, and one file of v2.x that says no prediction."""
    place = tmp_path_factory.mktemp("checkpoints")
    said = {f"{i}.png": [f"number {i % 10}"] for i in range(24)}
    captioned(place / "data", said, side=own_run.SIDE)
    word_level(NAMES).save(str(place / "tokenizer.json"))
    checkpoint_writers.file(V2, checkpoint_writers.with_ema)(place)  # model.safetensors
    return place


def begun(place: Path, **loading: Any) -> Start:
    """The start of the training of a LoRA."""
    given = LoadingOptions(tokenizer=place / "tokenizer.json", **loading)
    return started(
        OwnModel(data=place / "data", checkpoint=str(place / "model.safetensors"),
                 size=own_run.SIDE, lora=RANK, loading=given)
    )  # fmt: skip


def test_every_flag_that_a_message_of_the_loader_names_exists() -> None:
    given = {f"--{field.name}" for field in fields(LoadingOptions)}
    assert given and given <= flags_of(OwnModel).keys()


def test_a_file_of_v2_is_trained_as_it_predicts(place: Path) -> None:
    base = begun(place, prediction="v_prediction").base
    assert base is not None and base.config.prediction == "v_prediction"
    assert base.tokenizer.words == NAMES
    with pytest.warns(UserWarning, match="nothing says what its U-Net predicts"):
        base = begun(place).base
    assert base is not None and base.config.prediction == "epsilon"


def test_the_averaged_weights_are_read(place: Path) -> None:
    bases = [begun(place, prediction="sample", ema=ema).base for ema in (False, True)]
    plain, averaged = (base.unet.conv_in.weight for base in bases if base is not None)
    assert plain.equal(averaged / 2)


def test_flags_that_the_checkpoint_does_not_take_are_refused(place: Path) -> None:
    with pytest.raises(FlagError, match=r"variant is 'fp16', which only a diffusers folder"):
        begun(place, variant="fp16")
    model = OwnModel(data=place / "data", checkpoint="shapes", lora=RANK,
                     loading=LoadingOptions(prediction="sample"))  # fmt: skip
    with pytest.raises(FlagError, match=r"^--prediction: wanted a checkpoint .*, got 'shapes'"):
        started(model)
    with pytest.raises(FlagError, match=r"^--ema: has no effect without --lora"):
        replace(model, lora=None, loading=LoadingOptions(ema=True)).check()


def test_the_prompts_of_the_previews(tmp_path: Path) -> None:
    """Held-out captions first, as text; or those of the flag."""
    data = captioned(tmp_path, {f"{i}.png": [f"{i} (old) BREAK"] for i in range(9)}, side=16)
    options = OwnModel(data=data, size=16, held_out=0.2)
    with pytest.warns(UserWarning, match="9 of 9 captions have marks"):
        found = started(options)
    source = found.source
    first = [source.folder.captions[place][0] for place in source.held_out + source.trained]
    assert found.prompts == of_captions(first[:4]) and len(source.held_out) == 2
    assert found.prompts.texts[0].endswith(r"\(old\) \BREAK")
    with pytest.warns(UserWarning, match="captions have marks"):
        found = started(replace(options, prompts=("(5)",)))
    assert found.prompts == Prompts(("(5)",), captions=False)


def test_an_inpainting_model_is_refused_before_any_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reading = replace(V1, unet=replace(V1.unet, in_channels=9))
    small_models.write_folder(place / "inpainting", reading)
    capsys.readouterr()
    words = own_run.lora_flags(place / "data", tmp_path / "out", place / "inpainting")
    assert own_run.run([*words, "--size", "16", "--tokenizer", str(place / "tokenizer.json")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --checkpoint: wanted a text-to-image model with --lora, not an ")
    assert said.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_lora_says_what_its_checkpoint_predicts(place: Path, tmp_path: Path) -> None:
    words = own_run.lora_flags(place / "data", tmp_path / "out", place / "model.safetensors")
    words += ["--size", "16", "--tokenizer", str(place / "tokenizer.json")]
    assert own_run.run([*words, "--prediction", "v_prediction"]) == 0
    made = weights.read_metadata(tmp_path / "out" / FILES["kohya"])["settings"]
    assert json.loads(json.loads(made)["model"])["prediction"] == "v_prediction"
