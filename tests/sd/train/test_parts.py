"""A batch in parts is the whole batch to rounding; previews, and TensorBoard beside the log."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sd.processes import Process
from sd.train import clip
from sd.train.settings import Training
from sd.train.shard import Shard, fair
from sd.train.trainer import fit
from tests.sd.train import ranks
from tests.support import linear_training

FEW = replace(linear_training.SETTINGS, steps=4, warmup=1, log_every=1, checkpoint_every=2)


def parted(
    module: nn.Module,
    examples: tuple[Tensor, Tensor],
    generator: torch.Generator,
    shard: Shard = Shard(),  # noqa: B008
) -> dict[str, Tensor]:
    """As `linear_training.loss`, drawn for the whole batch."""
    x, y = examples
    drawn = shard.drawn(lambda n: torch.randn(n, 3, generator=generator), len(x))
    return {"loss": (module(x + 0.5 * drawn) - y).square().mean()}


def unshared(*given: Any, shard: Shard = Shard()) -> dict[str, Tensor]:  # noqa: B008
    """Each part draws the same numbers: a mistake."""
    return parted(*given)


def trained(folder: Path, loss: Any = parted, **changed: Any) -> tuple[Tensor, list[float]]:
    """The averaged weights, and the losses in the log."""
    settings = replace(FEW, out=folder, **changed)
    found = fit(linear_training.module(), linear_training.batch, loss, settings)
    return torch.cat([value.flatten() for value in found.values()]), ranks.losses(folder)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_a_batch_in_parts_is_the_batch_to_rounding(parts: int, tmp_path: Path) -> None:
    whole, losses = trained(tmp_path / "whole")
    found, others = trained(tmp_path / "parts", accumulate=parts)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)
    assert others == pytest.approx(losses, rel=1e-5)
    wrong, _ = trained(tmp_path / "wrong", unshared, accumulate=parts)
    assert float((wrong - whole).norm()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vae", "unet"])
def test_networks_train_in_parts_as_on_the_whole_batch(kind: str, tmp_path: Path) -> None:
    """The mean gradients and losses of four steps, as of two processes."""
    ranks.train(kind, tmp_path / "whole", 4)
    ranks.train(kind, tmp_path / "parts", 4, parts=4)
    assert ranks.apart(tmp_path / "parts", tmp_path / "whole") < 1e-4


def test_a_batch_has_equal_parts(tmp_path: Path) -> None:
    settings = replace(FEW, out=tmp_path, accumulate=3)
    with pytest.raises(ValueError, match=r"--batch-size: wanted a multiple of --accumulate 3, got"):
        fair(settings, 1)
    with pytest.raises(ValueError, match=r"--accumulate 2 in each of 8 processes, got 8"):
        fair(replace(settings, accumulate=2), 8)


def test_contrastive_pairs_have_no_parts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^--clip.accumulate: wanted a whole number"):
        clip.CLIPTraining(out=tmp_path, accumulate=2).check()


def test_parts_are_of_all_processes(tmp_path: Path) -> None:
    """Two processes of two parts each: every example once, in order."""
    whole = torch.arange(8)
    for rank in range(2):
        shard = Shard(Process(rank, 2))
        own = whole[shard.of(8)]
        for some, part in shard.parts((own,), 2):
            assert torch.equal(some[0], whole[part["shard"].of(8)])
            assert torch.equal(part["shard"].drawn(torch.arange, 2), some[0])


def test_a_preview_sees_the_average_and_leaves_the_weights(tmp_path: Path) -> None:
    """Every third step and the last one."""
    seen: list[tuple[int, Tensor]] = []

    def show(module: nn.Module, step: int) -> None:
        seen.append((step, module.weight.detach().clone()))

    settings: Training = replace(FEW, out=tmp_path / "shown")
    given = linear_training.module(), linear_training.batch, parted, settings
    average = fit(*given, preview=(3, show))
    assert [step for step, _ in seen] == [3, 4]
    assert torch.equal(seen[-1][1], average["weight"])
    plain, _ = trained(tmp_path / "plain")
    assert torch.equal(torch.cat([value.flatten() for value in average.values()]), plain)


def test_tensorboard_has_the_figures_of_the_log(tmp_path: Path) -> None:
    """A run that is interrupted and resumed shows every step once."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = replace(FEW, out=tmp_path, tensorboard=True)

    def stop(step: int) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return linear_training.batch(step)

    with pytest.raises(KeyboardInterrupt):
        fit(linear_training.module(), stop, parted, settings)
    fit(linear_training.module(), linear_training.batch, parted, settings)
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    found = [(one.step, one.value) for one in shown.Scalars("loss")]
    lines = [json.loads(one) for one in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [step for step, _ in found] == [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [value for _, value in found] == pytest.approx([line["loss"] for line in lines])
