"""Libraries of lucidrains: what is sound is found sound, and each finding is found."""

import importlib

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries as they are imported


def defects(library: str) -> tuple[set[tuple[str, str]], int]:
    """The names and checks that have a defect, and how many rows are sound."""
    module = importlib.import_module(f"experiments.audit.peers.{library.replace('-', '_')}")
    rows = [row for one in module.subjects(quick=True) for row in one.audit().rows]
    wrong = {(row.sampler, row.check) for row in rows if row.verdict == "defect"}
    return wrong, sum(row.verdict == "sound" for row in rows)


def test_ema_pytorch() -> None:
    pytest.importorskip("ema_pytorch")
    wrong, sound = defects("ema-pytorch")
    widths = {("PostHocEMA", f"sigma_rel {wanted:g}") for wanted in (0.05, 0.15, 0.28)}
    assert wrong == {("KarrasEMA", "average"), *widths}
    assert sound == 21
