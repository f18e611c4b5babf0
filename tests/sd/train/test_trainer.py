"""The training loop: what it minimises, what it averages, and that a kill changes nothing."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sd.train.trainer import fit, learning_rate
from tests.support.linear_training import SETTINGS, batch, loss, module


class KilledError(Exception):
    """Stands for the signal that ends a training run."""


def test_a_run_killed_at_any_step_ends_with_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    whole = fit(module(), batch, loss, replace(SETTINGS, out=tmp_path / "whole"))

    def fatal(step: int) -> tuple[Tensor, Tensor]:
        if step == 27:
            raise KilledError
        return batch(step)

    settings = replace(SETTINGS, out=tmp_path / "killed")
    with pytest.raises(KilledError):
        fit(module(), fatal, loss, settings)
    resumed = fit(module(), batch, loss, settings)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    finished = fit(module(), fatal, loss, settings)
    assert all(torch.equal(whole[name], finished[name]) for name in whole)


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    one = fit(module(), batch, loss, replace(SETTINGS, out=tmp_path / "one"))
    two = fit(module(), batch, loss, replace(SETTINGS, out=tmp_path / "two", seed=1))
    assert not torch.equal(one["weight"], two["weight"])


def test_the_loss_falls_to_that_of_the_true_map(tmp_path: Path) -> None:
    fit(module(), batch, loss, replace(SETTINGS, steps=400, out=tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] > 1.0
    assert lines[-1]["loss"] < 5e-3  # the jitter alone costs 1e-4 * |weights|^2 = 5.25e-4


def test_what_is_returned_is_the_moving_average(tmp_path: Path) -> None:
    """average_n = k average + (1 - k) weights with k = min(ema, n / (n + 10)), by hand."""
    settings = replace(SETTINGS, steps=3, out=tmp_path, checkpoint_every=1)
    found = fit(module(), batch, loss, settings)
    expected = module().weight.detach().clone()
    for steps in (1, 2, 3):
        folder = tmp_path / str(steps)
        fit(module(), batch, loss, replace(settings, steps=steps, out=folder, learning_rate=0.05))
        state = torch.load(folder / "checkpoint.pt", weights_only=True)
        keep = min(settings.ema, steps / (steps + 10.0))
        expected = keep * expected + (1 - keep) * state["module"]["weight"]
    assert torch.allclose(found["weight"], expected, rtol=0, atol=1e-6)


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_step(tmp_path: Path) -> None:
    def broken(m: nn.Module, examples: tuple[Tensor, Tensor], g: torch.Generator):
        return {"loss": loss(m, examples, g)["loss"] * float("nan")}

    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        fit(module(), batch, broken, replace(SETTINGS, out=tmp_path))


@pytest.mark.parametrize("steps", [6, 40, 1000])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(steps: int) -> None:
    settings = replace(SETTINGS, steps=steps)
    rates = [learning_rate(settings, step) for step in range(steps + 1)]
    assert rates[0] == pytest.approx(settings.learning_rate / settings.warmup)
    assert max(rates) == rates[settings.warmup] == settings.learning_rate
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    middle = settings.warmup + (steps - settings.warmup) / 2
    if middle == int(middle):
        assert rates[int(middle)] == pytest.approx(settings.learning_rate / 2)
    assert all(math.isfinite(rate) and rate >= -1e-12 for rate in rates)
