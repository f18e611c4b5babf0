"""The command line: one clear line and code 2 for bad input, pictures for odd but good input."""

import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from experiments.__main__ import GROUPS, NAMES, TRAIN, main
from experiments.common.model_options import Model
from experiments.generate import run as generate
from experiments.generate.png_metadata import KEY, read
from sd import weights
from sd.command_line.flags import by_flag
from sd.config import TextConfig
from sd.networks.text_encoder import TextEncoder

FEW = ("--steps", "2")
LIKE = ("generate", "--like-files", "--like")


@pytest.fixture(scope="session")
def bad(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that are not what they should be."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "words.png").write_text("no picture", encoding="utf-8")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "plain.png")
    whole = (folder / "plain.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    for kind in ("missing", "corrupt", "misshapen"):
        (folder / kind).mkdir()
        for file in tiny.iterdir():
            (folder / kind / file.name).write_bytes(file.read_bytes())
    (folder / "missing" / "unet.safetensors").unlink()
    (folder / "corrupt" / "vae.safetensors").write_bytes(b"\x10" * 100)
    text = weights.load_network(tiny / "text_encoder.safetensors", TextEncoder, TextConfig)
    wider = replace(text.config, width=32)
    weights.save_network(folder / "misshapen" / "text_encoder.safetensors", text, wider)
    return folder


CASES = {
    "no such experiment": (["nothing"], "generate"),
    "unknown flag": (["generate", "--bogus", "1"], "--bogus"),
    "no number": (["generate", "--steps", "many"], "--steps"),
    "empty prompt": (["generate", "--prompt", ""], "prompt"),
    "blank prompt": (["generate", "--prompt", "  "], "prompt"),
    "long prompt": (["generate", "--prompt", "red " * 40], "tokens"),
    "no steps": (["generate", "--steps", "0"], "steps"),
    "too many steps": (["generate", "--steps", "1001"], "steps"),
    "negative guidance": (["generate", "--guidance-scale", "-1"], "guidance"),
    "guidance that is no number": (["generate", "--guidance-scale", "nan"], "guidance"),
    "guidance at no level": (
        ["generate", "--guidance-interval", "3", "0.3"],
        "--guidance-interval: wanted 2 rising values, got 3.0 0.3",
    ),
    "guidance from one level": (
        ["generate", "--guidance-interval", "3"],
        "wanted 2 rising values, got",
    ),
    "unknown solver": (["generate", "--solver", "magic"], "dpmpp_2m"),
    "unknown grid": (["generate", "--grid", "square"], "trailing"),
    "negative seed": (["generate", "--seed", "-1"], "seed"),
    "seeds that do not fit": (
        ["generate", "--prompt", "a b", "c d", "--seed", "1", "2", "3"],
        "seed",
    ),
    "prompt without quotes": (
        ["generate", "--prompt", "a", "red", "circle"],
        "--prompt: wanted a prompt of several words in quotes, as 'a red circle' (prompts of one "
        "word each: by --prompts FILE), got 'a' 'red' 'circle'",
    ),
    "solver misspelt": (
        ["generate", "--solver", "ddimm"],
        "adaptive, ddpm, ddpm_large, euler_ancestral, dpm2_ancestral, edm_churn, "
        "dpmpp_2s_ancestral, dpmpp_sde, dpmpp_2m_sde, dpmpp_3m_sde, sde_heun, langevin_corrected, "
        "got 'ddimm'; is it ddim?",
    ),
    "too many layers to skip": (["generate", "--clip-skip", "50"], "--clip-skip: wanted a whole"),
    "odd width": (["generate", "--width", "65"], "--width: wanted a multiple of 8, got 65"),
    "no strength": (["generate", "--image", "{bad}/plain.png", "--strength", "0"], "strength"),
    "strength over 1": (
        ["generate", "--image", "{bad}/plain.png", "--strength", "1.5"],
        "strength",
    ),
    "strength that is no number": (
        ["generate", "--image", "{bad}/plain.png", "--strength", "nan"],
        "strength",
    ),
    "strength without a picture": (["generate", "--strength", "0.5"], "image"),
    "no picture": (["generate", "--image", "{bad}/words.png"], "words.png"),
    "truncated picture": (["generate", "--image", "{bad}/cut.png"], "cut.png"),
    "missing picture": (["generate", "--image", "{bad}/none.png"], "none.png"),
    "missing weights": (["generate", "--weights", "{bad}/missing"], "unet"),
    "corrupt weights": (["generate", "--weights", "{bad}/corrupt"], "vae"),
    "misshapen weights": (["generate", "--weights", "{bad}/misshapen"], "text_encoder"),
    "no weights there": (["generate", "--weights", "{bad}/nowhere"], "nowhere"),
    "absent device": (["generate", "--device", "abacus"], "--device: wanted auto or one of"),
    "like nothing": (["generate", "--like", "{bad}/none.png"], "none.png"),
    "like a picture of another kind": (["generate", "--like", "{bad}/plain.png"], "settings"),
    "like no picture": (["generate", "--like", "{bad}/words.png"], "words.png"),
    "like with a prompt": (["generate", "--like", "{bad}/plain.png", "--seed", "3"], "leave out"),
    "few strengths": (["strength", "--strengths", "0.5", "1"], "--strengths"),
    "cfg of no prompts": (["cfg", "--count", "0"], "--count"),
    "forward beyond T": (["forward", "--times", "0", "1001"], "--times"),
    "forward of no picture": (["forward", "--image", "{bad}/words.png"], "words.png"),
    "timing on an absent device": (["timing", "--device", "abacus"], "abacus"),
    "too few repeats": (["timing", "--repeats", "1"], "--repeats"),
    "a tradeoff of one count": (["tradeoff", "--counts", "4"], "--counts"),
    "a tradeoff of counts that fall": (["tradeoff", "--counts", "8", "4"], "--counts"),
    "a tradeoff with noise": (["tradeoff", "--solvers", "euler", "dpmpp_2m", "ddpm"], "--solvers"),
    "a tradeoff on no such grid": (["tradeoff", "--grids", "square"], "--grids"),
    "a tradeoff guided at no level": (["tradeoff", "--intervals", "3", "0.3"], "--intervals"),
    "a tradeoff of one picture": (["tradeoff", "--pictures", "1"], "--pictures"),
    "autoencoder of one": (["autoencoder", "--count", "1"], "--count"),
}


def call(arguments: Sequence[str], tiny: Path, bad: Path, out: Path) -> list[str]:
    """The arguments with the tiny weights, where none are named, and the folder."""
    filled = [argument.format(bad=bad) for argument in arguments]
    if arguments[0] not in ("forward", "nothing") and not {"--weights", "--like"} & {*arguments}:
        filled += ["--weights", str(tiny)]
    return [*filled, "--out", str(out)]


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_one_line(
    case: str, tiny: Path, bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, word = CASES[case]
    out = tmp_path / "deep" / "out"
    assert main(call(arguments, tiny, bad, out)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert word in said.err
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_is_checked_before_any_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"experiments.{name.replace('-', '_')}.run"
    monkeypatch.setattr(f"{module}.run", lambda config: pytest.fail("it has run"))
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    assert main([name, "--out", str(file / "below")]) == 2
    assert capsys.readouterr().err.startswith("error: --out: can't write to the folder")
    assert list(tmp_path.iterdir()) == [file]


def test_interrupt_is_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "run", stop)
    assert main(["generate", "--out", str(tmp_path / "new")]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_help_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "--out PATH" in said.out
    assert "Folder for" in said.out


def test_overview_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        said = capsys.readouterr().out
        assert all(name in said for name in NAMES)
        assert [said.index(f"\n{group}:") for group in GROUPS] == sorted(
            said.index(f"\n{group}:") for group in GROUPS
        )
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted([*NAMES, TRAIN])


def test_generate_help_fits_on_two_screens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["generate", "--help"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert sum(max(1, -(-len(row) // 100)) for row in rows) <= 2 * 50


UNUSED = {"autoencoder": ("prediction", "ema", "lora", "embedding"), "timing": ("dtype",)}


@pytest.mark.parametrize("name", UNUSED)
def test_help_hides_what_has_no_effect(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    words = capsys.readouterr().out.split()
    assert "--device" in words
    assert not {f"--{flag}" for flag in UNUSED[name]} & {*words}


def test_unknown_words_warn_and_still_draw(
    tiny: Path, bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = ["generate", "--prompt", "a cat on a red sofa", *FEW]
    assert main(call(prompt, tiny, bad, tmp_path)) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: ")
    assert said.count("\n") == 1
    assert all(word in said for word in ("cat", "sofa", "circle", "above"))
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_a_prompt_of_one_word_among_several_is_told(
    tiny: Path, bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = ["generate", "--prompt", "a red ring", "blue", *FEW]
    assert main(call(prompts, tiny, bad, tmp_path)) == 0
    wanted = "--prompt: 2 prompts were read, of one word: 'blue'; quote a prompt of several words"
    assert f"warning: {wanted}\n" in capsys.readouterr().err


def test_a_warning_names_its_flag(
    tiny: Path, bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["generate", "--guidance-interval", "500", "600", *FEW]
    assert main(call(flags, tiny, bad, tmp_path)) == 0
    assert "warning: --guidance-interval: no step has a noise" in capsys.readouterr().err


def test_a_setting_in_a_message_is_named_by_its_flag() -> None:
    config = Model()
    assert by_flag(config, "model: wanted a, got b") == "--model: wanted a, got b"
    assert by_flag(config, "low_memory: wanted a: b, got c") == "--low-memory: wanted a: b, got c"
    assert by_flag(generate.Config(), "low_memory: wanted a") == "--low-memory: wanted a"
    several = by_flag(generate.Config(), "solver, grid, steps: the model was distilled for a")
    assert several == "--solver, --grid, --steps: the model was distilled for a"
    for other in ("seed: wanted a", "model", "a model.safetensors: wanted a", "model, seed: a"):
        assert by_flag(config, other) == other


@pytest.mark.parametrize("kind", ["L", "RGBA", "P", "1x1", "wide"])
def test_any_picture_is_redrawn(kind: str, tiny: Path, bad: Path, tmp_path: Path) -> None:
    size = {"1x1": (1, 1), "wide": (10_000, 30)}.get(kind, (50, 80))
    mode = kind if kind in ("L", "RGBA", "P") else "RGB"
    given = tmp_path / "given.png"
    Image.new(mode, size, 100 if mode in ("L", "P") else (200, 30, 30, 128)[: len(mode)]).save(
        given
    )
    out = tmp_path / "out"
    flags = ["generate", "--image", str(given), "--strength", "0.5", *FEW]
    assert main(call(flags, tiny, bad, out)) == 0
    (drawn,) = out.glob("*.png")
    with Image.open(drawn) as opened:
        assert opened.size == (64, 64)


@pytest.mark.parametrize("redrawn", [False, True])
def test_like_repeats_bit_for_bit(redrawn: bool, tiny: Path, bad: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    flags = ["generate", "--prompt", "a red ring", "a blue star", "--seed", "7", *FEW]
    flags += ["--solver", "ddpm", "--guidance-scale", "2", "--negative-prompt", "green"]
    given = tmp_path / "given.png"
    if redrawn:
        given.write_bytes((bad / "plain.png").read_bytes())
        flags += ["--image", str(given), "--strength", "0.7"]
    assert main(call(flags, tiny, bad, first)) == 0
    given.unlink(missing_ok=True)  # the settings hold what was used of it
    pictures = sorted(first.glob("*.png"))
    assert len(pictures) == 2
    settings = read(pictures[1])
    assert settings["batch"][settings["index"]] == ["a blue star", 8]
    assert settings["call"]["guidance_scale"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([*LIKE, str(pictures[1]), "--out", str(second)]) == 0
    assert (second / pictures[1].name).read_bytes() == pictures[1].read_bytes()
    assert pictures[0].read_bytes() != pictures[1].read_bytes()


def _keep(path: Path, settings: object) -> None:
    """Put other settings into a PNG."""
    words = PngInfo()
    words.add_itxt(KEY, json.dumps(settings))
    with Image.open(path) as opened:
        picture = opened.copy()
    picture.save(path, pnginfo=words)


def test_like_says_when_the_bits_may_differ(
    tiny: Path, bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(call(["generate", *FEW], tiny, bad, tmp_path)) == 0
    (path,) = tmp_path.glob("*.png")
    settings = read(path)
    settings["made_with"]["torch"] = "0.0"
    _keep(path, settings)
    capsys.readouterr()
    assert main([*LIKE, str(path), "--out", str(tmp_path / "again")]) == 0
    assert "made with other torch" in capsys.readouterr().err
    settings["batch"] = []
    _keep(path, settings)
    assert main(["generate", "--like", str(path), "--out", str(tmp_path / "no")]) == 2
    assert "damaged" in capsys.readouterr().err


PROBE = """
import sys
from experiments.__main__ import main
code = main(sys.argv[1:])
heavy = sorted({"matplotlib", "scipy", "torch", "transformers"} & set(sys.modules))
print("loaded", heavy)
sys.exit(code)
"""


def fresh(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROBE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_loads_nothing_heavy() -> None:
    done = fresh("cfg", "--help")
    assert done.returncode == 0
    assert done.stdout.endswith("loaded []\n")


def test_generate_in_a_fresh_process(tiny: Path, tmp_path: Path) -> None:
    done = fresh("generate", "--weights", str(tiny), "--out", str(tmp_path), *FEW)
    assert done.returncode == 0, done.stderr
    assert "matplotlib" not in done.stdout.splitlines()[-1]
    again = fresh("generate", "--weights", str(tiny), "--out", str(tmp_path), "--steps", "0")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert again.stderr.startswith("error: ")
