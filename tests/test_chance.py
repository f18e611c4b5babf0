"""The declarations of chance add up; its bounds hold what they promise, beside exact laws."""

import ast
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from scipy import stats

from tests import flaky
from tests.support import chance
from tests.support.chance import Cells, Count, Distance, Mean
from tests.support.distribution import Law, independent, line, mixed, uniform

TESTS = Path(__file__).parent
TOTAL = 1e-6
"""Of the whole suite: it fails by chance once in a million runs, or less often."""
STATISTICS = {
    "anderson",
    "binomtest",
    "chisquare",
    "hypergeom",
    "isf",
    "ks_1samp",
    "ks_2samp",
    "kstest",
    "normaltest",
    "pvalue",
    "spend",
    "ttest_1samp",
    "ttest_ind",
}
"""Names that a test uses to judge draws; those of tests/support/chance.py spend by themselves."""


@dataclass(frozen=True)
class Declared:
    """A test's mark: its rate and alternative, and the source of the whole test."""

    test: str
    rate: float
    against: str
    node: ast.FunctionDef


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every test function of the suite, by its node id."""
    for path in sorted(TESTS.rglob("test_*.py")):
        name = path.relative_to(TESTS.parent).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{name}::{node.name}", node


def marks(node: ast.FunctionDef) -> list[ast.Call]:
    """The marks `chance(...)` of a test."""
    return [
        one
        for one in node.decorator_list
        if isinstance(one, ast.Call) and ast.unparse(one.func) == "pytest.mark.chance"
    ]


def declared() -> list[Declared]:
    found = []
    for test, node in functions():
        for mark in marks(node):
            rate, against = (ast.literal_eval(one) for one in mark.args)
            found.append(Declared(test, rate, against, node))
    return found


def names(node: ast.AST) -> set[str]:
    """All that is called or read by name within."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return names | {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}


def test_the_suite_fails_by_chance_once_in_a_million_runs_at_most() -> None:
    """By the union bound; what each test spends is compared with its mark as it runs."""
    rates = [one.rate for one in declared()]
    assert len(rates) > 25
    assert all(0 < rate <= 1e-7 for rate in rates)
    assert math.fsum(rates) <= TOTAL


def test_every_monte_carlo_test_names_an_alternative_and_shows_that_it_is_rejected() -> None:
    """`assert rare(...)` of a computed number: the alternative passes 1e-9 of the time at most."""
    for one in declared():
        assert isinstance(one.against, str) and len(one.against.split()) > 1, one.test
        shown = [
            call
            for line in ast.walk(one.node)
            if isinstance(line, ast.Assert)
            for call in ast.walk(line.test)
            if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "rare"
        ]
        assert shown, f"{one.test}: wanted assert rare(...)"
        assert not any(isinstance(call.args[0], ast.Constant) for call in shown), one.test


def test_what_judges_draws_is_marked() -> None:
    """A test that asks scipy for a tail, a p-value or a quantile of chance declares its rate.

    The bounds of tests/support/chance.py need no look at the source: unmarked, they fail at once.
    Exempt are the tests of such laws themselves, on numbers written down.
    """
    exempt = (
        "tests/test_chance.py",
        "tests/experiments/test_statistics.py",
        "tests/experiments/test_densities.py::test_chi_square_keeps_its_rate",
        "tests/test_claims_practice.py::test_upper_end_is_students",
    )
    unmarked = [
        test
        for test, node in functions()
        if not marks(node)
        and not test.startswith(exempt)
        and (names(node) - {one.arg for one in node.args.args}) & STATISTICS
    ]
    assert unmarked == []


def test_a_normal_law_of_an_estimate_is_taken_by_two_tests_alone() -> None:
    """Those that docs/decisions.md names; all other bounds hold for finite samples."""
    normal = [one.test for one in declared() if "norm" in names(one.node)]
    file = "tests/test_claims_families.py::test_"
    assert [test.removeprefix(file)[:4] for test in normal] == ["c01_", "c31_"]


def test_seeds_move_with_the_suites_and_pinned_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """SUITE_SEED = 0 leaves a seed as it is; no two suite seeds share one below the stride."""
    monkeypatch.setattr(chance, "SUITE_SEED", 0)
    assert chance.shifted(7) == 7
    first = torch.randn(3, generator=chance.seeded(7))
    assert first.equal(torch.randn(3, generator=chance.pinned(7)))
    monkeypatch.setattr(chance, "SUITE_SEED", 3)
    assert chance.shifted(7) == 7 + 3 * chance.STRIDE
    assert not first.equal(torch.randn(3, generator=chance.seeded(7)))
    assert first.equal(torch.randn(3, generator=chance.pinned(7)))
    assert chance.rng(1).integers(2**60) != chance.np.random.default_rng(1).integers(2**60)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests' bounds spend is nobody's: they judge no draw."""
    monkeypatch.setattr(chance, "LEDGER", chance.Ledger(account="nobody"))


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize("n", [50, 4000])
@pytest.mark.parametrize("rate", [1e-3, 1e-9])
def test_a_mean_of_normals_and_of_squares_keeps_its_bound(n: int, rate: float) -> None:
    """Beside the exact laws of both means: the bound is one, and not much too cautious."""
    bound = Mean(line(), n, rate)
    assert bound.high == pytest.approx(math.sqrt(2 * math.log(2 / rate) / n), rel=1e-9)
    tail = 2 * stats.norm.sf(bound.high * math.sqrt(n))
    assert rate / 20 < tail < rate
    squares = line().of(torch.square)
    bound = Mean(squares, n, rate)
    above, below = stats.chi2.sf(n * bound.high, n), stats.chi2.cdf(n * bound.low, n)
    assert rate / 100 < above < rate / 2 and rate / 100 < below < rate / 2
    wider = squares.of(lambda value: 2.5 * value)
    passes = stats.chi2.cdf(n * bound.high / 2.5, n)
    assert passes <= bound.misses(wider) <= 1000 * passes
    assert bound.misses(squares) == 1.0


@pytest.mark.usefixtures("free")
def test_a_mean_of_few_values_ends_at_the_largest() -> None:
    """Ten coins at a rate below 2^-10: no mean is excluded; a single value leaves no room."""
    coin = Law(torch.tensor([0.0, 1.0]).double(), torch.tensor([0.5, 0.5]).double())
    bound = Mean(coin, 10, 1e-9)
    assert (bound.low, bound.high) == (pytest.approx(0.0, abs=1e-6), pytest.approx(1.0, abs=1e-6))
    assert Mean(coin, 1000, 1e-9).high * 1000 >= stats.binom.isf(5e-10, 1000, 0.5)


def test_laws_have_the_moments_they_are_said_to_have() -> None:
    assert line().mean == pytest.approx(0, abs=1e-15)
    assert line().of(lambda z: z**4).mean == pytest.approx(3, rel=1e-12)
    assert uniform(1, 3).of(torch.square).mean == pytest.approx(13 / 3, rel=1e-6)
    weights, means, variances = torch.tensor([[0.25, 0.75], [1.0, -2.0], [0.5, 2.0]]).double()
    of_two = mixed(weights.log(), means, variances)
    assert of_two.mean == pytest.approx(-1.25, rel=1e-12)
    assert of_two.of(torch.square).mean == pytest.approx(0.25 * 1.5 + 0.75 * 6, rel=1e-12)
    product = independent(line(9, 301), line(9, 301), torch.mul)
    assert product.of(torch.square).mean == pytest.approx(1, rel=1e-9)


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(("n", "rate"), [(100, 1e-2), (4000, 1e-9)])
def test_a_distance_keeps_massarts_bound(n: int, rate: float) -> None:
    """Beside Kolmogorov's own law; the statistic is scipy's."""
    bound = Distance(n, rate)
    tail = stats.kstwo.sf(bound.limit, n)
    assert rate / 2 < tail <= rate
    at = torch.linspace(0.05, 1, 40, dtype=torch.float64).square()
    wanted = stats.kstest(at.numpy(), "uniform").statistic
    assert Distance.between(at) == pytest.approx(wanted, rel=1e-12)
    assert bound.misses(bound.limit) == 2 and bound.misses(1.0) < 1e-6


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize("p", [0.01, 0.5, (0.3, 0.4)])
def test_a_count_keeps_its_bound_exactly(p: float | tuple[float, float]) -> None:
    """The binomial probability outside, by summing its terms."""
    n, rate = 2000, 1e-6
    bound = Count(n, p, rate)
    for one in p if isinstance(p, tuple) else (p,):
        inside = sum(stats.binom.pmf(k, n, one) for k in range(n + 1) if bound.holds(k))
        assert 1 - inside <= rate
    assert bound.misses(0.9) < 1e-9


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(("right", "trials"), [(0, 50), (7, 50), (50, 50)])
def test_what_is_known_by_earlier_trials_is_scipys_exact_interval(right: int, trials: int) -> None:
    wanted = stats.binomtest(right, trials).proportion_ci(1 - 1e-3, method="exact")
    assert chance.known(right, trials, 1e-3) == pytest.approx((wanted.low, wanted.high), rel=1e-9)


@pytest.mark.usefixtures("free")
def test_pearsons_sum_keeps_its_bound() -> None:
    """Beside the asymptotic law where it holds, and beside every outcome where it does not.

    Ten draws over three cells of 5, 4 and 1: enumerated. 500 expected in each of 100 cells: the
    limit lies above the 1e-9 quantile of chi-square with 99 degrees, by a fifth at most.
    """
    bound = Cells(torch.full((100,), 500.0, dtype=torch.float64), 1e-9)
    assert 1 < bound.limit / stats.chi2.isf(1e-9, 99) < 1.2
    few = Cells(torch.tensor([5.0, 4.0, 1.0]).double(), 1e-3)
    outside = 0.0
    for a in range(11):
        for b in range(11 - a):
            counts = torch.tensor([a, b, 10 - a - b]).double()
            chance_of = stats.multinomial.pmf([a, b, 10 - a - b], 10, [0.5, 0.4, 0.1])
            outside += 0.0 if few.holds(counts) else float(chance_of)
    assert outside <= 1e-3
    shifted = bound.expected.clone()
    shifted[:50] += 100
    shifted[50:] -= 100
    assert bound.misses(shifted) < 1e-9 and bound.misses(bound.expected) == 1.0


def test_spending_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds, each further yes, and alternatives that may pass; what is not rare is told."""
    ledger = chance.Ledger(account="mine")
    monkeypatch.setattr(chance, "LEDGER", ledger)
    Count(10, 0.5, 1e-3)
    assert chance.rare(1e-10) and not chance.rare(1e-8)
    assert ledger.spent["mine"] == pytest.approx(1e-3 + 1e-10 + 1e-8)
    again = Distance(10, 1e-4)
    draws = torch.linspace(0, 1, 10, dtype=torch.float64)
    before = ledger.spent["mine"]
    assert again.holds(draws) and not again.holds(torch.zeros(10))
    assert ledger.spent["mine"] == before  # the first yes is paid for, and a no costs nothing
    assert again.holds(draws) and again.holds(draws)
    assert ledger.spent["mine"] == pytest.approx(before + 2e-4)
    ledger.account = None
    with pytest.raises(RuntimeError, match="not while tests are found"):
        Count(10, 0.5, 1e-3)


FICKLE = """
from tests.support.chance import shifted

def test_fickle():
    assert shifted(0) < 3 * 1_000_003, "not under this seed"
"""


@pytest.mark.slow
def test_the_run_under_many_seeds_finds_what_one_seed_hides(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A test that fails under seed 3 alone is named; the other files are left out from there on."""
    (tmp_path / "test_fickle.py").write_text(FICKLE, encoding="utf-8")
    (tmp_path / "test_firm.py").write_text("def test_firm():\n    pass\n", encoding="utf-8")
    assert flaky.main(["--seeds", "3", "--out", str(tmp_path / "table.json"), str(tmp_path)]) == 1
    said = capfd.readouterr().out
    assert "of 2 tests 1 can depend on a seed" in said
    assert "test_fickle.py::test_fickle" in said
    table = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert [(run["seed"], run["passed"], len(run["failed"])) for run in table] == [
        (1, 2, 0), (2, 2, 0), (3, 0, 1),
    ]  # fmt: skip
