"""The front of the command lines: one line for what the user can mend, else a traceback."""

import errno
import math
import re
import tomllib
import warnings
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from tyro.conf import Suppress

from sd.command_line.entry import EXTRAS, guarded, parsed, reason
from sd.command_line.flags import FlagError, Range, validated

ROOT = Path(__file__).resolve().parents[3]

MENDED = {
    "a wrong value": (
        ValueError("steps: wanted 1 or more,\n  got 0"),
        2,
        "error: steps: wanted 1 or more, got 0\n",
    ),
    "not finite": (FloatingPointError("loss is nan"), 2, "error: loss is nan\n"),
    "a full disk": (OSError(errno.ENOSPC, "No space", "a/b"), 2, "error: a/b: No space\n"),
    "a full disk, unnamed": (OSError(errno.ENOSPC, "No space"), 2, "error: No space\n"),
    "no such file": (
        FileNotFoundError("weights file x is missing"),
        2,
        "error: weights file x is missing\n",
    ),
    "an extra": (
        ModuleNotFoundError("No module named 'accelerate.utils'", name="accelerate.utils"),
        2,
        "error: the package accelerate is not installed: pip install 'diffusion-math[train]'\n",
    ),
    "no memory": (MemoryError(), 2, "error: there is not enough memory\n"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted; all is kept\n"),
    "Ctrl-C with words": (
        KeyboardInterrupt("2 of 3 are written"),
        130,
        "interrupted; 2 of 3 are written\n",
    ),
}


@pytest.mark.parametrize("case", MENDED)
def test_what_the_user_can_mend_is_one_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, code, said = MENDED[case]

    def work() -> None:
        raise error

    assert guarded(work, "all is kept") == code
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    "error", [TypeError("x"), ZeroDivisionError("x"), ModuleNotFoundError("x", name="sd.nothing")]
)
def test_a_fault_of_the_program_keeps_its_traceback(error: Exception) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        guarded(work)
    assert reason(error) is None


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: warnings.warn("so and\nso", UserWarning, stacklevel=1)) == 0
    assert capsys.readouterr() == ("", "warning: so and so\n")


@dataclass(frozen=True)
class Config:
    """Count."""

    steps: int = 3
    """How many."""
    loud: bool = False
    mode: Literal["fast", "fine"] | None = None
    between: tuple[float, float] | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    folder: Path = Path("here")
    names: tuple[str, ...] = ()
    hidden: Annotated[int, Suppress] = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"--steps must be 1 or more, got {self.steps}")


WRONG_FLAGS = {
    "--steps x": "--steps: wanted a whole number, got 'x'",
    "--steps": "--steps: wanted a whole number, got none",
    "--steps 1 2": "--steps: wanted a whole number, got '1' '2'",
    "--steps 1 --steps 2": "--steps: given twice; give it once, with all its values",
    "--steps=0": "--steps must be 1 or more, got 0",
    "--step 3": "--step: no such flag; is it --steps?",
    "--bogus": "--bogus: no such flag",
    "--hidden 1": "--hidden: no such flag",
    "3": "wanted a flag, such as --steps, got '3'",
    "--loud yes": "--loud: wanted no value, got 'yes'",
    "--mode slow": "--mode: wanted one of fast, fine, got 'slow'",
    "--mode fas": "--mode: wanted one of fast, fine, got 'fas'; is it fast?",
    "--between 1": "--between: wanted 2 values, got '1'",
    "--between 1 b": "--between: wanted a number, got '1' 'b'",
    "--pairs 1 2 3": "--pairs: wanted a list, got '1' '2' '3'",
    "--folder=": "--folder: wanted a path, got ''",
}


@pytest.mark.parametrize("flags", WRONG_FLAGS)
def test_wrong_flags_are_one_line(flags: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(WRONG_FLAGS[flags])}$"):
        parsed(Config, "prog", flags.split())


def test_flags_make_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed(Config, "prog", ["--steps", "5"]) == Config(5)
    flags = "--loud --mode None --between -1 inf --pairs 1 2 3 4 --names --folder a --steps=4"
    made = Config(4, True, None, (-1, math.inf), ((1, 2), (3, 4)), Path("a"))
    assert parsed(Config, "prog", flags.split()) == made
    assert parsed(Config, "prog", ["--no-loud", "--names", ""]) == Config(names=("",))
    assert parsed(Config, "prog", ["--help"]) is None
    assert "How many" in capsys.readouterr().out


def test_every_extra_is_one_that_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {"sklearn": "scikit-learn"}
    for package, extra in EXTRAS.items():
        declared = project["optional-dependencies"][extra]
        assert any(one.startswith(names.get(package, package)) for one in declared), package


def test_a_validated_class_checks_its_fields_before_its_own_checks() -> None:
    seen = []

    @validated
    class Steps:
        steps: Annotated[int, Range(1, 9)] = 3

        def __post_init__(self) -> None:
            seen.append(self.steps)

    assert Steps(4).steps == 4 and seen == [4]
    with pytest.raises(FlagError, match="--steps: wanted a whole number from 1 to 9, got 0"):
        Steps(0)
    assert seen == [4]
    with pytest.raises(FrozenInstanceError):
        Steps().steps = 5  # type: ignore[misc]
