"""Files of weights, adapters, words, settings and images, spoiled in thousands of ways."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from experiments.generate import jobs
from sd.checkpoint import load, lora, textual_inversion
from sd.files import image_tensor
from sd.text import clip_vocabulary
from sd.text.tokenizer import Tokenizer
from tests.fuzz import inputs
from tests.fuzz.harness import fuzzed
from tests.fuzz.mutations import ODD_TEXTS, json_bytes, spoil_folder, spoiled
from tests.support import small_models

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]

SUFFIXES = (".ckpt", ".pt", ".bin", ".pth")


def test_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ("modelspec.prediction_type", "modelspec.predict_key", "config", "layers", "format")

    def case(rng: random.Random, folder: Path) -> None:
        data = inputs.safetensors_file()
        data = inputs.spoiled_safetensors(rng, data, said) if rng.random() < 0.97 else data
        load(inputs.written(folder, "m.safetensors", data))

    fuzzed("safetensors", case, tmp_path, monkeypatch)


def test_torch_zips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other contents, a changed pickle, a lying directory; weights with something odd beside."""
    whole = inputs.torch_file({"state_dict": inputs.tensors(), "global_step": 7})

    def case(rng: random.Random, folder: Path) -> None:
        match rng.randrange(5):
            case 0:
                data = inputs.hostile_zip(rng)
            case 1:
                data = spoiled(rng, whole)
            case 2:
                data = inputs.torch_file(inputs.odd_object(rng))
            case 3:
                odd = {rng.choice(ODD_TEXTS[6:12]): inputs.odd_object(rng)}
                data = inputs.torch_file({"state_dict": inputs.tensors(), **odd})
            case _:
                odd = {rng.choice(("a", "v_pred", 7)): inputs.odd_object(rng)}
                data = inputs.torch_file({"state_dict": {**inputs.tensors(), **odd}})
        load(inputs.written(folder, f"m{rng.choice(SUFFIXES)}", data))

    fuzzed("torch zip", case, tmp_path, monkeypatch)


def test_legacy_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch wrote before its zips, and bare pickles: none is read, whatever it holds."""

    whole = inputs.torch_file({"state_dict": inputs.tensors()}, legacy=True)

    def case(rng: random.Random, folder: Path) -> None:
        match rng.randrange(5):
            case 0:
                data = rng.choice(inputs.HOSTILE)
            case 1:
                data = inputs.odd_pickle(rng)
            case 2:
                data = inputs.torch_file({"a": torch.ones(2)}, legacy=True)
                data = spoiled(rng, data)
            case 3:
                data = (
                    whole if rng.random() < 0.3 else spoiled(rng, whole[: rng.choice((9999, -1))])
                )
            case _:
                data = spoiled(rng, rng.choice(inputs.HOSTILE))
        load(inputs.written(folder, f"m{rng.choice(SUFFIXES)}", data))

    fuzzed("legacy pickle", case, tmp_path, monkeypatch, read=False)


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline's folder, every file of which may be gone, spoiled or no file."""
    whole = small_models.write_folder(tmp_path / "whole", inputs.SMALL)
    files = {
        path.relative_to(whole): path.read_bytes() for path in whole.rglob("*") if path.is_file()
    }

    def case(rng: random.Random, folder: Path) -> None:
        at = folder / "model"
        for name, data in files.items():
            (at / name).parent.mkdir(parents=True, exist_ok=True)
            (at / name).write_bytes(data)
        if rng.random() < 0.97:
            spoil_folder(rng, at)
        load(at)

    fuzzed("folder", case, tmp_path, monkeypatch)


def test_yaml_and_json_beside_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training configuration beside a checkpoint decides what its U-Net predicts."""
    tree = {
        "model": {
            "base_learning_rate": 1e-4,
            "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": {
                "parameterization": "v", "linear_start": 0.00085, "linear_end": 0.012,
                "timesteps": 1000, "unet_config": {"params": {"channel_mult": [1, 2]}},
            },
        }
    }  # fmt: skip
    said = (
        "parameterization: v\n", "{a: [1, 2], parameterization: 'v'}", "\n" * 10**6,
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nparameterization: v\n",
        "&a [*a]", "? [a]\n: b", "!!python/object/apply:os.system ['touch owned']",
        "%YAML 9.9\n---\n",
        "a: " + "[" * 3000, "---\na: 1\n---\nb: 2\n", "\tx: 1", "a: 2001-01-01", "1: 2\nnull: 3",
    )  # fmt: skip

    def case(rng: random.Random, folder: Path) -> None:
        path = inputs.written(folder, "m.safetensors", inputs.safetensors_file())
        data = json_bytes(rng, tree)
        if rng.random() < 0.5:
            text = rng.choice(said).encode(rng.choice(("utf-8", "utf-8", "utf-16", "utf-8-sig")))
            data = text if rng.random() < 0.5 else spoiled(rng, text)
        path.with_suffix(rng.choice((".yaml", ".yml"))).write_bytes(data)
        load(path)

    fuzzed("yaml", case, tmp_path, monkeypatch)


def test_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LoRA of kohya's and PEFT's names, with settings in the header and in a file beside."""
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    kohya = f"lora_unet_{name.replace('.', '_')}"
    down, up = torch.randn(4, 32), torch.randn(32, 4)
    files = {
        "kohya": {f"{kohya}.lora_down.weight": down, f"{kohya}.lora_up.weight": up,
                  f"{kohya}.alpha": torch.tensor(4.0)},
        "peft": {f"base_model.model.{name}.lora_A.weight": down,
                 f"base_model.model.{name}.lora_B.weight": up},
    }  # fmt: skip
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": {"to_q": 4}}
    said = ("ss_network_alpha", "ss_network_dim", "lora_adapter_metadata", "ss_network_module")
    model = small_models.networks(inputs.SMALL)

    def case(rng: random.Random, folder: Path) -> None:
        kind = rng.choice(sorted(files))
        data = save(files[kind], {"format": "pt"})
        if rng.random() < 0.15:
            odd = {**files[kind], rng.choice(("a", "global_step")): inputs.odd_object(rng)}
            path = inputs.written(folder, "adapter_model.bin", inputs.torch_file(odd))
        else:
            data = inputs.spoiled_safetensors(rng, data, said) if rng.random() < 0.8 else data
            path = inputs.written(folder, "adapter_model.safetensors", data)
        if kind == "peft":
            (folder / "adapter_config.json").write_bytes(json_bytes(rng, settings))
        lora.merge(model, [(path, rng.choice((1.0, 0.5, -1.0)))])

    fuzzed("adapter", case, tmp_path, monkeypatch)


def test_embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(2, 64)
    forms = (
        {"<toy>": vectors[0]},
        {"emb_params": vectors},
        {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": vectors},
            "name": "toy",
            "step": 9,
        },
    )

    def case(rng: random.Random, folder: Path) -> None:
        match rng.randrange(4):
            case 0:
                data = inputs.spoiled_safetensors(rng, save({"emb_params": vectors}))
                path = inputs.written(folder, "e.safetensors", data)
            case 1:
                data = inputs.torch_file(inputs.odd_object(rng))
                path = inputs.written(folder, "e.pt", data)
            case 2:
                data = spoiled(rng, inputs.torch_file(rng.choice(forms)))
                path = inputs.written(folder, "e.bin", data)
            case _:
                odd = {rng.choice(("name", "string_to_param", "a", 5)): inputs.odd_object(rng)}
                data = inputs.torch_file({**rng.choice(forms), **odd})
                path = inputs.written(folder, "e.pt", data)
        Tokenizer.embedded().learn(textual_inversion.read_embedding(path, 64).name, [1])

    fuzzed("embedding", case, tmp_path, monkeypatch)


def test_tokenizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tokenizer.json, vocab.json beside merges.txt, CLIP's gzipped merges; a prompt is read."""
    rules = json.loads(
        (Path(clip_vocabulary.__file__).parents[1] / "assets" / "tokenizer.json").read_bytes()
    )
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    words = clip_vocabulary.rules_of_merges(merges).get_vocab()
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    text = "\n".join(lines).encode()

    def case(rng: random.Random, folder: Path) -> None:
        match rng.randrange(3):
            case 0:
                path = inputs.written(folder, "tokenizer.json", json_bytes(rng, rules))
            case 1:
                path = folder / "tokenizer"
                path.mkdir()
                said = json_bytes(rng, words) if rng.random() < 0.5 else json.dumps(words).encode()
                (path / "vocab.json").write_bytes(said)
                said = spoiled(rng, text) if rng.random() < 0.5 else text
                (path / "merges.txt").write_bytes(said)
            case _:
                data = gzip.compress(spoiled(rng, text) if rng.random() < 0.5 else text)
                data = spoiled(rng, data) if rng.random() < 0.5 else data
                path = inputs.written(folder, "bpe.txt.gz", data)
        tokenizer = clip_vocabulary.find_tokenizer(Path("x"), path, 77, None)
        tokenizer.encode(["a red cat", "dog é \u202e", "x" * 100])

    fuzzed("tokenizer", case, tmp_path, monkeypatch)


def test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every format that Pillow writes, under any name; what is read is RGB."""

    def case(rng: random.Random, folder: Path) -> None:
        data = inputs.any_image(rng)
        data = spoiled(rng, data) if rng.random() < 0.8 else data
        name = rng.choice(("a.png", "a.jpg", "a.eps", "a.tif", "a", "a.webp"))
        found = image_tensor.read_image(inputs.written(folder, name, data))
        assert found.mode == "RGB" and np.asarray(found).dtype == np.uint8

    fuzzed("image", case, tmp_path, monkeypatch)


def test_prompt_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of words, lines of JSON, both spoiled; places that are no file."""
    lines = ("a red circle", "", "# no", '{"prompt": "a blue ring", "seed": 3}', '{"prompt": "x"}')

    def case(rng: random.Random, folder: Path) -> None:
        if rng.random() < 0.03:
            place = rng.choice(
                ("/dev/full", "/dev/zero", "/dev/null", str(folder), "/proc/self/mem")
            )
            jobs.read(Path(place), 0, "")
            return
        said = []
        for _ in range(rng.choice((1, 2, 5, 100))):
            line = rng.choice(lines).encode()
            if rng.random() < 0.2:
                line = json_bytes(rng, {"prompt": "a", "seed": 1, "negative_prompt": "b"})
            said.append(spoiled(rng, line) if rng.random() < 0.05 else line)
        path = inputs.written(folder, "p.txt", rng.choice((b"\n", b"\r\n")).join(said))
        for job in jobs.read(path, rng.choice((0, 5)), ""):
            job.prompt.encode()

    fuzzed("prompt file", case, tmp_path, monkeypatch)
