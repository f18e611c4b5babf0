"""The flags of the model: each reaches the networks, is kept in the picture, and is repeated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro
from safetensors.torch import save_file

from experiments.__main__ import main
from experiments.common.model import load
from experiments.common.model_options import KEPT, Model
from experiments.common.sampling_options import Sampling
from experiments.generate import png_metadata
from experiments.timing import run as timing
from sd import checkpoint
from sd.config import to_json
from sd.pipeline import TextToImage
from sd.text.tokenizer import word_level

pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from tests.support import checkpoint_writers, small_models  # noqa: E402 - they need diffusers

CONFIG = small_models.V1
LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
RANK, ALPHA = 3, 6.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder written by diffusers, a file in the original layout, and what the flags name."""
    place = tmp_path_factory.mktemp("flags")
    small_models.write_folder(place / "folder", CONFIG)
    small_models.write_folder(place / "half", CONFIG, variant="fp16", dtype=torch.float16)
    words = word_level([f"word{i}" for i in range(47)])
    for folder in ("folder", "half"):
        (place / folder / "tokenizer").mkdir(exist_ok=True)
        words.save(str(place / folder / "tokenizer" / "tokenizer.json"))
    checkpoint_writers.file(CONFIG, checkpoint_writers.with_ema)(place)  # model.safetensors
    (place / "numbers.json").write_text(to_json(CONFIG), encoding="utf-8")
    weight = small_models.truth(CONFIG)["unet"][f"{LAYER}.weight"]
    stem = f"lora_unet_{LAYER.replace('.', '_')}"
    save_file(
        {
            f"{stem}.lora_down.weight": normal(RANK, weight.shape[1], seed=1),
            f"{stem}.lora_up.weight": normal(weight.shape[0], RANK, seed=2),
            f"{stem}.alpha": torch.tensor(ALPHA),
        },
        place / "style.safetensors",
    )
    save_file({"emb_params": normal(2, CONFIG.text.width, seed=3)}, place / "my-cat.safetensors")
    save_file({"emb_params": normal(2, 8, seed=3)}, place / "narrow.safetensors")
    return place


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def single(place: Path, **more: Any) -> Model:
    vocabulary = place / "folder" / "tokenizer"
    return Model(weights=place / "model.safetensors", tokenizer=vocabulary, device="cpu", **more)


def folder(place: Path, **more: Any) -> Model:
    return Model(weights=place / "folder", device="cpu", **more)


def test_prediction(place: Path) -> None:
    assert load(folder(place)).config.prediction == "epsilon"
    assert load(folder(place, prediction="sample")).config.prediction == "sample"


def test_config(place: Path, tmp_path: Path) -> None:
    assert load(single(place)).config.guidance_scale == CONFIG.guidance_scale
    other = tmp_path / "numbers.json"
    numbers = json.loads(to_json(CONFIG)) | {"guidance_scale": 3.25, "solver": "euler"}
    other.write_text(json.dumps(numbers), encoding="utf-8")
    model = single(place, config=other)
    assert Sampling().call(load(model))["guidance_scale"] == 3.25
    other.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"--config: .* holds no model configuration: Mod"):
        load(model)
    with pytest.raises(FileNotFoundError, match=r"--config: .*none\.json is missing"):
        load(single(place, config=tmp_path / "none.json"))


def test_ema(place: Path) -> None:
    wanted = small_models.truth(CONFIG)["unet"]
    plain, averaged = (load(single(place, ema=ema)).unet.state_dict() for ema in (False, True))
    for name, weight in wanted.items():
        assert torch.equal(averaged[name], weight)
        assert torch.equal(plain[name], weight / 2)


def test_variant(place: Path) -> None:
    loaded = load(Model(weights=place / "half", variant="fp16", device="cpu"))
    for name, weight in small_models.truth(CONFIG)["unet"].items():
        assert torch.equal(loaded.unet.state_dict()[name], weight.half().float())
    with pytest.raises((ValueError, FileNotFoundError)):
        load(folder(place, variant="fp16"))


@pytest.mark.parametrize(("end", "strength"), [("", 1.0), (":0.5", 0.5), (":-2", -2.0)])
def test_lora(end: str, strength: float, place: Path) -> None:
    """W + s (alpha / r) up down, and twice that where the file is named twice."""
    name = f"{place / 'style.safetensors'}{end}"
    weight = small_models.truth(CONFIG)["unet"][f"{LAYER}.weight"].double()
    down, up = normal(RANK, weight.shape[1], seed=1), normal(weight.shape[0], RANK, seed=2)
    for times in (1, 2):
        pipeline = load(folder(place, lora=(name,) * times))
        found = pipeline.unet.state_dict()[f"{LAYER}.weight"].double()
        change = strength * times * ALPHA / RANK * (up.double() @ down.double())
        torch.testing.assert_close(found, weight + change, rtol=1e-5, atol=1e-5)


def test_a_lora_whose_name_has_a_colon(place: Path, tmp_path: Path) -> None:
    odd = tmp_path / "style:2"
    odd.write_bytes((place / "style.safetensors").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"--lora: .*style:3\.x is missing"):
        load(folder(place, lora=(f"{tmp_path / 'style:3.x'}",)))
    one, two = (
        load(folder(place, lora=(name,))).unet.state_dict()[f"{LAYER}.weight"]
        for name in (str(odd), str(place / "style.safetensors"))
    )
    assert torch.equal(one, two)


@torch.no_grad()
def test_embedding(place: Path) -> None:
    """A word of two tokens, wherever it stands; the states are transformers' own."""
    pipeline = load(folder(place, embedding=(place / "my-cat.safetensors",)))
    plain = load(folder(place))
    text = pipeline.tokenizer.words_of("word3 My-Cat, word5")
    assert text == [("word3", (4,)), ("My-Cat", (50, 51)), ("word5", (6,))]
    assert pipeline.tokenizer.words_of("my-cats") == plain.tokenizer.words_of("my-cats")
    peer = small_models.peer_text(CONFIG.text)
    small_models.scramble(peer, 0)
    peer.resize_token_embeddings(52, mean_resizing=False)
    peer.get_input_embeddings().weight[50:] = normal(2, CONFIG.text.width, seed=3)
    end = CONFIG.text.end_token
    ids = torch.tensor([[end - 1, 4, 50, 51, 6, *[end] * 15]])
    found = pipeline.encode_prompts(["word3 my-cat word5"])
    torch.testing.assert_close(found, peer(ids).last_hidden_state, rtol=1e-4, atol=1e-5)
    with pytest.warns(UserWarning, match="does not know my, cat;"):
        plain.encode_prompts(["word3 my-cat word5"])
    untaught = plain.encode_prompts(["word3 word5"])
    assert torch.equal(pipeline.encode_prompts(["word3 word5"]), untaught)
    assert not torch.allclose(pipeline.encode_prompts(["(my-cat:1.5)"]), found, atol=1e-3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"lora": ("none.safetensors",)}, r"--lora: none\.safetensors is missing"),
        ({"lora": ("{place}/my-cat.safetensors",)}, "my-cat.safetensors"),
        ({"lora": ("{place}/style.safetensors:nan",)}, "--lora: wanted a strength from"),
        ({"embedding": ("none.pt",)}, r"--embedding: none\.pt is missing"),
        ({"embedding": ("{place}/narrow.safetensors",)}, "8 wide, the text encoder 64"),
        ({"embedding": ("{place}/my-cat.safetensors",) * 2}, "--embedding: wanted different"),
    ],
)
def test_bad_files_are_named(more: dict[str, Any], message: str, place: Path) -> None:
    kind: dict[str, Callable[[str], object]] = {"lora": str, "embedding": Path}
    filled = {
        name: tuple(kind[name](text.format(place=place)) for text in texts)
        for name, texts in more.items()
    }
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(folder(place, **filled))


def test_long_prompt_and_clip_skip_reach_the_call(place: Path) -> None:
    pipeline = load(folder(place))
    own = Sampling().call(pipeline)
    assert (own["long_prompt"], own["clip_skip"]) == ("chunk", 0)
    asked = Sampling(long_prompt="refuse", clip_skip=1).call(pipeline)
    assert (asked["long_prompt"], asked["clip_skip"]) == ("refuse", 1)
    assert end(pipeline, **asked).ne(end(pipeline, **own)).any()


def end(pipeline: TextToImage, **call: Any) -> torch.Tensor:
    states: list[torch.Tensor] = []
    size = {"width": 16, "height": 16, "progress": False, "watch": lambda s: states.append(s.x)}
    pipeline("word1", **{**call, "steps": 1}, **size)
    return states[-1]


def test_what_is_kept_is_the_model_again(place: Path) -> None:
    models_ = [
        Model(),
        single(place, vae=place / "folder", ema=True, prediction="sample", dtype="bfloat16"),
        folder(place, lora=("a:1", "b"), embedding=(Path("c"), Path("d")), variant="fp16"),
        single(place, config=place / "numbers.json"),
    ]
    for model in models_:
        kept = json.loads(json.dumps(model.kept()))
        assert set(kept) == set(KEPT)
        assert Model.of(kept, model.device) == model
        on_device = ("--device", model.device)
        assert tyro.cli(Model, args=[*model.flags(), *on_device]) == model
    # A picture of before there were these flags.
    assert Model.of({"weights": "shapes", "dtype": "float32"}, "cpu") == Model(device="cpu")


FLAGS: dict[str, tuple[str, ...]] = {
    "folder": (
        "--model", "{place}/folder", "--prediction", "v_prediction",
        "--lora", "{place}/style.safetensors:0.5", "{place}/style.safetensors",
        "--embedding", "{place}/my-cat.safetensors", "--clip-skip", "1",
        "--long-prompt", "truncate",
    ),
    "file": (
        "--model", "{place}/model.safetensors", "--tokenizer", "{place}/folder/tokenizer",
        "--config", "{place}/numbers.json", "--ema",
    ),
    "variant": ("--model", "{place}/half", "--variant", "fp16"),
}  # fmt: skip


@pytest.mark.parametrize("case", FLAGS)
def test_a_picture_keeps_them_and_is_repeated(
    case: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [flag.format(place=place) for flag in FLAGS[case]]
    prompt = "word1 my-cat" if case == "folder" else "word1"
    size = ["--width", "24", "--height", "16", "--steps", "2", "--device", "cpu"]
    first, again = tmp_path / "first", tmp_path / "again"
    assert main(["generate", "--prompt", prompt, *flags, *size, "--out", str(first)]) == 0
    (path,) = first.glob("*.png")
    kept = png_metadata.read(path)
    shown = json.dumps([kept["model"], kept["call"]])
    assert all(flag in shown for flag in flags if not flag.startswith("--") and flag != "1")
    assert main(["generate", "--like", str(path), "--like-files", "--out", str(again)]) == 0
    said = capsys.readouterr().err.splitlines()
    word = f"--embedding: in prompts {place}/my-cat.safetensors is the word my-cat"
    assert said == ([word, word] if case == "folder" else [])
    assert (again / path.name).read_bytes() == path.read_bytes()
    plain = [flag.format(place=place) for flag in FLAGS[case][: 4 if case == "file" else 2]]
    if case != "variant":  # each set of flags draws another picture than none
        other = tmp_path / "other"
        assert main(["generate", "--prompt", "word1", *plain, *size, "--out", str(other)]) == 0
        assert next(other.glob("*.png")).read_bytes() != path.read_bytes()


def test_low_memory_draws_the_same_picture(place: Path, tmp_path: Path) -> None:
    """LoRA and embedding included; not kept, and legal beside --like."""
    flags = [flag.format(place=place) for flag in FLAGS["folder"]]
    size = ["--width", "24", "--height", "16", "--steps", "2", "--device", "cpu"]
    call = ["generate", "--prompt", "word1 my-cat", *flags, *size]
    repeated = ["generate", "--like", "", "--like-files"]
    found = []
    for name, command in {"one": call, "two": call, "three": repeated}.items():
        more = [] if name == "one" else ["--low-memory"]
        assert main([*command, *more, "--out", str(tmp_path / name)]) == 0
        (path,) = (tmp_path / name).glob("*.png")
        found.append(path.read_bytes())
        repeated[2] = str(path)
    assert found[0] == found[1] == found[2]
    thrifty = load(folder(place, low_memory=True))
    assert thrifty.offload is not None and load(folder(place)).offload is None


@pytest.mark.filterwarnings("ignore")  # of the tracer's
@pytest.mark.parametrize(
    "more",
    [["--low-memory"], pytest.param(["--engine", "openvino"], marks=pytest.mark.slow)],
)
def test_timing_of_an_engine_and_in_low_memory(
    more: list[str], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "openvino" in more:
        pytest.importorskip("openvino")
    flags = ["timing", "--model", str(tiny), "--steps", "2", "--device", "cpu", "--no-cold-start"]
    flags += ["--repeats", "3", "--warmup", "1", "--out", str(tmp_path / "out")]
    assert main([*flags, *more]) == 0
    told = json.loads((tmp_path / "out" / "timing.json").read_text(encoding="utf-8"))
    assert [one["dtype"] for one in told["milliseconds"]] == ["float32", "bfloat16"]
    assert told["drift"][0]["relative"][-1] > 0 and told["refused"] == []
    capsys.readouterr()
    assert main([*flags, "--low-memory", "--engine", "compile"]) == 2
    words = "error: cpu, float32: engine: wanted eager with low_memory, got 'compile'\n"
    assert capsys.readouterr().err == words


def test_timing_leaves_out_what_the_engine_refuses() -> None:
    pytest.importorskip("openvino")
    jobs, refused = timing._jobs(Model(engine="openvino"), ["cuda", "cpu"])
    assert jobs == [("cpu", "float32"), ("cpu", "bfloat16")]
    line = "cuda, float16: engine: wanted device cpu with openvino, got cuda"
    assert len(refused) == 3 and refused[2] == line
    with pytest.raises(ValueError, match="cuda, float32: engine: wanted device cpu with open"):
        timing._jobs(Model(engine="openvino"), ["cuda"])
    everywhere, none = timing._jobs(Model(), ["cuda", "cpu"])
    assert (len(everywhere), none) == (5, [])


def test_the_embedded_model_has_no_options_of_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--prediction", "epsilon", "--ema", "--variant", "fp16"]
    assert main(["generate", *flags, "--out", str(tmp_path / "out")]) == 2
    words = "error: --prediction: has no effect on the embedded model"
    assert capsys.readouterr().err.startswith(words)


def test_a_saved_model_has_the_lora(place: Path, tmp_path: Path) -> None:
    """Merged updates are weights like others."""
    pipeline = load(folder(place, lora=(f"{place / 'style.safetensors'}",)))
    checkpoint.save_single(tmp_path / "merged.safetensors", pipeline)
    found = checkpoint.load(tmp_path / "merged.safetensors").unet.state_dict()
    assert torch.equal(found[f"{LAYER}.weight"], pipeline.unet.state_dict()[f"{LAYER}.weight"])
