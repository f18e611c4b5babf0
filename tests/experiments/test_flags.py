"""Every flag of every command with odd values: refused in one line before any work, or taken."""

import dataclasses
import importlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from diffusion_math.grid import GRIDS
from diffusion_math.solvers.registry import SOLVERS
from experiments.__main__ import NAMES, main
from experiments.common import sampling_options
from experiments.common.model_options import Model
from sd.command_line import flags as declared
from sd.config import PREDICTIONS, LongPrompt

ODD = ("-1", "nan", "-inf", "-0.5", "many", "")
"""What no number of any command may be."""

LARGE = ("inf", "1e308", "1" + "0" * 30)
"""What no number may be that is not among these."""

INFINITE = {"longest", "interval", "intervals", "guidance_interval", "tuned scales"}

TEXTS = ("", " ", "a\udce9b", "a\0b")
"""What no prompt may be."""


def module(name: str) -> Any:
    return importlib.import_module(f"experiments.{name.replace('-', '_')}.run")


def leaves(kind: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a Config, those of the dataclasses in it in their place."""
    for name, hint in declared._hints(kind).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from leaves(hint)
        else:
            yield name, hint


def types(hint: Any) -> set[Any]:
    return {one for one in declared.types_in(hint) if isinstance(one, type) and one is not NoneType}


FIELDS = [(name, *field) for name in NAMES for field in leaves(module(name).Config)]


class ReachedError(Exception):
    """The work would begin."""


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Give flags to a command whose work raises `ReachedError`; its exit code and its line."""

    def run(name: str, *flags: str) -> tuple[int | None, str]:
        def reached(*_: Any) -> None:
            raise ReachedError

        monkeypatch.setattr(module(name), "run", reached)
        out = [] if "--out" in flags else ["--out", str(tmp_path / "out")]
        try:
            code = main([name, *flags, *out])
        except ReachedError:
            code = None
        return code, capsys.readouterr().err

    return run


def refused(found: tuple[int | None, str], flag: str) -> None:
    code, line = found
    assert code == 2, (code, line)
    assert line.startswith("error: ") and line.count("\n") == 1
    assert flag in line and len(line) < 600


def flag_of(name: str, field: str) -> str:
    plain = "--" + field.replace("_", "-")
    return declared.flags_of(module(name).Config).get(plain, (plain,))[0]  # a hidden one is none


@pytest.mark.parametrize(("name", "field", "hint"), FIELDS, ids=lambda one: str(one)[:30])
def test_odd_values_are_refused_before_any_work(
    name: str, field: str, hint: Any, said: Any, tmp_path: Path
) -> None:
    flag = flag_of(name, field)
    kinds = types(hint)
    if {int, float} & kinds:
        values = [*ODD, *(() if {field, f"{name} {field}"} & INFINITE else LARGE)]
        values += ["1.5"] if int in kinds else []
        pairs = (
            tuple in {get_origin(one) for one in declared.types_in(hint)} and "interval" in field
        )
        for value in values:
            refused(said(name, flag, *([value] * (2 if pairs else 1))), flag)
    if Literal in {get_origin(one) for one in declared.types_in(hint)}:
        if Path not in kinds:
            for value in ("bogus", "", "nan", "1"):
                refused(said(name, flag, value), flag)
    elif field in ("prompt", "negative_prompt"):
        for value in TEXTS[2 if field == "negative_prompt" else 0 :]:
            refused(said(name, flag, value), flag)
    if Path in kinds:
        for value in ("", "a\0b"):
            refused(said(name, flag, value), flag)


NEAR: dict[str, list[tuple[str, Any, Any]]] = {
    "cfg": [("shown", 0, 1), ("count", 0, 1), ("diversity_prompts", 1, 2),
            ("diversity_seeds", 1, 2)],
    "strength": [("strengths", (0.0, 0.2, 0.3, 1.0), (0.1, 0.2, 0.3, 1.0)), ("seeds", 1, 2),
                 ("strengths", (0.2, 0.3, 1.0), (1.0, 0.2, 0.3, 0.4)),
                 ("strengths", (0.1, 0.2, 0.3, 1.1), (0.1, 0.2, 0.3, 1.0))],
    "conditions": [("count", 1, 100), ("conflicts", 1, 2), ("conflicts", 61, 60),
                   ("digit_steps", 0, 1)],
    "few-steps": [("count", 3, 4), ("steps", (), (1,)), ("steps", (6, 3), (3, 6)),
                  ("steps", (0, 3), (1, 3)), ("seed", -1, 0)],
    "timing": [("repeats", 2, 3), ("warmup", 0, 1)],
    "tradeoff": [("counts", (4,), (4, 7)), ("counts", (7, 4), (4, 7)), ("counts", (4, 4), (4, 5)),
                 ("solvers", ("euler", "heun"), ("euler", "dpmpp_2m")), ("grids", (), ("karras",)),
                 ("solvers", ("euler", "dpmpp_2m", "ddpm"), ("euler", "dpmpp_2m", "ddim")),
                 ("intervals", ((3.0, 0.3),), ((0.3, 3.0),)), ("pictures", 1, 2),
                 ("intervals", ((1.0, math.nan),), ((1.0, math.inf),)), ("judged", 3, 4),
                 ("reference", 7, 8), ("reference", 1001, 1000)],
    "forward": [("times", (0, 1001), (0, 1000)), ("times", (5,), (5, 6)), ("samples", 99, 100),
                ("frames", 1, 2), ("frames", 61, 60), ("density", "moon", "ring")],
    "posterior": [("time", 2, 351), ("points", 1, 2), ("samples", 999, 1000), ("curve", 1, 2),
                  ("times", (1,), (2,)), ("steps", (1,), (1, 2)), ("steps", (1, 400), (1, 399))],
    "bound": [("steps", 1, 2), ("steps", 1001, 1000), ("draws", 49, 50), ("finest", 4, 8),
              ("finest", 12, 16)],
    "likelihood": [("points", 7, 8), ("copies", 19, 20), ("paths", 99, 100), ("probes", 3, 4),
                   ("probes", 1, 2), ("steps", 8, 16), ("steps", 1, 4), ("digits", 7, 8),
                   ("digits", 13, 12)],
    "score-field": [("times", (), (5,)), ("times", (0, 5), (1, 5)), ("times", (5, 1001), (5, 1000)),
                    ("samples", 199, 200), ("density", "moon", "ring")],
    "langevin": [("particles", 99, 100), ("budget", 19, 20), ("chains", 999, 1000),
                 ("frames", 1, 0), ("frames", 51, 50)],
    "reverse": [("steps", 15, 16), ("walks", (5,), (5, 6)), ("walks", (1, 5), (2, 5)),
                ("frames", 46, 45), ("frames", 1, 2), ("batch", 1, 2), ("width", 3, 4)],
    "densities": [("densities", (), ("ring",)), ("densities", ("moon",), ("ring",)),
                  ("densities", ("ring", "ring"), ("ring", "funnel")), ("samples", 999, 1000)],
    "errata": [("samples", 999, 1000), ("seed", 2**62, 2**62 - 1)],
    "digits": [("steps", 0, 1), ("seeds", 1, 2), ("sampling", 1001, 1000), ("held_out", 19, 20),
               ("held_out", 1698, 1697), ("bound_steps", 901, 900), ("scales", (-1.0,), (0.0,))],
    "families": [("steps", 0, 1), ("batch", 1, 2), ("parameters", 499, 500), ("samples", 99, 100)],
    "autoencoder": [("count", 7, 8)],
    "guidance-truth": [("scales", (), (7.5,)), ("scales", (1.0, 7.5), (1.1, 7.5)),
                       ("scales", (7.5, 21.0), (7.5, 20.0)), ("shown", 2.0, 3.0),
                       ("nodes", 15, 16), ("nodes", 401, 400), ("digits", 2, 3), ("digits", 11, 10),
                       ("ground", 0.5, 1.0), ("share", 1.5, 1.0),
                       ("interval", (2.0, 0.3), (0.3, 2.0)), ("interval", (2.0, 2.0), (2.0, 2.1)),
                       ("longest", 0.0, math.inf)],
    "inpainting": [("steps", 7, 8), ("steps", 101, 100), ("repeats", (1, 5), (2, 5)),
                   ("repeats", (5, 101), (5, 100)), ("shown", 3, 5), ("particles", (), (1,)),
                   ("particles", (0,), (1,)), ("particles", (257,), (256,)),
                   ("samples", 2047, 2048), ("seed", -1, 0)],
    "tuned": [("counts", (), (5,)), ("counts", (3, 5), (4, 5)), ("counts", (8, 5), (5, 8)),
              ("train", 7, 4096), ("test", 7, 8), ("fit", 7, 8), ("rounds", -1, 0), ("moves", 0, 1),
              ("s4s", -1, 0), ("turns", -1, 0), ("ends", -1, 0), ("descent", 0, 1), ("modes", 0, 1),
              ("nodes", 30, 31), ("nodes", 121, 120),
              ("pictures", 1, 2), ("scales", (0.0,), (1e-3,)), ("scales", (math.nan,), (math.inf,)),
              ("scales", (), (1.0,)), ("more", (0,), ()), ("solvers", ("ddpm",), ("ddim",)),
              ("solvers", ("adaptive",), ("ddim",)), ("beside", (), ("heun",)), ("seed", 2**29, 1)],
}  # fmt: skip
"""By command: a field, a value just outside of what is valid, and one just inside."""


@pytest.mark.parametrize(
    ("name", "field", "outside", "inside"),
    [(name, *line) for name, lines in NEAR.items() for line in lines],
)
def test_the_ends_of_what_is_valid(name: str, field: str, outside: Any, inside: Any) -> None:
    config = module(name).Config
    with pytest.raises(declared.FlagError, match=rf"^{flag_of(name, field)}: wanted .*, got "):
        config(**{field: outside})
    assert getattr(config(**{field: inside}), field) == inside


def test_a_budget_has_two_steps_of_every_solver_whose_nodes_are_tuned() -> None:
    tuned = module("tuned").Config
    with pytest.raises(declared.FlagError, match=r"^--counts: wanted .* two steps of pndm, got 4"):
        tuned(counts=(4, 8), solvers=("pndm",))
    assert tuned(counts=(4, 8), solvers=("pndm",), rounds=0).rounds == 0


UNUSED = {
    "generate --no-do-cfg --negative-prompt blue": "--negative-prompt",
    "generate --guidance-scale 1 --negative-prompt blue": "--negative-prompt",
    "generate --no-do-cfg --guidance-scale 3": "--guidance-scale",
    "generate --no-do-cfg --guidance-interval 0.3 3": "--guidance-interval",
    "generate --guidance-scale 1 --guidance-interval 0.3 3": "--guidance-interval",
    "generate --strength 0.5": "--strength",
    "generate --control-image {file}": "--control-image",
    "digits --side 16": "--side",
    "generate --control-map canny": "--control-map",
    "generate --control-end 0.5": "--control-end",
    "generate --prompts {file} --prompt a": "--prompt",
    "generate --prompts {file} --seed 1 2": "--seed",
    "generate --tokenizer {file}": "--tokenizer",
    "generate --prediction epsilon": "--prediction",
    "cfg --ema": "--ema",
    "strength --variant fp16": "--variant",
    "report --vae {file}": "--vae",
    "timing --dtype bfloat16": "--dtype",
    "autoencoder --lora {file}": "--lora",
    "autoencoder --embedding {file}": "--embedding",
    "autoencoder --model {file} --ema": "--ema",
    "autoencoder --solver ddim": "--solver",
    "tradeoff --solver ddim": "--solver",
    "tradeoff --clip-skip 1": "--clip-skip",
    "tuned --steps 5": "--steps",
    "tuned --model bogus": "--model",
    "tuned --device cpu": "--device",
    "tuned --guidance-scale 3": "--guidance-scale",
    "tuned --no-exact": "--pictures",
    "tuned --no-exact --pictures 4 --train 64": "--train",
    "tuned --train 64 --fit 100": "--fit",
    "tuned --s4s 0 --turns 3": "--turns",
    "tuned --s4s 0 --ends 0 --descent 3": "--descent",
    "generate --lora a:1 --lora b:2": "--lora",
    "generate --model a --weights b": "--model",
    "cfg --ema --no-ema": "--ema",
}  # fmt: skip
"""Flags that have no effect beside others, or on a command; each is refused by its name."""


@pytest.mark.parametrize("line", UNUSED)
def test_a_flag_without_effect_is_refused(line: str, said: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    refused(said(*(word.format(file=file) for word in line.split())), UNUSED[line])


FILES = [
    (name, field)
    for name, field, hint in FIELDS
    if any(isinstance(note, declared.File) for note in declared._notes(hint))
    and (name, field) not in (("autoencoder", "lora"), ("autoencoder", "embedding"))  # see `UNUSED`
]


@pytest.mark.parametrize(("name", "field"), FILES)
def test_files_are_looked_for_before_any_work(
    name: str, field: str, said: Any, tmp_path: Path
) -> None:
    flag, hint = declared.flags_of(module(name).Config)[flag_of(name, field)]
    given = ["--model", str(tmp_path)] if field in ("tokenizer", "config") else []
    given += ["--pictures", "4"] if name == "tuned" else []
    given += ["--image", __file__] if field == "mask" else []
    given += ["--control", "a"] if field == "control_image" else []
    folder = any(note.folder for note in declared._notes(hint) if isinstance(note, declared.File))
    for value in ("none", "x" * 300, "a\udce9b", *(() if folder else (".",))):
        refused(said(name, *given, flag, str(tmp_path / value)), flag)
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    if os.geteuid() != 0:
        file.chmod(0)
        refused(said(name, *given, flag, str(file)), flag)
        file.chmod(0o600)
    code, _ = said(name, *given, flag, str(file))
    assert code is None


def test_a_lora_s_strength_is_finite_and_of_sense(said: Any, tmp_path: Path) -> None:
    for strength in ("nan", "inf", "1e308", "-101"):
        refused(said("generate", "--lora", f"{tmp_path / 'a'}:{strength}"), "--lora")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_valid_reaches_the_work(name: str, said: Any) -> None:
    assert said(name) == (None, "")


def test_the_names_are_the_library_s() -> None:
    """Written out, so that --help imports no library."""
    quiet = {name for name, claimed in SOLVERS.items() if not claimed.noisy}
    assert set(get_args(sampling_options.Deterministic)) == quiet
    assert {
        *get_args(sampling_options.Deterministic),
        *get_args(sampling_options.Stochastic),
    } == set(SOLVERS)
    assert get_args(sampling_options.Grid) == tuple(GRIDS)
    hints = get_type_hints(Model) | get_type_hints(sampling_options.Sampling)
    assert get_args(get_args(hints["long_prompt"])[0]) == get_args(LongPrompt)
    assert get_args(get_args(hints["prediction"])[0]) == tuple(PREDICTIONS)
