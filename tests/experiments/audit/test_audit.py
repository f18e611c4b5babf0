"""The audit as an experiment: its files, its verdicts, its reproducers, its refusals."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.audit import run as audit
from experiments.audit.run import Config, run, write
from experiments.output.result import FAILS, HOLDS
from experiments.plots.audit import orders
from tests.support.result_schema import check

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own

ROOT = Path(__file__).resolve().parents[3]
KEYS = [
    "library",
    "version",
    "sampler",
    "setting",
    "check",
    "expected",
    "measured",
    "verdict",
    "note",
    "value",
]


@pytest.fixture(scope="module")
def ours():
    return run(Config(quick=True, samplers=("ddim", "ddpm")))


def test_the_files(ours, tmp_path):
    names = [path.name for path in write(ours, tmp_path)]
    assert names == ["audit.html", "audit.md", "audit.json", "audit-orders.png", "audit-work.png"]
    rows = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert all(list(row) == KEYS for row in rows)
    assert {row["sampler"] for row in rows} == {"ddim", "ddpm"}
    assert {row["verdict"] for row in rows} == {"sound"}
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "2 samplers and settings of diffusion_math" in page and "audit-orders.png" in page


def test_the_figure_of_orders_draws_the_fits(ours):
    fitted = [row for row in ours.data["found"] if row.check in ("order", "weak order")]
    axes = orders(fitted).axes[0]
    drawn = [tuple(map(float, line.get_xdata())) for line in axes.lines]
    for row in fitted:
        assert (row.measured.low, row.measured.high) in drawn
        assert (float(row.expected),) in drawn and (row.value,) in drawn


def test_the_summary_counts(ours):
    check(ours, "audit")
    found = {row.name: (row.measured, row.verdict) for row in ours.rows}
    assert found["audit"] == (0.0, HOLDS)
    assert found["audit-sound"][0] == len(ours.data["found"])


def test_a_defect_has_a_reproducer(tmp_path):
    """A wrong sampler of a file: a failing row, a table, a script of at most 20 lines."""
    target = f"{ROOT / 'tests' / 'support' / 'wrong_samplers.py'}:GUESSED"
    result = run(Config(target=target))
    [row] = [row for row in result.rows if row.name == "audit"]
    assert row.verdict == FAILS and row.measured >= 3
    scripts = result.data["reproducers"]
    assert len(scripts) == row.measured and all(name.startswith("defect-") for name in scripts)
    assert all(len(text.splitlines()) <= 20 for text in scripts.values())
    assert any(path.name == next(iter(scripts)) for path in write(result, tmp_path))


@pytest.mark.slow
def test_a_reproducer_of_a_library_runs():
    """DDIM's guessed previous time, from diffusers alone and ours."""
    from experiments.audit.peers.diffusers import cases

    [case] = [c for c in cases() if c.setting.endswith("'linspace', eta=1.0") and "P" not in c.kind]
    subject = case.subject()
    found = subject.audit()
    scripts = audit._reproducers([(subject, found.rows)])
    [text] = [text for name, text in scripts.items() if name.endswith("levels.py")]
    command = [sys.executable, "-W", "ignore", "-c", text]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    [row] = [row for row in found.defects if row.check == "levels"]
    assert said.strip() == f"{row.expected} {row.shown} {row.note}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "nobody"}, "--target: wanted ours, diffusers, k-diffusion"),
        ({"target": "nowhere.py:mine"}, "with a file at PATH, got nowhere.py:mine"),
        ({"samplers": ("dppm",)}, "--samplers: wanted some of ddim, ddpm, .* got dppm"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        run(Config(quick=True, **settings))


def test_a_library_that_is_not_there(monkeypatch):
    import experiments.audit.peers.azula as peer

    def missing(quick):
        raise ModuleNotFoundError("no", name="azula")

    monkeypatch.setattr(peer, "subjects", missing)
    with pytest.raises(ValueError, match=r"--target azula: azula is not installed: `make peers`"):
        run(Config(target="azula"))


def test_findings_are_on_the_page():
    """docs/audit.md numbers its findings without a gap."""
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    numbers = [int(one) for one in re.findall(r"^\| (\d+) \|", page, re.M)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 10
