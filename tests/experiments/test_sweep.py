"""A sweep gives the same on every executor, in order, and names the unit that fails."""

import math
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import pytest

from experiments.common.sweep import SweepError, cluster, each, processes, swept
from experiments.tuned import run as tuned
from tests.support.tiny_tuned import TINY
from tests.support.units import dies, fails, sample, where

SEEDS = (0, 1, 2, 3, 4)
NONE = type(None)


@contextmanager
def dask() -> Iterator[Executor]:
    """Two workers of a dask scheduler on this machine."""
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as machine,
        cluster(machine.scheduler_address) as executor,
    ):
        yield executor


def test_results_are_in_order_and_begun_one_by_one() -> None:
    seen: list[int] = []

    def work(seed: int) -> int:
        seen.append(seed)
        return -seed

    assert swept(work, SEEDS, None) == [0, -1, -2, -3, -4]
    seen.clear()
    assert [one.value for one in islice(each(work, SEEDS, None), 2)] == [0, -1] and seen == [0, 1]


def test_an_error_names_its_unit_and_a_warning_too() -> None:
    with pytest.warns(UserWarning, match="1: odd"), pytest.raises(SweepError) as caught:
        swept(fails, SEEDS, None)
    assert str(caught.value) == "3: ZeroDivisionError: no way"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_scheduler_that_does_not_answer_is_named() -> None:
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match=r"--scheduler: wanted the address of a dask .* no such"):
        cluster("no such").__enter__()


@pytest.mark.slow
@pytest.mark.parametrize("engine", [processes, dask])
def test_an_executor_gives_what_this_process_gives(engine) -> None:
    """In order, though later units end sooner, from two processes; errors name their units."""
    with engine(2) if engine is processes else engine() as executor:
        assert swept(sample, SEEDS, executor) == swept(sample, SEEDS, None)
        homes = swept(where, SEEDS, executor)
        assert len(set(homes)) == 2 and os.getpid() not in homes
        found = {one.name: one for one in each(fails, SEEDS, executor)}
        assert [type(found[seed].error) for seed in SEEDS] == [*3 * [NONE], ZeroDivisionError, NONE]
        assert found[1].warnings == ("odd",) and not found[2].warnings
        with pytest.raises(SweepError, match=r"^3: ZeroDivisionError: no way$"):
            swept(fails, (0, 2, 3, 4), executor)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [processes, dask])
def test_a_process_that_dies_is_named(engine) -> None:
    with (
        engine(2) if engine is processes else engine() as executor,
        pytest.raises(SweepError, match=r"^[0-4]: (BrokenProcessPool|KilledWorker)"),
    ):
        swept(dies, SEEDS, executor)


def same(a: Any, b: Any) -> bool:
    """Whether all is equal, and numbers up to rounding: workers have fewer threads."""
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=1e-9) or (a != a and b != b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.slow
@pytest.mark.usefixtures("module_unchecked")
def test_tuned_gives_the_same_from_two_workers() -> None:
    """From processes and from dask's workers: every row, and every evaluation in the record."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as machine:
        here, pool, there = (
            tuned.run(replace(TINY, **how))
            for how in ({}, {"workers": 2}, {"scheduler": machine.scheduler_address})
        )
    for other in (pool, there):
        assert same([asdict(row) for row in other.rows], [asdict(row) for row in here.rows])
        assert same(other.data["problems"], here.data["problems"])
