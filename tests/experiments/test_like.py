"""A PNG of a stranger: its settings are checked, and what it names is read when the user agrees."""

import base64
import builtins
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from experiments.__main__ import main
from experiments.common.model import load
from experiments.common.model_options import Model
from experiments.generate import run as generate
from experiments.generate.png_metadata import KEY, checked, embedded
from sd.pipeline import TextToImage
from tests.support import image_writers as write

SETTINGS: dict[str, Any] = {
    "batch": [["a red circle", 7]],
    "index": 0,
    "image": None,
    "mask": None,
    "call": {
        "steps": 1, "solver": "ddpm", "grid": "trailing", "guidance_scale": 2.0,
        "guidance_interval": None, "long_prompt": "refuse", "clip_skip": 1, "negative_prompt": "",
        "do_cfg": True, "strength": None, "height": None, "width": None,
    },
    "model": {
        "weights": "shapes", "dtype": "float32", "engine": "eager", "calibration": [],
        "tokenizer": None, "vae": None, "config": None, "prediction": None, "ema": False,
        "variant": None, "lora": [], "embedding": [],
    },
    "made_with": {"device": "cpu", "torch": "x", "threads": 1, "weights": "x"},
}  # fmt: skip

PLACES: list[tuple[str, ...]] = [(name,) for name in SETTINGS]
PLACES += [(one, name) for one in ("call", "model", "made_with") for name in SETTINGS[one]]


def changed(place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The settings with another value at one place."""
    found = deepcopy(SETTINGS)
    inner = found
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return found


def png(path: Path, kept: Any) -> Path:
    """An image with settings: a JSON text, or what is written as one."""
    words = PngInfo()
    words.add_itxt(KEY, kept if isinstance(kept, str) else json.dumps(kept))
    Image.new("RGB", (64, 64)).save(path, pnginfo=words)
    return path


Like = Callable[..., tuple[int, str]]


@pytest.fixture
def like(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Like:
    """`generate --like` of a PNG with settings: its code and its lines of stderr."""

    def run(kept: Any, *more: str) -> tuple[int, str]:
        path = png(tmp_path / "given.png", kept)
        capsys.readouterr()
        code = main(["generate", "--like", str(path), *more, "--out", str(tmp_path / "out")])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of files that are opened or asked for, and of models that are fetched."""
    found: list[str] = []
    real = io.open

    def watch(file: Any, *rest: Any, **more: Any) -> Any:
        found.append(str(file))
        return real(file, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "open", watch)
        patched.setattr(io, "open", watch)
        patched.setattr("sd.checkpoint.hub._fetched", lambda *a: found.append(str(a)))
        patched.setattr(TextToImage, "load", lambda *a, **k: pytest.fail("a model is loaded"))
        yield found


def test_the_settings_here_are_drawn(like: Like) -> None:
    code, error = like(SETTINGS)
    assert code == 0 and error.count("\n") == 1 and "made with other torch" in error


NAMED: dict[str, Any] = {
    "weights": "somebody/their-model", "tokenizer": "secret/tokenizer.json", "vae": "secret/vae",
    "config": "secret/config.json", "lora": ["secret/style.safetensors:0.5", "secret/b"],
    "embedding": ["secret/word.pt"],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_what_a_png_names_is_shown_and_not_read(
    name: str, like: Like, opened: list[str], tmp_path: Path
) -> None:
    kept = changed(("model", name), NAMED[name])
    if name in ("tokenizer", "vae", "config"):
        kept["model"]["weights"] = str(tmp_path / "secret-model")
    code, error = like(kept)
    assert code == 2 and error.count("\n") == 1
    values = NAMED[name] if isinstance(NAMED[name], list) else [NAMED[name]]
    assert all(value in error for value in values) and "--like-files" in error
    assert not any("secret" in path or "somebody" in path for path in opened)


def test_what_a_png_names_is_read_when_asked_for(like: Like, tiny: Path) -> None:
    kept = changed(("model", "weights"), str(tiny))
    assert like(kept)[0] == 2
    assert like(kept, "--like-files")[0] == 0


def test_the_user_s_own_file_takes_the_place(like: Like, tiny: Path, tmp_path: Path) -> None:
    """It needs no other flag, is kept in the new PNG, and leaves the others to be asked for."""
    kept = changed(("model", "weights"), "/elsewhere/model")
    code, error = like(kept, "--weights", str(tiny))
    assert code == 0 and "made with other" in error
    (drawn,) = (tmp_path / "out").glob("*.png")
    with Image.open(drawn) as again:
        assert json.loads(again.info[KEY])["model"]["weights"] == str(tiny)
    kept["model"]["lora"] = ["/elsewhere/lora"]
    code, error = like(kept, "--weights", str(tiny))
    assert code == 2 and "lora" in error and "/elsewhere/model" not in error


@pytest.mark.parametrize("more", [(), ("--device", "cpu")])
def test_a_device_that_is_not_here_is_replaced(more: tuple[str, ...], like: Like) -> None:
    kept = changed(("made_with", "device"), "cuda:7")
    code, error = like(kept, *more)
    assert code == 0 and error.count("\n") == 1 and "made with other device" in error


def test_a_folder_named_as_an_embedded_model_stays_a_folder() -> None:
    kept = Model(weights=Path("shapes")).kept()
    assert kept["weights"] == "./shapes"
    assert Model.of(kept, "cpu").weights == Path("shapes")
    assert Model.of(kept, "cpu").named() == {"weights": "./shapes"}
    assert Model.of(Model().kept(), "cpu").weights == "shapes"


def test_other_flags_beside_like_are_refused(like: Like) -> None:
    assert like(SETTINGS, "--dtype", "bfloat16")[0] == 2
    assert like(SETTINGS, "--prompt", "a red ring")[0] == 2
    assert main(["generate", "--like-files"]) == 2


ODD = {
    "none": None, "int": 5, "negative": -1, "huge": 10**18, "float": 1.5, "infinite": float("inf"),
    "NaN": float("nan"), "str": "x", "empty": "", "zero": "a\0b", "half a pair": "\ud83d",
    "list": [1], "nested": [[[]]], "object": {"a": 1}, "nothing": {}, "true": True,
    "escapes": "\x1b[2J\x1b]0;owned\x07",
}  # fmt: skip


@cache
def _kept(model: Model) -> TextToImage:
    return load(model)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that nothing is added to is loaded once for all cases."""
    monkeypatch.setattr(
        generate, "load", lambda model: (load if model.lora or model.embedding else _kept)(model)
    )


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_odd_settings_get_one_line(place: tuple[str, ...], like: Like) -> None:
    """Every place takes every kind of value: it is drawn, or refused in one printable line."""
    for name, value in ODD.items():
        kept = changed(place, value)
        refused = False
        try:
            checked(json.loads(json.dumps(kept)))
        except ValueError:
            refused = True
        if refused and name not in ("list", "escapes"):
            continue  # the others' way to the terminal is these two's
        code, error = like(kept)
        *warned, last = error.splitlines()
        assert code in (0, 2) and (code == 2 or not refused), name
        assert last.startswith("error: " if code == 2 else "warning: "), (name, error)
        assert all(line.startswith("warning: ") for line in warned), (name, error)
        assert all(line.isprintable() for line in (*warned, last)), name


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_setting_of_another_type_is_named(place: tuple[str, ...], like: Like) -> None:
    code, error = like(changed(place, {"a": 1}))
    assert code == 2
    assert any(shown in error for shown in (place[-1], place[-1].replace("_", "-"), "--model"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.sampled_from(PLACES), JSON)
def test_settings_are_checked_or_refused(place: tuple[str, ...], value: Any) -> None:
    try:
        found = checked(changed(place, value))
    except ValueError:
        return
    assert found.index < len(found.batch) and found.call.steps >= 1


GOOD = embedded(Image.new("RGB", (64, 64)))
WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "not valid JSON"),
    "a list": ([], "settings: wanted an object"),
    "deep": ("[" * 100_000, "damaged"),
    "deep and closed": ('{"batch": ' + "[" * 70 + "]" * 70 + "}", "more than 50 levels"),
    "a name twice": ('{"batch": [], "batch": []}', "repeated"),
    "many digits": ('{"index": ' + "1" * 5000 + "}", "digits"),
    "an unknown name": ({**SETTINGS, "extra": 1}, "unknown or missing: extra"),
    "a missing name": ({k: v for k, v in SETTINGS.items() if k != "image"}, "missing: image"),
    "no steps": (changed(("call",), {"negative_prompt": ""}), "missing: steps, solver"),
    "a watch": (changed(("call", "watch"), "x"), "unknown or missing: watch"),
    "a prompt": (changed(("call", "prompt"), "x"), "unknown or missing: prompt"),
    "another model's name": (changed(("model", "device"), "cpu"), "got device"),
    "beyond the batch": (changed(("index",), 1), "index 1 of 1"),
    "many at once": (changed(("batch",), [["a", 1]] * 4097), "at most 4096"),
    "a large image": (changed(("call", "height"), 10**9), "--height: wanted"),
    "many steps": (changed(("call", "steps"), 10**9), "--steps: wanted"),
    "no base64": (changed(("image",), "?!"), "is no image: "),
    "letters that are not base64's": (changed(("image",), f"?!{GOOD}"), "is no image: "),
    "base64 of no image": (changed(("image",), "AAAA"), "is no image in a format of PNG"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_before_any_work(case: str, like: Like, opened: list[str]) -> None:
    kept, words = WRONG[case]
    before = time.perf_counter()
    code, error = like(kept)
    assert code == 2 and error.count("\n") == 1 and words in error
    assert error.startswith("error: --like: ")
    assert time.perf_counter() - before < 5


def test_a_huge_image_in_the_settings_is_refused_by_its_header(like: Like) -> None:
    code, error = like(changed(("image",), base64.b64encode(write.huge("PNG")).decode("ascii")))
    assert code == 2 and "pixels" in error


def test_a_folder_or_a_pipe_is_no_png(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        assert main(["generate", "--like", str(path), "--out", str(tmp_path / "out")]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_what_is_written_is_what_is_checked() -> None:
    """The settings of a new image pass the check of those that are read."""
    config = generate.Config(prompt=("a red circle", "a blue star"), seed=(3,))
    result = generate.run(config, hold=True)
    for figure in result.figures:
        with Image.open(io.BytesIO(figure.image)) as drawn:
            found = checked(json.loads(drawn.info[KEY]))
        assert found.batch == (("a red circle", 3), ("a blue star", 4))
        assert found.model == config.model.__class__(device="cpu")
