"""The learned score's divergence, the walks, and the experiment `reverse` in a few updates."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion_math import prediction
from diffusion_math.densities.toy import ring
from diffusion_math.metrics import Estimate, energy_distance
from diffusion_math.schedule import VPLinear
from experiments.reverse import claims
from experiments.reverse import run as reverse
from experiments.reverse.learned_score import TARGETS, Learned, curve, relative
from experiments.reverse.sampling import (
    EXACT,
    KERNELS,
    LEARNED,
    SamplingError,
    SamplingErrors,
    sample_by_gaussian_steps,
    sampling_errors,
)
from tests.support.result_schema import check

SCHEDULE, DATA = VPLinear(), ring()
TINY = reverse.Config(steps=16, batch=8, width=4, walks=(2, 4), samples=100, frames=3)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def known(target: str, change: Callable[[Tensor], Tensor] = lambda value: value) -> Learned:
    """What a perfect network of that target would be, or one changed in its output."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        # One time a row, as float32; the exact value is asked for at each.
        x0 = DATA.posterior_mean(SCHEDULE, x, t.double())
        given: Any = {"x0": lambda *_: x0, "score": prediction.score_from_x0}
        view = given.get(target) or getattr(prediction, f"{target}_from_x0")
        return change(view(SCHEDULE, x, x0, t.double()))

    return Learned(SCHEDULE, network, target)  # type: ignore[arg-type]


def test_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "EXAMPLES", 0)  # as if these few were enough to decide
    result = reverse.run(TINY)
    check(result, "reverse")
    verdicts = {row.name: row.verdict for row in result.rows}
    # Sixteen updates learn nothing.
    assert verdicts["reverse"] == "does not hold"
    assert verdicts["reverse-learned"] != "holds"
    (animation,) = (one for one in result.figures if one.name == "reverse.gif")
    assert Image.open(io.BytesIO(animation.image)).n_frames == TINY.frames


@pytest.mark.parametrize("target", TARGETS)
def test_a_perfect_network_misses_nothing(target: str) -> None:
    """The time reaches a network as float32: 1e-7 of t, of the order of its square in the ratio."""
    assert relative(known(target), DATA, seeded(0), 20, times=20).value < 1e-8


@pytest.mark.parametrize("target", ["eps", "score"])
def test_a_wrong_sign_is_missed_four_times(target: str) -> None:
    """The printed form of E8, S = +eps / sigma: norm(2 S)^2 / norm(S)^2 = 4; no score at all: 1."""
    flipped = relative(known(target, torch.neg), DATA, seeded(0), 20, times=20)
    assert flipped.value == pytest.approx(4, abs=1e-5)
    nothing = relative(known(target, torch.zeros_like), DATA, seeded(0), 20, times=20)
    assert nothing.value == pytest.approx(1, abs=1e-9)
    missed = dict.fromkeys(TARGETS, flipped)
    row = claims.divergence(missed, {1: flipped, 2: flipped})[0]
    assert (row.name, row.verdict) == ("reverse", "does not hold")


def test_a_shifted_score_is_off_by_the_shift() -> None:
    points = curve(known("score", lambda s: s + 0.5), DATA, [0.01, 0.3, 1.0], seeded(0), 50)
    for point in points:
        # float32 times again, on a score of up to 30.
        assert point.divergence == pytest.approx(0.5, abs=2e-3)


def test_the_walks_with_a_perfect_network_are_the_exact_ones() -> None:
    found = sampling_errors(DATA, known("eps"), (3, 6), 100, 0)
    exact, learned = found.of(EXACT), found.of(LEARNED)
    assert list(found.of(KERNELS)) == [3, 6]
    for steps in (3, 6):
        assert learned[steps].value == pytest.approx(exact[steps].value, abs=1e-4)


def test_a_score_of_the_wrong_sign_leaves_the_data() -> None:
    z = torch.randn(200, 2, generator=seeded(1), dtype=torch.float64)
    grid = torch.linspace(1, 0, 21, dtype=torch.float64)
    fresh = DATA.sample(seeded(2), 200)
    right, wrong = (
        energy_distance(
            sample_by_gaussian_steps(SCHEDULE, one.denoiser(), z, grid, seeded(3))[-1], fresh
        ).value
        for one in (known("eps"), known("eps", torch.neg))
    )
    assert right < 0.1 < 10 < wrong


def test_the_rows_can_fail() -> None:
    def sampling(learned: float, exact: float, kernels: float) -> dict[str, str]:
        distance = {LEARNED: learned, EXACT: exact, KERNELS: kernels}
        each = tuple(
            SamplingError(method, n, Estimate(v, 1e-4))
            for method, v in distance.items()
            for n in (5, 50)
        )
        found = SamplingErrors(each, Estimate(0.0, 1e-4), Estimate(0.4, 1e-4))
        return {row.name: row.verdict for row in claims.sampling(found)}

    good = sampling(0.01, 0.005, 0.0)
    assert {good[f"reverse-{k}"] for k in ("learned", "exact", "gaussian")} == {"holds"}
    bad = sampling(0.3, 0.2, 0.3)
    assert {bad[f"reverse-{k}"] for k in ("learned", "exact", "gaussian")} == {"does not hold"}
    low, high = Estimate(0.01, 1e-4), Estimate(0.2, 1e-4)
    rows = claims.divergence({"eps": low, "score": high}, {1: low, 2: high})
    verdicts = {row.name: row.verdict for row in rows}
    assert verdicts["reverse"] == "holds"
    assert verdicts["reverse-targets"] == verdicts["reverse-updates"] == "does not hold"
