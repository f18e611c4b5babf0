"""The page on auditing one's own sampler does what it says."""

import re
from pathlib import Path

import pytest

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

PAGE = Path(__file__).resolve().parents[3] / "docs" / "audit-your-sampler.md"
CODE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def code_with(text: str) -> str:
    """The one block of the page that has the text."""
    (found,) = (code for code in CODE if text in code)
    return found


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(CODE[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "mine.py"


def test_its_sampler_has_fifteen_lines_and_is_sound(mine):
    from experiments.audit.run import Config, run, write
    from experiments.audit.targets import subjects

    assert len([line for line in CODE[0].splitlines() if line.strip()]) <= 15
    result = run(Config(target=f"{mine}:mine", quick=True, out=mine.parent))
    assert {row.verdict for row in result.data["found"]} == {"sound"}, result.data["found"]
    assert result.data["found"][0].sampler == "mine"
    written = [path.name for path in write(result, mine.parent)]
    assert written[:3] == ["audit.html", "audit.md", "audit.json"]
    with pytest.raises(ValueError, match=r"--target: .* has no yours"):
        subjects(f"{mine}:yours", quick=True)
    with pytest.raises(ValueError, match=r"--target: wanted ours, .* or PATH:NAME"):
        subjects("nobody", quick=True)


@pytest.mark.slow
def test_its_tests_pass(mine):
    names: dict[str, object] = {}
    exec(code_with("def test_it_converges"), names)
    names["test_it_converges"]()
    names["test_it_is_sound"]()


@pytest.mark.slow
def test_its_plugin_makes_an_item_of_every_check(mine, pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{PAGE.parents[1]}:{mine.parent}")
    pytester.makepyfile(test_mine=code_with("@pytest.mark.diffusion\ndef my_sampler"))
    shown = pytester.runpytest_inprocess("-p", "pytest_diffusion_math", "-p", "no:xdist", "-v")
    shown.assert_outcomes(passed=11)
    for check in ("grid", "levels", "times told", "order of a step", "other checks"):
        assert f"test_mine.py::my_sampler::{check} PASSED" in shown.stdout.str()


def test_its_plugin_takes_the_known_by_name_and_has_fixtures(mine, pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{PAGE.parents[1]}:{mine.parent}")
    pytester.makepyfile(
        test_mine=code_with("limits={"), test_fixtures=code_with("def test_my_denoiser")
    )
    options = ("-p", "pytest_diffusion_math", "-p", "no:xdist", "-p", "no:cacheprovider")
    shown = pytester.runpytest_inprocess(*options, "--collect-only", "-q", "test_mine.py")
    assert "test_mine.py::my_sampler::last noise" in shown.stdout.str()
    pytester.runpytest_inprocess(*options, "test_fixtures.py").assert_outcomes(passed=5)


def test_its_adaptor_and_strategies_run():
    exec(code_with("adaptors.of_edm(euler)"), {})
    names: dict[str, object] = {}
    exec(code_with("strategies.mixtures"), names)
    names["test_a_denoiser_is_finite"]()


def test_it_names_every_adaptor_and_strategy():
    from diffusion_math.testing import adaptors, strategies

    page = PAGE.read_text(encoding="utf-8")
    names = [name for name in strategies.__all__ if name.islower()]
    assert [name for name in [*adaptors.__all__, *names] if f"`{name}(" not in page] == []


def test_its_table_names_every_check():
    from diffusion_math.testing import audit
    from tests.support.wrong_samplers import TABLE, right

    page = PAGE.read_text(encoding="utf-8")
    rows = audit(right("ddim", TABLE), counts=(2,), sweep=(2,), ladder=(16, 32, 64)).rows
    assert [row.check for row in rows if f"| {row.check} |" not in page] == []
