"""The command line, given odd flags, and images whose settings a stranger wrote."""

import contextlib
import dataclasses
import importlib
import io
import json
import random
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from experiments.__main__ import NAMES, main
from experiments.generate.png_metadata import KEY
from sd.command_line import flags as declared
from sd.command_line.terminal import escaped
from tests.fuzz import inputs
from tests.fuzz.harness import fuzzed
from tests.fuzz.mutations import ODD_NUMBERS, ODD_TEXTS, json_text, spoiled_tree

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]


class ReachedError(Exception):
    """The work would begin: the flags were accepted."""


def told(arguments: Sequence[str]) -> None:
    """Run a command: accepted if it begins its work, refused with one clean line and code 2."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(arguments))
        except ReachedError:
            return
    lines = err.getvalue().splitlines()
    for line in (*lines, *out.getvalue().splitlines()):
        assert line == escaped(line), f"printed as it came: {line[:200]!r}"
    if code == 0:
        return
    assert code == 2, f"exit code {code}: {err.getvalue()[:300]}"
    faults = [line for line in lines if line.startswith("error: ")]
    assert len(faults) == 1 and lines[-1] == faults[0], err.getvalue()[:500]
    raise ValueError(faults[0])


def module(name: str) -> Any:
    return importlib.import_module(f"experiments.{name.replace('-', '_')}.run")


def fields_of(kind: Any) -> list[str]:
    """The flags of a Config, those of the dataclasses in it among them."""
    names = []
    for name, hint in declared._hints(kind).items():
        inner = dataclasses.is_dataclass(hint) and isinstance(hint, type)
        names += fields_of(hint) if inner else [name]
    return names


def test_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags of every command, several at once, with odd values; the work itself does not begin."""
    flags = {name: fields_of(module(name).Config) for name in NAMES}

    def reached(*_: Any, **__: Any) -> None:
        raise ReachedError

    for name in NAMES:
        monkeypatch.setattr(module(name), "run", reached)

    def case(rng: random.Random, folder: Path) -> None:
        monkeypatch.chdir(folder)
        inputs.written(folder, "a file", b"")
        name = rng.choice(list(NAMES))
        said = []
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            flag = "--" + rng.choice(flags[name]).replace("_", "-")
            flag = rng.choice((flag, flag, flag, flag.replace("--", "--no-"), flag[:-1], flag * 2))
            values = [
                str(rng.choice((*ODD_NUMBERS, *ODD_TEXTS, 1, 2, 4, 8, 16, "ring", "heun", folder)))
                for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))
            ]
            said += [flag, *values]
        places = [folder / "a file" / "b", folder / ("n" * 300), "a\udce9", "", "a\0b"]
        told([name, *said, "--out", str(rng.choice([folder / "out"] * 20 + places))])

    fuzzed("flags", case, tmp_path, monkeypatch)


def settings_of(png: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(png)) as image:
        return dict(json.loads(image.info[KEY]))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The settings of an image that `generate` has made."""
    out = tmp_path_factory.mktemp("kept")
    with contextlib.redirect_stdout(io.StringIO()):
        assert (
            main(["generate", "--prompt", "a red circle", "--steps", "1", "--out", str(out)]) == 0
        )
    (png,) = out.glob("*.png")
    return settings_of(png.read_bytes())


def test_settings_in_a_png(
    kept: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`generate --like` an image whose settings are spoiled: one step of sampling at most."""

    def case(rng: random.Random, folder: Path) -> None:
        tree = deepcopy(kept)
        if rng.random() < 0.2:
            tree["image"] = rng.choice((inputs.any_image(rng).hex(), *ODD_TEXTS))
        if rng.random() < 0.5:
            part = rng.choice([key for key in tree if isinstance(tree[key], dict)])
            tree[part] = spoiled_tree(rng, tree[part])
            text = json.dumps(tree)
        else:
            text = json_text(rng, tree) if rng.random() < 0.95 else json.dumps(tree)
        words = PngInfo()
        words.add_itxt(KEY, text, zip=rng.random() < 0.2)
        path = folder / "like.png"
        Image.new("RGB", (64, 64)).save(path, pnginfo=words)
        told(["generate", "--like", str(path), "--out", str(folder / "out")])

    fuzzed("settings", case, tmp_path, monkeypatch)
