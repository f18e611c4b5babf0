"""The tab Check: pasted code is not run unless it is allowed; what it does wrong is one message."""

import os
from pathlib import Path
from typing import Any

import pytest

from experiments.play import check
from experiments.play.check import Audited, Settings
from experiments.play.jobs import Failure, live


def reports(folder: Path, runs: bool = False, **given: Any) -> list[Any]:
    settings = Settings(**given)
    found = list(live(lambda tell: check.check(settings, runs, folder, tell)))
    return [one for one in found if not isinstance(one, str)]


def test_pasted_code_is_not_run_unless_allowed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w').close()"
    (failure,) = reports(tmp_path, code=code)
    assert failure == Failure(
        "pasted code is not run; start the playground with `--run-pasted-code`"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sampler": "magic"}, "--sampler: wanted one of"),
        ({"sampler": "adaptive"}, "sampler: wanted a solver of fixed steps"),
        ({"schedule": "VP"}, "--schedule: wanted one of"),
        ({"code": " "}, "--code: wanted text"),
        ({"code": "a" * 20_001}, "code: wanted at most 20000 characters, got 20001"),
    ],
)
def test_bad_values_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"^{said}"):
        Settings(**given)


@pytest.mark.slow
def test_our_sampler_is_audited(tmp_path: Path) -> None:
    (found,) = reports(tmp_path, sampler="heun", schedule="RectifiedFlow")
    assert isinstance(found, Audited)
    order = next(row for row in found.rows if row["check"] == "order")
    assert order["expected"] == "2" and abs(order["value"] - 2) < 0.35
    assert all(row["verdict"] == "sound" for row in found.rows)
    assert found.plot is not None and found.plot.startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_pasted_code_is_audited_where_allowed(tmp_path: Path) -> None:
    (found,) = reports(tmp_path, True, code=check.EXAMPLE)
    assert all(row["verdict"] == "sound" for row in found.rows)
    wrong = check.EXAMPLE.replace("/ sigma_t", "/ sigma_t * 0.9")
    (found,) = reports(tmp_path, True, code=wrong)
    assert any(row["verdict"] == "defect" for row in found.rows)
    (failure,) = reports(tmp_path, True, code="x = 1 / 0")
    assert failure == Failure("target: the code, line 1: ZeroDivisionError: division by zero")


@pytest.mark.slow
def test_code_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the processes that it has started."""
    monkeypatch.setattr(check, "PATIENCE", 30)
    trace = tmp_path / "child"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(trace)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    (failure,) = reports(tmp_path, True, code=code)
    assert failure == Failure("the audit was ended after 30 seconds")
    state = Path(f"/proc/{trace.read_text()}/stat")
    if os.path.isdir("/proc"):
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
