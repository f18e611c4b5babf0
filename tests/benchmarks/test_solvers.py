"""The solvers' rows: what diffusers computes, and a run with nothing kept."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from benchmarks import solvers
from benchmarks.compare import Row, require_agreement
from diffusion_math.solvers.registry import SOLVERS

pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")  # of diffusers
    for kind in ("FutureWarning", "DeprecationWarning")
]
SHAPE = (2, 4, 8, 8)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def difference(name: str) -> float:
    ours, theirs, _ = solvers.sides(name, SHAPE)
    x, y = ours(), theirs()
    assert torch.equal(x, ours()) and torch.equal(y, theirs())  # a later run is the same
    require_agreement(name, x, y, solvers.PEERS[name].tolerance)
    return float((x - y).abs().max() / y.abs().max())


@pytest.mark.parametrize("name", solvers.PEERS)
def test_the_two_sides_agree_or_the_row_says_by_what_they_differ(name: str) -> None:
    peer, found = solvers.PEERS[name], difference(name)
    if peer.differs:
        assert found > 5 * solvers.ROUNDED and peer.name.endswith(f", {peer.differs}")
        assert found > peer.tolerance / 10  # no wider than it must be
    else:
        assert peer.tolerance == solvers.ROUNDED and "," not in peer.name


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("ddim", "heun"), ("ddpm", "ddpm_large"), ("dpmpp_2m", "unipc"), ("dpmpp_2m_sde", "ddpm")],
)
def test_another_solver_is_noticed(name: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, name, replace(SOLVERS[wrong]))
    with pytest.raises(ArithmeticError, match="results differ"):
        difference(name)


def test_the_first_run_has_nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row calls `forget` before each turn; the row of a later run never does."""
    called: list[str] = []
    monkeypatch.setattr(solvers, "forget", lambda: called.append("forget"))
    monkeypatch.setattr(solvers, "EVENTS", {"small": SHAPE})
    names: dict[str, list[Row]] = {
        name: list(solvers._rows(name, "small", 2)) for name in ("euler", "ddim")
    }
    assert [row.name for row in names["euler"]] == ["a step of euler, a later run, small"]
    assert [row.name for row in names["ddim"]] == [
        "a step of ddim, a later run, small",
        "a step of ddim, the first run, small",
    ]
    assert len(called) == 2 * 2
    assert set(solvers.FIRST) <= set(solvers.PEERS)
