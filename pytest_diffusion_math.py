"""The pytest plugin of diffusion-math: checks of `diffusion_math.testing`, one item each.

    @pytest.mark.diffusion
    def mine():
        return of(MyDiffusion())

It is loaded in every run of pytest, so it stands beside the package, and imports it where used.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

import pytest

if TYPE_CHECKING:
    from diffusion_math.densities.mixture import GaussianMixture
    from diffusion_math.schedule import Schedule
    from diffusion_math.testing.page import Row

MARK = "diffusion"
OPTIONS = ("limits", "defects")
LIMIT = "known limitation"
SCHEDULES = ("Discrete", "VPLinear", "VPCosine", "VE", "RectifiedFlow")
CHECK, VERDICT, NOTE = (f"diffusion_{what}" for what in ("check", "verdict", "note"))
"""Properties of a report."""

XPASS = "[XPASS(strict)] "
"""What pytest says before the reason of an expected failure that did not come."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("diffusion-math")
    group.addoption(
        "--diffusion-html",
        metavar="PATH",
        help="write the checks marked `diffusion` to PATH, a page with a verdict each",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "diffusion(limits={}, defects={}): what the function returns, or the class has, are "
        "checks of diffusion_math.testing, one item each; known limitations and known defects "
        "by a check's name, each with its reason",
    )
    path = config.getoption("--diffusion-html")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Page(_writable(path)), "diffusion-math-page")


def _writable(given: str) -> Path:
    """The path of the page; UsageError where no file can be written there."""
    path = Path(given).absolute()
    if not given or path.is_dir():
        raise pytest.UsageError(f"--diffusion-html: wanted the path of a file, got {given!r}")
    folder = next(one for one in path.parents if one.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        wanted = "the path of a file in a folder that can be written"
        raise pytest.UsageError(f"--diffusion-html: wanted {wanted}, got {given!r}")
    return path


def pytest_collection_finish() -> None:
    """Have a failed assertion of the kit show the test's line and what differs, not our inside."""
    for name, module in list(sys.modules.items()):
        if name.startswith("diffusion_math.testing."):
            vars(module)["__tracebackhide__"] = True


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> pytest.Collector | None:
    wanted = f"{MARK}: wanted the mark on a function or a class"
    if isinstance(collector, pytest.Module) and _marked(_marks(collector.obj)):
        raise collector.CollectError(f"{wanted}, got pytestmark of the module")
    if not inspect.isfunction(obj) and not inspect.isclass(obj):
        return None
    marks = _marks(obj)
    if _marked(marks):
        return Subject.from_parent(collector, name=name, obj=obj, marks=marks)
    if inspect.isclass(obj) and not collector.istestclass(obj, name):  # pytest looks at none of it
        for inner, one in vars(obj).items():
            if inspect.isfunction(one) and _marked(_marks(one)):
                raise collector.CollectError(f"{wanted}, got the method {name}.{inner}")
    return None


def _marks(obj: Any) -> list[Any]:
    """The marks of a module, of a function, or of a class and its bases, those of bases first."""
    found: list[Any] = []
    for one in reversed(obj.__mro__) if inspect.isclass(obj) else (obj,):
        marks = vars(one).get("pytestmark", [])
        found += marks if isinstance(marks, list | tuple) else [marks]
    return found


def _marked(marks: Iterable[Any]) -> bool:
    return any(getattr(mark, "name", "") == MARK for mark in marks)


class Subject(pytest.Collector):
    """A function or class that is marked: a node whose items are its checks."""

    def __init__(self, *, obj: Any, marks: Iterable[Any], **others: Any) -> None:
        super().__init__(**others)
        self.obj = obj
        self.own_markers.extend(getattr(mark, "mark", mark) for mark in marks)

    def collect(self) -> Iterator[pytest.Item]:
        from diffusion_math.testing.named_checks import named_checks

        subject, called = self.obj, f"a {'class' if inspect.isclass(self.obj) else 'function'}"
        try:
            inspect.signature(subject).bind()
        except TypeError as error:
            wanted = f"{MARK}: wanted {called} that takes no argument"
            raise self.CollectError(f"{wanted}, got {self.name} with a {error}") from None
        for mark in self.iter_markers("usefixtures"):  # checks are items without fixtures
            wanted = f"{MARK}: wanted no mark usefixtures, for checks take no fixtures"
            raise self.CollectError(f"{wanted}, got {', '.join(mark.args)} of {self.name}")
        made = subject()
        made = list(made) if inspect.isgenerator(made) else made
        try:
            checks = named_checks(made)
            options = self._options(checks)
        except ValueError as error:
            raise self.CollectError(f"{self.name}: {error}") from None
        for name, run in checks.items():
            limit, defect = (options[what].get(name) for what in OPTIONS)
            item = CheckItem.from_parent(self, name=name, run=run, limit=limit)
            if defect is not None:
                item.add_marker(
                    pytest.mark.xfail(reason=defect, strict=True, raises=AssertionError)
                )
            yield item

    def _options(self, checks: Iterable[str]) -> dict[str, dict[str, str]]:
        """The mark's options; ValueError for others, and for names that are no check's."""
        found: dict[str, dict[str, str]] = {what: {} for what in OPTIONS}
        for mark in self.iter_markers(MARK):
            unknown = [*map(repr, mark.args), *(set(mark.kwargs) - set(OPTIONS))]
            if unknown:
                raise ValueError(f"{MARK}: wanted limits={{}} or defects={{}}, got {unknown[0]}")
            for what, given in mark.kwargs.items():
                texts = isinstance(given, Mapping) and all(
                    isinstance(why, str) for why in given.values()
                )
                if not texts:
                    raise ValueError(f"{what}: wanted a check's name to its reason, got {given!r}")
                found[what] |= given
        for what, given in found.items():
            for name in given:
                if name not in checks:
                    raise ValueError(
                        f"{what}: wanted names among {', '.join(checks)}, got {name!r}"
                    )
        both = sorted(found["limits"].keys() & found["defects"].keys())
        if both:
            raise ValueError(f"limits, defects: wanted each check in one of them, got {both[0]!r}")
        return found


class CheckItem(pytest.Item):
    """One check."""

    def __init__(self, *, run: Callable[[], Any], limit: str | None, **others: Any) -> None:
        super().__init__(**others)
        self.check, self.limit = run, limit
        self.user_properties.append((CHECK, self.name))

    def runtest(self) -> None:
        from diffusion_math.testing.named_checks import run_check

        try:
            note = run_check(self.check)
        except AssertionError as error:
            if self.limit is None:
                raise
            note = f"{self.limit} ({' '.join(str(error).split())})"
        except SkipTest:
            raise
        except Exception:
            self.user_properties.append((VERDICT, "error"))
            raise
        if note:
            self.user_properties += [(VERDICT, LIMIT), (NOTE, note)]

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What differs is all that a failed check has to say; a crash has its traceback."""
        from diffusion_math.testing import named_checks

        if not self.config.getoption("fulltrace"):
            if excinfo.errisinstance(AssertionError):
                return str(excinfo.value) or "AssertionError"
            paths = [str(entry.path) for entry in excinfo.traceback]
            if named_checks.__file__ in paths[:-1]:
                last = len(paths) - paths[::-1].index(named_checks.__file__)
                excinfo.traceback = excinfo.traceback[last:] or excinfo.traceback
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        parent = self.parent
        assert isinstance(parent, Subject)
        line = inspect.getsourcelines(parent.obj)[1] - 1
        return self.path, line, f"{parent.name}: {self.name}"


def pytest_report_teststatus(report: Any, config: pytest.Config) -> Any:
    if report.when == "call" and report.passed and _property(report, VERDICT) == LIMIT:
        return LIMIT, "L", (LIMIT.upper(), {"yellow": True})
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    limits = terminalreporter.getreports(LIMIT)
    if limits:
        terminalreporter.section(f"{LIMIT}s")
        for report in limits:
            terminalreporter.line(f"{report.nodeid}: {_property(report, NOTE)}")


def _property(report: Any, name: str) -> str | None:
    found = dict(getattr(report, "user_properties", ()))
    return found.get(name)


@dataclass
class Page:
    """Gathers what is reported, and writes it as a page when the session ends."""

    path: Path
    rows: list["Row"] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: Any) -> None:
        check = _property(report, CHECK)
        if check is None or (report.when != "call" and report.passed):
            return
        from diffusion_math.testing.page import Row

        subject = report.nodeid.removesuffix(f"::{check}")
        note = _property(report, NOTE) or report.longreprtext
        if report.skipped and hasattr(report, "wasxfail"):
            verdict, note = "known defect", report.wasxfail
        elif report.skipped:
            verdict, note = "skipped", report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            mended, note = note.startswith(XPASS), note.removeprefix(XPASS)
            otherwise = "defect" if report.when == "call" else "error"
            verdict = "mended" if mended else _property(report, VERDICT) or otherwise
        else:
            verdict = _property(report, VERDICT) or "sound"
        self.rows.append(Row(subject, check, verdict, note, report.duration))

    def pytest_sessionfinish(self) -> None:
        from diffusion_math.testing.page import page

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(page(self.rows), encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.write_sep("-", f"diffusion-math page: {self.path}")


@pytest.fixture(scope="session")
def diffusion_point() -> "GaussianMixture":
    """Data without spread, in the plane."""
    import diffusion_math as dm
    from diffusion_math.testing.problems import POINT

    none = POINT.new_zeros(1)
    return dm.GaussianMixture(none, POINT[None], none)


@pytest.fixture(scope="session")
def diffusion_gaussian() -> "GaussianMixture":
    """Three independent normals."""
    from diffusion_math.testing.problems import GAUSSIAN

    return GAUSSIAN


@pytest.fixture(scope="session")
def diffusion_mixture() -> "GaussianMixture":
    """Three round components of the plane."""
    from diffusion_math.testing.problems import MIXTURE

    return MIXTURE


@pytest.fixture(scope="session", params=SCHEDULES)
def diffusion_schedule(request: pytest.FixtureRequest) -> "Schedule":
    """A schedule of each kind: DDPM's betas, the VP and VE SDEs, the cosine, rectified flow."""
    import diffusion_math as dm

    kind = getattr(dm, request.param)
    made: Schedule = kind.linear() if request.param == "Discrete" else kind()
    return made
