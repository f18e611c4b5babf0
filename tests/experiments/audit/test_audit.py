"""The audit as an experiment: its files, its verdicts, its reproducers, its refusals."""

import importlib
import json
import re
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.audit import run as audit
from experiments.audit import user_file
from experiments.audit.run import Config, run, write
from experiments.output.result import FAILS, HOLDS
from experiments.plots.audit import orders
from tests.support.reproducer import said
from tests.support.result_schema import check

pytestmark = [
    pytest.mark.usefixtures("module_unchecked"),  # shapes have tests of their own
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # diffusers'
]

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


WRONG = f"{ROOT / 'tests' / 'support' / 'wrong_samplers.py'}:GUESSED"


@pytest.mark.slow
def test_a_defect_has_a_reproducer(tmp_path):
    """A wrong sampler of a file: a failing row, a table, scripts of at most 20 lines that run."""
    result = run(Config(target=WRONG, quick=True))
    [row] = [row for row in result.rows if row.name == "audit"]
    assert row.verdict == FAILS and row.measured >= 3
    scripts = result.data["reproducers"]
    assert len(scripts) == row.measured and all(name.startswith("defect-") for name in scripts)
    assert all(len(text.splitlines()) <= 20 for text in scripts.values())
    written = {path.name: path for path in write(result, tmp_path)}
    [path] = [written[name] for name in scripts if name.endswith("levels.py")]
    [row] = [row for row in result.data["found"] if row.check == "levels"]
    assert said(path) == (1, f"expected {row.expected}, measured {row.shown} {row.note}")


@pytest.mark.parametrize("library", ["ours", "diffusers"])
def test_a_subject_can_be_made_again(library):
    """The same sampler, with the same steps to look at, whatever its place."""
    module = importlib.import_module(f"experiments.audit.peers.{library}")
    for subject in list(module.subjects(quick=True))[::7]:
        names = {}
        exec(subject.again, names)
        again = names["subject"]
        assert again.sampler.name == subject.sampler.name and again.ladder == subject.ladder


def test_a_subject_of_a_file_can_be_made_again(tmp_path):
    """One of several of one name, in a file whose name has a quote."""
    path = tmp_path / "it's mine.py"
    code = (
        "from dataclasses import replace\n"
        "from tests.support.wrong_samplers import right\n"
        "def mine():\n"
        "    yield from (replace(right('ddim'), order=k) for k in (1, 2, 3))\n"
    )
    path.write_text(code, encoding="utf-8")
    for quick in (True, False):
        for subject in user_file.subjects(path, "mine", quick):
            names = {}
            exec(subject.again, names)
            again = names["subject"]
            assert again.sampler.order == subject.sampler.order
            assert (again.counts, again.sweep) == (subject.counts, subject.sweep)


def test_the_command_prints_the_checks_and_its_exit_code_tells_of_defects(tmp_path, capsys):
    path = tmp_path / "mine.py"
    code = (
        "from tests.support.wrong_samplers import right\n"
        "from dataclasses import replace\n"
        "good = right('ddim')\n"
        "bad = [good, replace(good, name='second', order=2)]\n"
    )
    path.write_text(code, encoding="utf-8")
    flags = ["--quick", "--out", str(tmp_path / "out")]
    assert main(["audit", "--target", f"{path}:good", *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("ddim")
    assert lines[at + 1].split() == ["check", "expected", "measured", "verdict", "note"]
    assert [line.split()[0] for line in lines[at + 2 : at + 5]] == ["grid", "finite", "noise"]
    assert re.fullmatch(r"sound: \d+, limit: 0, defect: 0", lines[-1])
    assert main(["audit", "--target", f"{path}:bad", *flags]) == 1
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines.index("ddim") < lines.index("second")
    assert re.search(r"\n  order +2 +[01]\.\d\d \(.*\) +defect +errors", out)
    assert re.fullmatch(r"sound: \d+, limit: \d+, defect: [123]", lines[-1])
    assert (tmp_path / "out" / "audit.html").exists()


def test_of_a_library_only_what_is_not_sound_is_printed(ours, capsys):
    assert audit.conclude(ours) == 0
    assert capsys.readouterr().out == f"sound: {len(ours.data['found'])}, limit: 0, defect: 0\n"


@pytest.mark.slow
def test_a_reproducer_of_a_library_runs(tmp_path):
    """DDIM's guessed previous time, from diffusers alone and ours."""
    from experiments.audit.peers.diffusers import cases

    [case] = [c for c in cases() if c.setting.endswith("'linspace', eta=1.0") and "P" not in c.kind]
    subject = case.subject()
    found = subject.audit()
    scripts = audit._reproducers([(subject, found.rows)])
    [text] = [text for name, text in scripts.items() if name.endswith("levels.py")]
    [row] = [row for row in found.defects if row.check == "levels"]
    script = tmp_path / "again.py"
    script.write_text(text, encoding="utf-8")
    assert said(script) == (1, f"expected {row.expected}, measured {row.shown} {row.note}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "nobody"}, "--target: wanted ours, ours-in-diffusers, diffusers, k-diffusion"),
        ({"target": "nobody"}, "field or PATH:NAME, got nobody"),
        ({"target": "nowhere.py:mine"}, "--target: there is no file nowhere.py, got nowhere.py:m"),
        ({"target": "nowhere.py"}, "or PATH:NAME, got nowhere.py"),
        ({"target": __file__}, r"--target: wanted .*test_audit.py:NAME, a name in that file, got"),
        ({"target": f"{__file__}:"}, r"test_audit.py:NAME, a name in that file, got .*y:$"),
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
