"""Steps of the optimiser and the averaged weights, by hand; what an evaluation sees and leaves."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sd.train import trainer
from sd.train.trainer import Training

TARGET = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
CURVES = (0.1, 5.0, 0.02, 40.0, 1.0, 0.3, 7.0)  # gradients short and long: some are clipped


class Point(nn.Module):
    """Three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.3, 0.1, -0.7], dtype=torch.float64))


def loss(module: nn.Module, curve: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    return {"loss": curve * 0.5 * (module.w - TARGET).square().sum()}


def by_hand(steps: int, peak: float, warmup: int, decay: float, ema: float) -> list[list[Tensor]]:
    """The weights and their average after each step, by the formulas of the papers.

    AdamW: Loshchilov & Hutter, arXiv:1711.05101, algorithm 2, with beta = 0.9, 0.999 and
    eps = 1e-8; the gradient is scaled to norm 1 if it is longer. The rate rises linearly to its
    peak over the first steps and falls as half a cosine.
    """
    w = Point().w.detach().clone()
    average, m, v, found = w.clone(), torch.zeros_like(w), torch.zeros_like(w), []
    for n in range(1, steps + 1):
        done = (n - 1 - warmup) / (steps - warmup)
        rate = peak * (n / warmup if n <= warmup else (1 + math.cos(math.pi * done)) / 2)
        g = CURVES[n - 1] * (w - TARGET)
        g = g / max(1.0, float(g.norm()) + 1e-6)  # as torch's clip_grad_norm_, which adds 1e-6
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.square()
        direction = (m / (1 - 0.9**n)) / ((v / (1 - 0.999**n)).sqrt() + 1e-8)
        w = w - rate * decay * w - rate * direction
        keep = min(ema, n / (n + 10))
        average = keep * average + (1 - keep) * w
        found.append([w, average])
    return found


def test_steps_and_averages_are_those_of_the_papers(tmp_path: Path) -> None:
    """Seven steps in double precision, to rounding; an evaluation sees the average at every one.

    After an evaluation the run goes on with the weights, not their average.
    """
    seen, module = [], Point()
    settings = {"learning_rate": 0.2, "warmup": 3, "weight_decay": 0.3, "ema": 0.25}
    training = Training(
        steps=7, batch_size=1, out=tmp_path, checkpoint_every=1, bfloat16=False, cpu=True,
        **settings,
    )  # fmt: skip

    def evaluate(point: nn.Module) -> dict[str, float]:
        seen.append(point.w.detach().clone())
        return {}

    def batch(step: int) -> Tensor:
        return torch.tensor(CURVES[step], dtype=torch.float64)

    kept = trainer.fit(module, batch, loss, training, evaluate)
    wanted = by_hand(7, 0.2, 3, 0.3, 0.25)
    assert len(seen) == 7
    for found, (_, average) in zip(seen, wanted, strict=True):
        assert torch.allclose(found, average, rtol=1e-12, atol=1e-12)
    assert torch.allclose(kept["w"], wanted[-1][1], rtol=1e-12, atol=1e-12)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert torch.allclose(state["module"]["w"], wanted[-1][0], rtol=1e-12, atol=1e-12)
    assert torch.allclose(module.w.detach(), wanted[-1][0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("on", [True, False])
def test_products_are_in_bfloat16_where_asked_and_weights_never(on: bool, tmp_path: Path) -> None:
    training = Training(
        steps=2, batch_size=1, learning_rate=0.1, out=tmp_path, warmup=1, bfloat16=on, cpu=True
    )
    kinds = set()

    def watched(module: nn.Module, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        y = module(x)
        kinds.add(y.dtype)
        return {"loss": y.float().square().mean()}

    found = trainer.fit(nn.Linear(2, 1), lambda step: torch.ones(1, 2), watched, training)
    assert kinds == {torch.bfloat16 if on else torch.float32}
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_the_generator_is_that_of_the_seed_and_the_step(tmp_path: Path) -> None:
    """No two steps, and no two seeds, draw the same; the same step of the same seed does."""
    drawn: dict[tuple[int, int], float] = {}
    for seed in (0, 1, 999_999_999):

        def noted(module: nn.Module, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            drawn[seed, int(x)] = float(torch.rand((), generator=generator))  # noqa: B023
            return {"loss": module.w.square().sum()}

        training = Training(
            steps=3, batch_size=1, learning_rate=0.1, out=tmp_path / str(seed), warmup=1,
            seed=seed, bfloat16=False, cpu=True,
        )  # fmt: skip
        trainer.fit(Point(), torch.tensor, noted, training)
    assert len(set(drawn.values())) == 9
    for (seed, step), value in drawn.items():
        wanted = torch.Generator().manual_seed(seed * 1_000_003 + step)
        assert value == float(torch.rand((), generator=wanted))
