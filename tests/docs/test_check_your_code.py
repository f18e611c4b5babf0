"""docs/check-your-code.md: its class, its tests and the diagnoses that it prints."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffusion_math import testing

pytestmark = pytest.mark.usefixtures("unchecked")  # many calls; shapes have tests of their own

PAGE = Path(__file__).resolve().parents[2] / "docs" / "check-your-code.md"
TEXT = PAGE.read_text(encoding="utf-8")
DDPM, TESTS, WHOLE = re.findall(r"```python\n(.*?)```", TEXT, re.S)
ROWS = re.findall(r"^\| `(test_\w+)` \| (.+?) \| `(.+?)` \| `(.+?)` \|$", TEXT, re.M)
PRINTED = re.findall(r"```text\n(.*?)```", TEXT, re.S)


@pytest.fixture
def tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], dict]]:
    """The page's functions, of a ddpm.py of this text."""
    monkeypatch.syspath_prepend(tmp_path)

    def run(text: str) -> dict:
        (tmp_path / "ddpm.py").write_text(text, encoding="utf-8")
        sys.modules.pop("ddpm", None)
        sys.dont_write_bytecode, kept = True, sys.dont_write_bytecode
        names: dict = {}
        exec(TESTS, names)
        sys.dont_write_bytecode = kept
        return names

    yield run
    sys.modules.pop("ddpm", None)


def test_the_class_is_of_forty_lines_and_each_test_of_three() -> None:
    assert len(DDPM.rstrip().splitlines()) <= 42
    bodies = re.findall(r"^def test_\w+\(\):\n((?: .*\n)+)", TESTS, re.M)
    assert len(bodies) == 5 and all(len(body.splitlines()) <= 3 for body in bodies)
    assert len(ROWS) == 4


def test_each_planted_mistake_is_found_and_named(tests: Callable[[str], dict]) -> None:
    names = tests(DDPM)
    names["test_forward"]()
    for test, diagnosis, line, _ in ROWS:
        assert DDPM.count(line) == 1
        with pytest.raises(testing.MistakeError) as caught:
            names[test]()
        assert [one.name for one in caught.value.mistakes] == [diagnosis]
        if test == "test_posterior":
            assert str(caught.value) == PRINTED[0].rstrip()


def test_the_corrections_of_the_page_are_right(tests: Callable[[str], dict]) -> None:
    mended = DDPM
    for _, _, line, correction in ROWS:
        mended = mended.replace(line, correction)
    names = tests(mended)
    for test in [name for name in names if name.startswith("test_")]:
        names[test]()
    testing.assert_diffusion(names["mine"])


def test_the_whole_object_is_checked(
    tests: Callable[[str], dict], capsys: pytest.CaptureFixture[str]
) -> None:
    names = tests(DDPM)
    exec(WHOLE, names)
    assert capsys.readouterr().out == PRINTED[1]
    with pytest.raises(testing.MistakeError, match=r"^DDPM: 2 of 5 formulas wrong\n"):
        names["test_all_of_it"]()


def test_every_assertion_is_on_the_page() -> None:
    named = set(re.findall(r"`(?:testing\.)?(assert_\w+)", TEXT))
    assert {name for name in testing.__all__ if name.startswith("assert_")} == named
