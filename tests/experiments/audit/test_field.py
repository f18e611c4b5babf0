"""The audit of the whole field: planted libraries, one that is missing, and one that crashes."""

import json
import os
import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from diffusion_math.testing import audit
from experiments.audit import field
from experiments.audit.run import Config, conclude, run, write
from experiments.audit.targets import TARGETS
from experiments.output.page import markdown_of
from tests.support.reproducer import ROOT, said
from tests.support.result_schema import check
from tests.support.wrong_samplers import right

PLANTED = {
    "azula": """
from diffusion_math.testing import Origin
from experiments.audit.subject import Subject
from tests.support.wrong_samplers import right

def subjects(quick):
    yield Subject(right("ddim"), Origin("azula", "1.2"), "", (2, 10), (2, 10))
""",
    "sbi": """
from diffusion_math.testing import Origin
from experiments.audit.formula import Formula

def wrong():
    assert 2 == 3, "got 2, expected 3"

MADE = {("q_sample", "forward"): print, ("q_posterior", "posterior"): wrong}

def subjects(quick):
    for (name, check), run in MADE.items():
        again = f"from experiments.audit.peers.sbi import subjects\\n\\n"
        again += f"subject = next(one for one in subjects(False) if one.name == {name!r})"
        yield Formula(name, check, run, Origin("sbi", "3.4", "defaults"), again=again)
""",
    "torchcfm": "raise ModuleNotFoundError('no', name='torchcfm')",
    "torchebm": "import os\n\ndef subjects(quick):\n    os._exit(7)",
    "monai": "def subjects(quick):\n    yield 1 / 0",
}
FIRST = "import experiments.audit.peers as peers\npeers.__path__.insert(0, {!r})\n"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder that Python reads first, with adaptors in the place of the project's."""
    folder = tmp_path_factory.mktemp("planted")
    for name, code in PLANTED.items():
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    (folder / "first").mkdir()
    code = FIRST.format(str(folder))
    (folder / "first" / "sitecustomize.py").write_text(code, encoding="utf-8")
    return folder / "first"


@pytest.fixture(scope="module")
def audited(planted, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    (out / "torchebm").mkdir()
    (out / "torchebm" / "audit.json").write_text("[]", encoding="utf-8")  # of an earlier run
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (planted, ROOT))))
        result = field.run(Config(target="field", quick=True, out=out), tuple(PLANTED))
    return result, {path.name: path for path in write(result, out)}


@pytest.mark.slow
def test_the_table_has_every_library(audited):
    result, files = audited
    check(result, "audit")
    lines = [line.split(" | ") for line in files["audit.md"].read_text("utf-8").splitlines()]
    head, _, *rows = (line for line in lines if len(line) > 10)
    assert [cell.strip("| ") for cell in head] == [
        "library",
        *field.KINDS,
        "other",
        "all",
        "s",
    ]
    rows = {row[0].strip("| "): row for row in rows}
    assert list(rows) == ["azula 1.2", "sbi 3.4", "torchcfm", "torchebm", "monai"]
    states = [row[-2] for row in rows.values()]
    assert states[1:] == ["1/0/1", "not installed", "crashed", "crashed"]
    assert int(states[0]) == len(result.data["libraries"][0].rows) > 5
    sbi = dict(zip(head, rows["sbi 3.4"], strict=True))
    assert (sbi["forward"], sbi["posterior"], sbi["loss"]) == ("1", "0/0/1", "–")


@pytest.mark.slow
def test_the_page_begins_with_the_table_and_names_what_is_not_audited(audited):
    _, files = audited
    text = files["audit.md"].read_text("utf-8")
    assert text.startswith("# Audit of the field\n\n| library | ")
    assert "Not installed: torchcfm" in text
    assert "torchebm crashed: exit code 7" in text
    assert "monai crashed: exit code 1: ZeroDivisionError: division by zero" in text
    assert re.search(r"### Defects in sbi 3.4\n\n.*\n.*\n\| q_posterior \| defaults \| post", text)
    assert "library" in files["audit.html"].read_text("utf-8")


@pytest.mark.slow
def test_the_table_can_be_made_from_the_json(audited):
    _, files = audited
    again = field.table(field.from_json(files["audit.json"].read_bytes()))
    assert markdown_of(again) in files["audit.md"].read_text("utf-8")
    names = [one["name"] for one in json.loads(files["audit.json"].read_bytes())]
    assert names == list(PLANTED)


@pytest.mark.slow
def test_each_has_a_line_in_the_terminal(audited, capsys):
    result, _ = audited
    assert conclude(result) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:-1] == [
        "sbi 3.4: 1, 1 defect",
        "torchcfm: not installed",
        "torchebm: crashed (exit code 7)",
        "monai: crashed (exit code 1: ZeroDivisionError: division by zero)",
    ]
    assert re.fullmatch(r"azula 1\.2: \d+", lines[0])
    assert re.fullmatch(r"\d+, 1 defect", lines[-1])


@pytest.mark.slow
def test_a_reproducer_of_a_formula_runs_elsewhere(audited, planted):
    """Its exit code is 1 while the defect is there, and 0 once it is mended."""
    result, _ = audited
    folder = result.data["settings"].out / "sbi"
    [script] = folder.glob("defect-*.py")
    assert script.name == "defect-01-q-posterior-posterior.py"
    line = "expected the formula, measured got 2, expected 3"
    assert said(script, planted) == (1, line)
    adaptor = planted.parent / "sbi.py"
    wrong = adaptor.read_text("utf-8")
    adaptor.write_text(wrong.replace("2 == 3", "3 == 3"), encoding="utf-8")
    assert said(script, planted) == (0, "expected the formula, measured holds")
    adaptor.write_text(wrong, encoding="utf-8")


def test_every_check_of_a_sampler_has_a_column():
    rows = audit(right("ddim"), counts=(2,), sweep=(2,), ladder=(16, 32, 64)).rows
    assert {row.check: field.kind(row) for row in rows} == {
        "grid": "schedule",
        "finite": "levels",
        "noise": "levels",
        "levels": "levels",
        "image-to-image": "start",
        "times told": "levels",
        "last noise": "levels",
        "order": "order",
        "order of a step": "order",
        "order, uneven steps": "order",
    }


def test_the_field_is_every_target(monkeypatch):
    asked = []

    def one(target, config):
        asked.append(target)
        return field.Library(target, 0.0, "exit code 3")

    monkeypatch.setattr(field, "audited", one)
    monkeypatch.setattr(field, "processes", lambda workers: nullcontext())  # here, one by one
    result = run(Config(target="field"))
    assert sorted(asked) == sorted(TARGETS)
    assert [one.name for one in result.data["libraries"]] == list(TARGETS)
    adaptors = {
        path.stem.replace("_", "-") for path in Path(field.__file__).parent.glob("peers/*.py")
    }
    assert set(TARGETS) <= adaptors
    with pytest.raises(ValueError, match="--samplers: wanted none with --target field"):
        run(Config(target="field", samplers=("ddim",)))
