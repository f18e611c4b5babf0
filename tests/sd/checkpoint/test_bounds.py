"""Numbers in a file are bounded, and compared with its tensors, before they decide about work."""

import json
import re
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sd import weights
from sd.checkpoint import load
from sd.config import TextConfig, to_json
from sd.networks.text_encoder import TextEncoder
from tests.support import small_models
from tests.support.bad_checkpoints import UNET, Writer, changed, header, raw
from tests.support.small_models import V1

TEXT = "cond_stage_model.transformer.text_model."


def saying(**numbers: object) -> Writer:
    """The small v1 with some other numbers of the model in its metadata, or with any text."""

    def write(path: Path) -> None:
        words = json.loads(to_json(V1))
        for name, values in numbers.items():
            words[name] = words[name] | values if isinstance(values, dict) else values
        texts = [text for text in numbers.values() if isinstance(text, str)]
        save_file(
            small_models.single(V1), path, {"model_config": (texts or [json.dumps(words)])[0]}
        )

    return write


NOTHING: dict[str, object] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


def with_names(pattern: str, count: int) -> Writer:
    """The small v1 with more names, which are counted."""
    return changed(lambda t: t.update({pattern.format(i): torch.zeros(1) for i in range(count)}))


LAYERS = 10**9
CASES: dict[str, tuple[Writer, str]] = {
    "metadata of many layers": (
        saying(text={"layers": LAYERS}),
        "the config in its metadata is not valid: TextConfig.layers: wanted a whole number of at "
        "least 1 and at most 100, got 1000000000",
    ),
    "metadata of many levels": (
        saying(vae={"channels": [32] * 11}),
        "the config in its metadata is not valid: VAEConfig.channels: wanted at most 10 entries "
        f"of at most 16777216, got {(32,) * 11}",
    ),
    "metadata of another width": (
        saying(text={"width": 128}, unet={"context_width": 128}),
        "its metadata say TextConfig.width = 128, its tensors 64",
    ),
    "metadata of another count of layers": (
        saying(text={"layers": 3}),
        "its metadata say TextConfig.layers = 3, its tensors 2",
    ),
    "deep metadata": (
        saying(text="[" * 5000),
        r"the config in its metadata is not valid: ModelConfig is not valid JSON .*",
    ),
    "many layers": (
        with_names(f"{TEXT}encoder.layers.{{}}.x", 9999),
        "its text encoder has 9999 layers, above 100",
    ),
    "many levels": (
        with_names(UNET + "input_blocks.{}.0.op.x", 999),
        "its U-Net has 1000 levels of 0 blocks, above 10 and 10",
    ),
    "many blocks": (
        with_names(UNET + "input_blocks.{}.0.x", 999),
        "its U-Net has 3 levels of 332 blocks, above 10 and 10",
    ),
    "many tensors": (
        raw(header({f"a{i}": NOTHING for i in range(20_001)})),
        "no weights: more than 20000 tensors, or names of more than 500 characters",
    ),
    "a long name": (
        raw(header({"a" * 501: NOTHING})),
        "no weights: more than 20000 tensors, or names of more than 500 characters",
    ),
    "a deep header": (
        raw(struct.pack("<Q", 10**6) + b'{"a":' + b"[" * 10**6),
        r"no weights: its header is (JSON of more than 50 levels|not valid JSON .*)",
    ),
    "an endless number": (
        raw(header({"a": NOTHING | {"shape": [10**200]}})),
        r"no weights: its header is not valid JSON \(an integer of 201 digits\)",
    ),
    "nothing, of an overflowing shape": (
        raw(header({"a": NOTHING | {"shape": [2**62, 2**62, 0]}})),
        "the header's entry for a is not a tensor's",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_s_numbers_cost_nothing(name: str, tmp_path: Path) -> None:
    write, line = CASES[name]
    path = tmp_path / "model.safetensors"
    write(path)
    start = time.process_time()
    with pytest.raises(ValueError, match="checkpoint") as caught:
        load(path)
    assert time.process_time() - start < 5
    text = str(caught.value).removeprefix(f"checkpoint {path}: ")
    assert text == line or re.fullmatch(line, text)


def test_a_network_of_ours_is_bounded_by_its_configuration(tmp_path: Path) -> None:
    """The file of one network, whose metadata say how to build it."""
    path = tmp_path / "text_encoder.safetensors"
    words = json.loads(to_json(V1.text))
    save_file({"a": torch.zeros(1)}, path, {"config": json.dumps(words | {"layers": 10**9})})
    with pytest.raises(ValueError, match=r"TextConfig\.layers: .* at most 100, got 1000000000"):
        weights.load_network(path, TextEncoder, TextConfig)
