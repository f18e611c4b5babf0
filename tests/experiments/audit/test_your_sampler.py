"""The page on auditing one's own sampler does what it says."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

PAGE = Path(__file__).resolve().parents[3] / "docs" / "audit-your-sampler.md"
CODE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(CODE[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "mine.py"


def test_its_sampler_has_fifteen_lines_and_is_sound(mine):
    from experiments.audit.run import Config, _subjects, run, write

    assert len([line for line in CODE[0].splitlines() if line.strip()]) <= 15
    result = run(Config(target=f"{mine}:mine", quick=True, out=mine.parent))
    assert {row.verdict for row in result.data["found"]} == {"sound"}, result.data["found"]
    assert result.data["found"][0].sampler == "mine"
    written = [path.name for path in write(result, mine.parent)]
    assert written[:3] == ["audit.html", "audit.md", "audit.json"]
    with pytest.raises(ValueError, match=r"--target: .* has no yours"):
        _subjects(f"{mine}:yours", quick=True)
    with pytest.raises(ValueError, match=r"--target: wanted ours, .* or PATH:NAME"):
        _subjects("nobody", quick=True)


@pytest.mark.slow
def test_its_tests_pass(mine):
    names: dict[str, object] = {}
    exec(CODE[-1], names)
    names["test_it_converges"]()
    names["test_it_is_sound"]()


def test_its_table_names_every_check():
    from diffusion_math.testing import audit
    from tests.support.wrong_samplers import TABLE, right

    page = PAGE.read_text(encoding="utf-8")
    rows = audit(right("ddim", TABLE), counts=(2,), sweep=(2,), ladder=(16, 32, 64)).rows
    assert [row.check for row in rows if f"| {row.check} |" not in page] == []
