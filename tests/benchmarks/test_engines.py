"""The engines' table: times in turns, the error of a trajectory, and what is read off both."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import engines
from benchmarks.compare import in_turns
from benchmarks.output import BEGIN, END


def test_the_sides_take_turns_after_a_warm_up() -> None:
    called: list[str] = []
    sides = {name: lambda name=name: called.append(name) for name in ("a", "b")}
    spent = in_turns(sides, rounds=2)
    assert called == ["a", "b"] * 3
    assert all(len(pairs) == 2 for pairs in spent.values())
    assert all(wall >= 0 and work >= 0 for pairs in spent.values() for wall, work in pairs)


def test_the_error_of_a_trajectory_is_in_units_of_its_end() -> None:
    """A difference d in every entry of one of two images, against an end of size r."""
    d, r = 0.3, 5.0
    reference = torch.stack(
        [torch.randn(2, 4, 8, 8), torch.ones(2, 4, 8, 8), r * torch.ones(2, 4, 8, 8)]
    )
    path = reference.clone()
    path[1:, 0] += d
    assert engines.trajectory_error(path, reference) == pytest.approx([d / r / math.sqrt(2)] * 2)


def test_the_table_has_a_row_for_each_side() -> None:
    """And no ratio where its quartiles are further apart than a factor of two."""
    pytest.importorskip("nncf")
    time = engines.Time("a pass", engines.HALF, 2.0, 3.0, 0.9, 1.0, 1.1, 1.25)
    noisy = replace(time, what="noisy", low=0.9, ratio=78.0, high=1.9)
    share, errors = (0.5, (0.4, 0.6)), tuple(k / 100 for k in range(1, 26))
    quality = engines.Quality(engines.EIGHT, share, share, 2, 1, (-0.01, 0.02), errors)
    text = "\n".join(engines.lines([time, noisy], [quality]))
    assert f"| a pass | {engines.HALF} | 2 | 3 | 1.00 [0.90, 1.10] | 1.25 |" in text
    assert "inconclusive [0.90, 1.90] |" in text and "78" not in text
    row = f"| {engines.EIGHT} | 0.500 [0.400, 0.600] | 0.500 [0.400, 0.600] | 2, 1 "
    assert f"{row}| [-0.010, +0.020] | 0.01 | 0.05 | 0.15 | 0.25 |" in text


@pytest.mark.parametrize("slow", [False, True])
def test_a_cpu_that_imitates_bfloat16_is_timed_without(
    slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ratios are to OpenVINO's fastest floating point, and 8 bits have that beside them."""
    pytest.importorskip("nncf")
    monkeypatch.setattr(engines, "slow_bfloat16", lambda _: slow)
    dtypes = {name: dtype for name, (_, dtype) in engines.sides().items()}
    assert (engines.HALF in dtypes) is not slow
    assert dtypes[engines.EIGHT] == (torch.float32 if slow else torch.bfloat16)
    networks = dict.fromkeys(dtypes, torch.square)
    times = {one.side: one for one in engines.timed("a pass", networks, (torch.ones(1),), 2)}
    against = engines.FLOAT if slow else engines.HALF
    assert (times[against].ratio, times[against].processor_ratio) == (1.0, 1.0)
    said = "ratio to OpenVINO float32" if slow else "ratio to OpenVINO bfloat16"
    assert any(said in line for line in engines.lines(list(times.values()), []))


def test_a_partial_run_keeps_what_the_last_one_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same machine and versions, else it stops; the page gets both."""
    pytest.importorskip("nncf")
    page = tmp_path / "engines.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n", encoding="utf-8")
    one = engines.Time("one", engines.HALF, 2.0, 3.0, 0.9, 1.0, 1.1, 1.0)
    two = replace(one, what="v1.5 two")
    share = (0.5, (0.4, 0.6))
    quality = engines.Quality(engines.EIGHT, share, share, 0, 0, (0.0, 0.0), (0.1,) * 25)
    monkeypatch.setattr(engines, "_pipeline", lambda *_: None)
    monkeypatch.setattr(engines, "BATCHES", (2,))
    monkeypatch.setattr(engines, "embedded_times", lambda *_: [one])
    monkeypatch.setattr(engines, "qualities", lambda *_: [quality])
    monkeypatch.setattr(engines, "full_size_times", lambda *_: [two])
    engines.run(3, tmp_path, embedded=True, full_size=False)
    engines.run(3, tmp_path, embedded=False, full_size=True)
    text = page.read_text(encoding="utf-8")
    assert all(row in text for row in ("| one |", "| v1.5 two |", f"| {engines.EIGHT} | 0.500"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engines.json", "engines.md"]
    monkeypatch.setattr(engines, "versions", lambda: {"openvino": "1"})
    for parts in ((True, False), (False, True)):
        with pytest.raises(ValueError, match=r"rows of .*engines\.json .*openvino was .*, is 1"):
            engines.run(3, tmp_path, *parts)
    assert page.read_text(encoding="utf-8") == text
    engines.run(3, tmp_path, embedded=False, full_size=True, drop=True)
    assert "| one |" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["engines.json", "engines.md"])
@pytest.mark.parametrize("text", ['{"machine": ', '{"times": [], "qualities": []}', "[]"])
def test_damaged_files_are_named_before_the_work(tmp_path: Path, name: str, text: str) -> None:
    pytest.importorskip("nncf")
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name}: wanted"):
        engines.run(3, tmp_path, embedded=True, full_size=True)


def test_missing_packages_are_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("nncf", "diffusers", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"not installed: diffusers, nncf, openvino; .*\[bench\]"):
        engines.run(3, tmp_path, embedded=True, full_size=True)


def test_verdicts_are_compared_prompt_by_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal totals hide flips: one lost and one gained are said."""

    def drawn(right: set[int]):  # an image is its own verdict
        def pipeline(prompts, seed, progress, watch):
            watch(SimpleNamespace(x=torch.ones(len(prompts), 1)))
            watch(SimpleNamespace(x=torch.ones(len(prompts), 1)))
            return [np.array(one in right) for one in seed]

        return pipeline

    monkeypatch.setattr(engines, "matches_prompt", lambda image, _: bool(image))
    sides = {"reference": drawn({0, 1, 4}), "other": drawn({0, 2, 4})}
    reference, other = engines.qualities(sides, count=3)
    assert (reference.lost, reference.gained) == (0, 0)
    assert (other.lost, other.gained) == (1, 1)
    assert other.seen == reference.seen and other.seen[0] == pytest.approx(2 / 3)
    assert other.difference[0] < 0 < other.difference[1]
