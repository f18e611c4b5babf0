"""What is printed can't command the terminal, and nothing is printed past the one printer."""

import ast
import io
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd.command_line.terminal import LONGEST, escaped, say

ROOT = Path(__file__).resolve().parents[3]

DANGEROUS = {
    "clears the screen": "\x1b[2J",
    "sets the title": "\x1b]0;owned\x07",
    "C1's introducer": "\x9b2J",
    "goes back in the line": "safe\rerror",
    "a line of its own": "one\ntwo\x0bthree\x85four\u2028five",
    "backspace": "a\b",
    "right to left": "\u202egnp.exe\u202c",
    "isolates": "\u2066x\u2069",
    "a mark of direction": "\u200fx\u061c",
    "half a pair": "\ud83d",
    "a byte that is no UTF-8": "caf\udce9",
    "a tag": "\U000e0041",
    "a byte-order mark": "\ufeffx",
}


@pytest.mark.parametrize("case", DANGEROUS)
def test_what_commands_a_terminal_is_escaped(case: str) -> None:
    shown = escaped(DANGEROUS[case])
    assert shown.isprintable() and shown.encode("utf-8")
    assert shown.encode("ascii", "ignore").decode("unicode_escape") == DANGEROUS[case]


@given(st.text(st.characters()))
def test_what_is_printable_stands_as_it_is(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    assert [c for c in shown if ord(c) > 126] == [
        c for c in text if ord(c) > 126 and c.isprintable()
    ]
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    assert escaped("a cafés “猫” 🐈") == "a cafés “猫” 🐈"


def test_a_line_has_an_end() -> None:
    assert escaped("x" * LONGEST) == "x" * LONGEST
    assert escaped("x" * (LONGEST + 1)) == "x" * LONGEST + "..."


@pytest.mark.parametrize("code", ["utf-8", "ascii", "latin-1"])
def test_any_stream_takes_any_line(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=code, errors="strict", newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    say(Path("caf\udce9 é 猫"))
    shown = {"utf-8": "é 猫", "ascii": r"\xe9 \u732b", "latin-1": r"é \u732b"}[code]
    assert raw.getvalue().decode(code) == rf"caf\udce9 {shown}" + "\n"


def printers(root: Path) -> list[str]:
    """Calls of print, and writes to a standard stream, in the packages behind the command line."""
    found = []
    for room in ("diffusion_math", "sd", "experiments"):
        for path in sorted((root / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                used = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
                named = ast.unparse(node) if used else ""
                if called == "print" or named in ("sys.stdout", "sys.stderr"):
                    found.append(f"{path.relative_to(root)}:{node.lineno}")
    return found


def test_one_function_prints(tmp_path: Path) -> None:
    printing = {line.split(":")[0] for line in printers(ROOT)}
    assert printing <= {str(Path("sd/command_line/terminal.py"))}
    (tmp_path / "sd").mkdir()
    for text in ("print(1)\n", "import sys\nprint(1, file=sys.stderr)\n", "sys.stdout.write(x)\n"):
        (tmp_path / "sd" / "a.py").write_text(text, encoding="utf-8")
        assert printers(tmp_path) != []
