"""The pytest plugin, in runs of its own: items, verdicts, options, fixtures."""

import re
import subprocess
import sys
import tomllib

import pytest

from diffusion_math.testing import named_checks
from tests.support.plugin_runs import FOUR, PLUGIN, ROOT, lines, project, run

pytest_plugins = ("pytester",)
__all__ = ["project"]


def test_each_check_is_an_item_with_a_verdict(project: pytest.Pytester) -> None:
    result = run(project, FOUR, "-v")
    shown = lines(result)
    for item in ("sound PASSED", "bound KNOWN LIMITATION", "wrong XFAIL", "other FAILED"):
        assert f"test_mine.py::mine::{item}" in shown
    assert "test_mine.py::mine::bound: it has order 1 (order 0.9" in shown
    assert re.search(r"1 failed, 1 passed, 1 xfailed, 1 known limitation in", shown)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_failure_is_what_differs_and_no_traceback(project: pytest.Pytester) -> None:
    shown = lines(run(project, FOUR))
    assert "a shifted index" in shown and "runtest" not in shown and "def other" not in shown
    assert "FAILED test_mine.py::mine::other - a shifted index" in shown
    assert "def other" in lines(run(project, FOUR, "--full-trace"))


def test_a_crash_is_shown_from_the_check_on(project: pytest.Pytester) -> None:
    text = """
import pytest

@pytest.mark.diffusion
def mine():
    def broken():
        return {}["alpha"]
    return broken
"""
    shown = lines(run(project, text))
    assert 'return {}["alpha"]' in shown and "KeyError: 'alpha'" in shown
    assert "run_check" not in shown and "pytest_runtest_call" not in shown


def test_a_hook_that_raises_is_an_error_of_its_own(project: pytest.Pytester) -> None:
    project.makeconftest("def pytest_runtest_setup(item): raise OSError('no disk')")
    shown = lines(run(project, FOUR))
    assert "OSError: no disk" in shown and "4 errors in" in shown and "INTERNALERROR" not in shown


def test_a_mistake_is_named(project: pytest.Pytester) -> None:
    text = """
import pytest
import diffusion_math as dm
from diffusion_math.testing.assertions.forward import assert_forward

schedule = dm.Discrete.linear(10)

def q_sample(x0, t, noise):
    alpha, sigma = schedule(t[:, None])
    return alpha * x0 + sigma**2 * noise

@pytest.mark.diffusion
class Mine:
    def forward(self):
        assert_forward(q_sample, schedule, range(1, 11))

    def _helper(self):
        raise KeyError
"""
    shown = lines(run(project, text))
    assert "diagnosis: the coefficient of noise is sigma^2, the variance" in shown
    assert "1 failed in" in shown and "KeyError" not in shown


def test_an_ordinary_test_shows_its_own_line_alone(project: pytest.Pytester) -> None:
    text = """
import diffusion_math as dm
from diffusion_math.testing import assert_forward

schedule = dm.Discrete.linear(10)

def test_mine():
    assert_forward(lambda x0, t, noise: x0, schedule, range(1, 11))
"""
    shown = lines(run(project, text))
    assert ">       assert_forward(lambda x0, t, noise: x0" in shown and "def compare(" not in shown
    assert "the coefficient of noise differs at 10 of 10 indices" in shown
    assert "def compare(" in lines(run(project, text, "--full-trace"))


def test_a_known_defect_that_is_mended_fails(project: pytest.Pytester) -> None:
    text = """
import pytest

@pytest.mark.diffusion(defects={"mended": "issue 3", "broken": "issue 4"})
def mine():
    def mended(): pass
    def broken(): raise KeyError("no defect, but a crash")
    return [mended, broken]
"""
    shown = lines(run(project, text))
    assert "[XPASS(strict)] issue 3" in shown and "2 failed in" in shown


def test_marks_of_pytest_hold_for_the_items(project: pytest.Pytester) -> None:
    text = """
import pytest

@pytest.mark.skip(reason="not today")
@pytest.mark.diffusion
def mine():
    yield "a", lambda: None
    yield "b", lambda: None

@pytest.mark.slow
@pytest.mark.diffusion
def others():
    yield "c", lambda: None
"""
    project.makeini("[pytest]\nmarkers =\n    slow: takes long\naddopts = --strict-markers")
    assert "2 skipped, 1 deselected in" in lines(run(project, text, "-m", "not slow"))
    assert "1 passed, 2 deselected in" in lines(run(project, text, "-k", "others"))


def test_a_sampler_is_the_checks_of_its_audit(project: pytest.Pytester) -> None:
    text = """
import pytest
import diffusion_math as dm
from diffusion_math.testing import Check, Report, Sampler, named_checks, of_step

def audited(sampler):
    rows = ("grid", "sound"), ("levels", "defect"), ("order", "limit"), ("new", "defect")
    return Report(tuple(
        Check("", "", sampler.name, "", name, 1, "seen", verdict, "a note")
        for name, verdict in rows
    ))

named_checks.audit = audited
step = of_step("mine", dm.euler, dm.VPLinear())

@pytest.mark.diffusion(limits={"levels": "known"})
def one():
    return step

@pytest.mark.diffusion
def two():
    return [step]
"""
    before = named_checks.audit
    try:
        shown = lines(run(project, text, "-v"))
    finally:
        named_checks.audit = before
    wanted = ["grid PASSED", "levels KNOWN LIMITATION", "order KNOWN LIMITATION"]
    wanted += ["finite SKIPPED (not measured", "order, uneven steps SKIPPED", "other checks FAILED"]
    assert [one for one in wanted if f"test_mine.py::one::{one}" not in shown] == []
    assert "test_mine.py::two::mine: levels FAILED" in shown
    assert "test_mine.py::one::order: order: seen, a note" in shown


def test_the_audit_runs_where_it_is_not_replaced() -> None:
    import diffusion_math as dm
    from diffusion_math.testing import of_step

    checks = named_checks.named_checks(of_step("euler", dm.euler, dm.VPLinear()))
    for name in ("grid", "levels", "order"):
        assert named_checks.run_check(checks[name]) == ""


def test_an_object_is_a_check_for_each_table_and_method(project: pytest.Pytester) -> None:
    text = """
import pytest
import torch
from diffusion_math.testing import of

class Mine:
    betas = torch.linspace(1e-4, 0.02, 50, dtype=torch.float64)
    alphas_cumprod = (1 - betas).cumprod(0)
    def q_sample(self, x_start, t, noise):
        a = self.alphas_cumprod[t][:, None]
        return a.sqrt() * x_start + (1 - a) * noise

@pytest.mark.diffusion(defects={"q_sample": "sigma^2 for sigma"})
def mine():
    return of(Mine())
"""
    shown = lines(run(project, text, "-v"))
    for item in ("betas PASSED", "alphas_cumprod PASSED", "q_sample XFAIL (sigma^2 for sigma)"):
        assert f"test_mine.py::mine::{item}" in shown


def test_what_nothing_checks_is_skipped(project: pytest.Pytester) -> None:
    text = """
import pytest

class Unchecked:
    name, run, reason = "add_noise", None, "it has no parameter for the noise"
    def __call__(self): assert False

@pytest.mark.diffusion
def mine():
    return [Unchecked()]
"""
    shown = lines(run(project, text, "-v", "-rs"))
    assert "mine::add_noise SKIPPED" in shown and "no parameter for the noise" in shown


def body(returned: str, mark: str = "") -> str:
    return f"""
import pytest

def check(): pass
def check_of(x): pass

@pytest.mark.diffusion{mark}
def mine():
    return {returned}
"""


WRONG = {
    "an unknown option": (body("check", "(limit={})"), "diffusion: wanted limits={} or defects={}"),
    "no name": (body("check", "('a')"), "diffusion: wanted limits={} or defects={}, got 'a'"),
    "a name that is none": (
        body("check", "(limits={'chek': 'why'})"),
        "mine: limits: wanted names among check, got 'chek'",
    ),
    "no reason": (
        body("check", "(defects={'check': 3})"),
        "defects: wanted a check's name to its reason, got {'check': 3}",
    ),
    "both": (
        body("check", "(limits={'check': 'a'}, defects={'check': 'b'})"),
        "limits, defects: wanted each check in one of them, got 'check'",
    ),
    "nothing": (body("None"), "mine: checks: wanted a check, a Sampler, ... , got None"),
    "no check": (body("[]"), "mine: checks: wanted a check, ... , got none"),
    "a number among checks": (body("[check, 3]"), "checks: wanted ... , got 3 among them"),
    "a lambda": (body("lambda: None"), "wanted a function with a name, or (name, function)"),
    "one name twice": (body("[check, check]"), "wanted each name once, got 'check' twice"),
    "a name of a node": (body("{'a::b': check}"), "wanted a name without '::', got 'a::b'"),
    "no callable": (body("{'a': 3}"), "wanted a callable of 'a', got 3"),
    "an argument": (
        body("check_of"),
        "a callable of 'check_of' that takes no argument ... got one",
    ),
    "a function's argument": (
        body("check").replace("def mine():", "def mine(tmp_path):"),
        "diffusion: wanted a function that takes no argument, got mine with a missing a required",
    ),
    "a mark of the module": (
        "import pytest\npytestmark = pytest.mark.diffusion\ndef mine(): pass",
        "diffusion: wanted the mark on a function or a class, got pytestmark of the module",
    ),
    "marks of the module": (
        "import pytest\npytestmark = [pytest.mark.slow, pytest.mark.diffusion]\n",
        "diffusion: wanted the mark on a function or a class, got pytestmark of the module",
    ),
    "a mark of a method": (
        "import pytest\nclass Mine:\n    @pytest.mark.diffusion\n    def inner(self): pass",
        "diffusion: wanted the mark on a function or a class, got the method Mine.inner",
    ),
    "fixtures": (
        body("check").replace("def mine", "@pytest.mark.usefixtures('disk')\ndef mine"),
        "diffusion: wanted no mark usefixtures, for checks take no fixtures, got disk of mine",
    ),
    "a method before each": (
        "import pytest\n@pytest.mark.diffusion\nclass Mine:\n"
        "    def setup_method(self): pass\n    def one(self): pass",
        "Mine: checks: wanted __init__ for what comes before them, got setup_method",
    ),
}


def test_a_class_has_the_marks_of_its_bases(project: pytest.Pytester) -> None:
    text = """
import pytest

@pytest.mark.diffusion(limits={"one": "known"})
class First:
    def one(self): assert False

class Second(First):
    def two(self): assert False, "two is wrong"

@pytest.mark.diffusion(defects={"two": "issue 3"})
class Third(Second):
    pass
"""
    shown = lines(run(project, text, "-v"))
    assert "First::one KNOWN LIMITATION" in shown and "Second::one KNOWN LIMITATION" in shown
    assert "Second::two FAILED" in shown and "Third::two XFAIL" in shown
    assert "1 failed, 1 xfailed, 3 known limitation in" in shown


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_mark_is_one_line(project: pytest.Pytester, name: str) -> None:
    text, message = WRONG[name]
    result = run(project, text)
    assert [part for part in message.split(" ... ") if part not in lines(result)] == []
    assert result.ret == pytest.ExitCode.INTERRUPTED and "Traceback" not in lines(result)


def test_a_function_that_raises_has_its_traceback(project: pytest.Pytester) -> None:
    shown = lines(run(project, body("1 / 0")))
    assert "return 1 / 0" in shown and "ZeroDivisionError" in shown


def test_a_check_that_returns_something_fails(project: pytest.Pytester) -> None:
    shown = lines(run(project, body("{'close': lambda: 1 == 2}")))
    assert "wanted a check that raises AssertionError or returns a Report, got False" in shown


def test_the_fixtures_are_the_test_problems(project: pytest.Pytester) -> None:
    text = """
import torch
from diffusion_math.testing import problems

def test_point(diffusion_point, diffusion_schedule):
    x, t = torch.ones(2, 2), torch.tensor(diffusion_schedule.T)
    x0 = diffusion_point.denoiser(diffusion_schedule)(x, t)
    torch.testing.assert_close(x0, problems.point_denoiser(x, t).float())

def test_data(diffusion_gaussian, diffusion_mixture):
    assert diffusion_gaussian is problems.GAUSSIAN
    assert diffusion_mixture is problems.MIXTURE
"""
    shown = lines(run(project, text, "-v"))
    assert "6 passed in" in shown
    for name in ("Discrete", "VPLinear", "VPCosine", "VE", "RectifiedFlow"):
        assert f"test_point[{name}] PASSED" in shown


def test_the_mark_and_the_option_have_their_help(project: pytest.Pytester) -> None:
    assert "@pytest.mark.diffusion(limits={}, defects={}): " in lines(run(project, "", "--markers"))
    assert "--diffusion-html=PATH" in lines(run(project, "", "--help"))


def test_the_entry_point_is_light() -> None:
    """It is loaded in every run of pytest where the package is installed."""
    given = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert given["project"]["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}
    include = given["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert include == {f"{PLUGIN}.py": f"{PLUGIN}.py"}
    heavy = {"torch", "numpy", "diffusion_math"}
    code = f"import sys, {PLUGIN}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
