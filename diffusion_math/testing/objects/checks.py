"""`of`, `assert_diffusion`: all formulas of an object, found by name, each with its assertion."""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final, overload

import torch
from torch import Tensor

from diffusion_math.checks import checked, require
from diffusion_math.testing.assertions.schedule import assert_schedule
from diffusion_math.testing.assertions.schedule_table import TABLES, assert_table
from diffusion_math.testing.mistakes.coarse import UncheckedWarning
from diffusion_math.testing.mistakes.diagnosis import MistakeError
from diffusion_math.testing.mistakes.levels import Levels, LevelsOf
from diffusion_math.testing.objects.functions import Case, driven
from diffusion_math.testing.objects.levels import Noise, found, of_sigmas, of_tables, tables
from diffusion_math.testing.objects.names import FUNCTIONS, PREDICTIONS, SAMPLERS, TABLE_NAMES

__all__ = ["FormulaCheck", "FormulaChecks", "assert_diffusion", "of"]


@final
@dataclass(frozen=True)
class FormulaCheck:
    """A table or method of an object, and the assertion that checks it when this is called.

    Attributes:
        name: the table's or method's name in the object.
        formula: what it should hold or return.
        run: calls the assertion; None where nothing does.
        reason: why nothing checks it, else empty. A call then warns `UncheckedWarning`.
        is_source: whether the truth is made of it, so that it says nothing of other formulas.

    >>> from diffusion_math.testing import FormulaCheck
    >>> FormulaCheck("betas", "1 - abar_t / abar_s", lambda: None)()
    """

    name: str
    formula: str
    run: Callable[[], None] | None
    reason: str = ""
    is_source: bool = False

    def __call__(self) -> None:
        if self.run is None:
            warnings.warn(f"{self.name}: not checked: {self.reason}", UncheckedWarning, 2)
        else:
            self.run()

    def __str__(self) -> str:
        return self.name


@final
@dataclass(frozen=True)
class FormulaChecks(Sequence[FormulaCheck]):
    """What was found of an object, one check a table or method; printed, a table of them.

    Attributes:
        subject: the object's class.
        noise: where its noise levels are from, and its times.
        checks: in the order of the object's names.

    >>> from diffusion_math.testing import FormulaChecks
    >>> len(FormulaChecks("Diffusion", "no table", ()))
    0
    """

    subject: str
    noise: str
    checks: tuple[FormulaCheck, ...] = field(default=())

    @overload
    def __getitem__(self, index: int) -> FormulaCheck: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[FormulaCheck]: ...
    def __getitem__(self, index: int | slice) -> FormulaCheck | Sequence[FormulaCheck]:
        return self.checks[index]

    def __len__(self) -> int:
        return len(self.checks)

    def __iter__(self) -> Iterator[FormulaCheck]:
        return iter(self.checks)

    def __str__(self) -> str:
        width = max((len(one.name) for one in self.checks), default=0)
        lines = [
            f"  {one.name:{width}}  "
            + (f"not checked: {one.reason}" if one.reason else one.formula)
            for one in self.checks
        ]
        return "\n".join([f"{self.subject}: {self.noise}", *lines])


@checked
def of(
    thing: Any,
    *,
    levels: LevelsOf | None = None,
    times: Iterable[Any] | None = None,
    first: int | None = None,
    predicts: str | None = None,
    skip: Collection[str] = (),
    dtype: torch.dtype = torch.float32,
) -> FormulaChecks:
    """Checks of what an object has: tables and methods, found by name.

    The truth is made from its noise levels: abar_t is its `alphas_cumprod`, or is made of its
    `betas`; or (alpha, sigma) of its `sigmas` and `timesteps`. Methods are given the time of each
    entry. Each check calls an assertion of this package. In a loss of the object's own network,
    ours is in the place of its `model`, `net` or the like.

    Args:
        thing: an instance, or a module; a scheduler or process of diffusers, MONAI, lucidrains,
            guided-diffusion or your own. docs/check-your-code.md lists the names that are known.
        levels: `levels(t) -> (alpha, sigma)`, where its tables do not give them; with `times`.
        times: all its times, from little to much noise.
        first: the time of its tables' first entry: 0, or 1 where times are counted from 1. A
            first entry abar = 1 is of clean data and left out; then the next is of time 1.
        predicts: what its network predicts, "eps", "x0" or "v", where it does not say.
        skip: names that are left out, of those that it has.
        dtype: that of the samples that methods are given.

    Raises ValueError for arguments that are none, or that would not be used, and where the object
    says nothing of its noise levels. A method that is known and
    can't be driven is listed with the reason; its check warns `UncheckedWarning`.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> from diffusion_math import testing
    >>> abar = (1 - torch.linspace(1e-4, 0.02, 100)).cumprod(0)
    >>> def q_sample(x0, t, noise):
    ...     return abar[t].sqrt()[:, None] * x0 + (1 - abar[t]).sqrt()[:, None] * noise
    >>> mine = SimpleNamespace(alphas_cumprod=abar, q_sample=q_sample, step=None)
    >>> print(testing.of(mine))
    SimpleNamespace: times 0 to 99, noise levels of alphas_cumprod
      alphas_cumprod  abar_t, which falls
      q_sample        alpha_t x0 + sigma_t noise
    >>> for check in testing.of(mine):
    ...     check()
    """
    kind = isinstance(thing, type)
    subject = type(thing).__name__ if not kind else thing.__name__
    require(not kind, "thing", f"an instance, such as {subject}()", f"the class {subject}")
    require((levels is None) == (times is None), "levels", "levels and times, or neither", levels)
    wanted = "None where levels are given: these say what each time is"
    require(levels is None or first is None, "first", wanted, first)
    kinds = sorted({*PREDICTIONS.values()})
    require(predicts is None or predicts in kinds, "predicts", f"one of {kinds}", predicts)
    require(not isinstance(skip, str), "skip", "names in a list", repr(skip))
    have = tables(thing)
    table = of_tables(have, first)
    noise = of_sigmas(thing, table) or table
    if levels is not None and times is not None:
        noise = Noise(levels, levels, list(times), "levels")
    if noise is None:
        wanted = "an object with alphas_cumprod, betas, or sigmas and timesteps, or levels="
        raise ValueError(f"thing: wanted {wanted}, got {subject}")
    require(len(noise.times) > 0, "times", "at least one time", "none")
    checks = [*_tables(have, table), *_functions(Case(thing, noise, predicts, dtype))]
    names = [one.name for one in checks]
    unknown = [name for name in skip if name not in (*names, *KNOWN)]
    require(not unknown, "skip", f"names among {', '.join(names)}", ", ".join(map(str, unknown)))
    low, high = noise.times[0], noise.times[-1]
    said = f"times {low:g} to {high:g}, noise levels of {noise.source}"
    return FormulaChecks(subject, said, tuple(one for one in checks if one.name not in skip))


KNOWN = frozenset(
    name
    for names in (*TABLE_NAMES.values(), *(one.names for one in FUNCTIONS), SAMPLERS)
    for name in names
)
"""All names that `of` knows, which an object may have or not."""


def assert_diffusion(thing: Any, **options: Any) -> None:
    """Run every check of `of(thing, **options)`, and tell of all that fail at once.

    Raises MistakeError with the mistakes of all checks, AssertionError where code under test raises
    or returns what is none of its formula, ValueError as `of` does. Warns `UncheckedWarning` where
    there is nothing to compare, only the table that the truth is made of.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> from diffusion_math import testing
    >>> abar = (1 - torch.linspace(1e-4, 0.02, 100)).cumprod(0)
    >>> mine = SimpleNamespace(alphas_cumprod=abar, sqrt_one_minus_alphas_cumprod=1 - abar)
    >>> try:
    ...     testing.assert_diffusion(mine)
    ... except testing.MistakeError as error:
    ...     print(*str(error).splitlines()[:2], sep="; ")
    SimpleNamespace: 1 of 2 formulas wrong; sqrt_one_minus_alphas_cumprod: wrong
    """
    checks = of(thing, **options)
    wrong: list[AssertionError] = []
    for check in checks:
        try:
            check()
        except AssertionError as error:
            wrong.append(error)
    if not wrong:
        if all(check.run is None or check.is_source for check in checks):
            said = f"{checks.subject}: nothing is compared: no name of a formula is known"
            where = "docs/check-your-code.md lists those that are"
            warnings.warn(f"{said} ({where})", UncheckedWarning, 2)
        return
    tried = sum(check.run is not None for check in checks)
    title = f"{checks.subject}: {len(wrong)} of {tried} formulas wrong"
    known = [error for error in wrong if isinstance(error, MistakeError)]
    mistakes = {one.name: one for error in known for one in error.mistakes}
    differences = tuple(one for error in known for one in error.differences)
    together = MistakeError(checks.subject, differences, tuple(mistakes.values()))
    together.args = ("\n".join([title, *(str(error) for error in wrong)]),)
    raise together


def _tables(have: Mapping[str, tuple[str, Tensor]], noise: Noise | None) -> Iterator[FormulaCheck]:
    """Each table against the one that gives the noise levels; that one falls, from 1 to 0."""
    if noise is None:
        return
    for quantity, (name, values) in have.items():
        formula = TABLES[quantity].formula
        if name == noise.source:
            formula += ", which falls" if quantity == "alphas_cumprod" else ", in (0, 1)"
            yield FormulaCheck(name, formula, _levels(name, noise), is_source=True)
        else:
            yield FormulaCheck(name, formula, _table(quantity, name, values, noise))


def _levels(name: str, noise: Noise) -> Callable[[], None]:
    def levels(t: Any) -> tuple[Any, Any]:
        return noise.levels(t)

    levels.__name__ = name
    return lambda: assert_schedule(levels, noise.times, path="variance-preserving")


def _table(quantity: str, name: str, values: Tensor, noise: Noise) -> Callable[[], None]:
    def run() -> None:
        without = len(values) == len(noise.times)  # no entry of clean data, unlike the source
        entries = values if without else values[noise.skipped :]
        assert len(entries) == len(noise.times), (
            f"{name}: wanted {len(noise.times)} entries, as many as {noise.source}, "
            f"got {len(entries)}"
        )
        try:
            assert_table(entries, noise.levels, noise.times, quantity)
        except MistakeError as error:
            error.args = (f"{name}, {error}" if name != quantity else str(error),)
            raise

    return _safe(name, run)


def _functions(case: Case) -> Iterator[FormulaCheck]:
    try:
        Levels.read(case.noise.levels, case.noise.times)
        unread = ""
    except ValueError as error:
        unread = f"its noise levels are not read from {case.noise.source} ({error})"
    for function in FUNCTIONS:
        for name in function.names:
            if callable(found(case.thing, name)):
                run = unread or driven(case, function, name)
                if isinstance(run, str):
                    yield FormulaCheck(name, function.formula, None, run)
                else:
                    yield FormulaCheck(name, function.formula, _safe(name, run))
    for name in SAMPLERS:
        if callable(found(case.thing, name)):
            yield FormulaCheck(name, "a sample", None, "a sampler, which `audit` checks")


def _safe(name: str, run: Callable[[], None]) -> Callable[[], None]:
    """Levels that are none are the object's: an AssertionError."""

    def call() -> None:
        try:
            run()
        except ValueError as error:
            raise AssertionError(f"{name}: {error}") from None

    return call
