"""What the launcher's variables say, and which examples are whose."""

from pathlib import Path

import pytest
import torch

from sd.processes import ALONE, Process, launched
from sd.train.shard import WHOLE, Shard, fair, joined
from sd.train.vae import VAETraining

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def given(patch: pytest.MonkeyPatch, *values: str) -> None:
    for name in NAMES:
        patch.delenv(name, raising=False)
    for name, value in zip(NAMES, values, strict=False):
        patch.setenv(name, value)


def test_a_process_is_what_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch)
    assert launched() == ALONE and ALONE.main and joined(cpu=True) is WHOLE
    given(monkeypatch, "5", "8", "1")
    assert launched() == Process(5, 8, 1) and not launched().main


@pytest.mark.parametrize("values", [("x", "2"), ("0", "-1"), ("2", "2"), ("0", "0"), ("", "1")])
def test_what_no_launcher_says_is_refused(
    values: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, *values)
    with pytest.raises(ValueError, match=r"the variable (RANK|WORLD_SIZE): wanted"):
        launched()


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_the_shards_are_the_batch_in_order(processes: int) -> None:
    """Of its examples, and of its random numbers."""
    shards = [Shard(Process(rank, processes)) for rank in range(processes)]
    assert [x for shard in shards for x in list(range(12))[shard.of(12)]] == list(range(12))

    def sample(count: int) -> torch.Tensor:
        return torch.randn(count, 5, generator=torch.Generator().manual_seed(3))

    drawn = [shard.drawn(sample, 12 // processes) for shard in shards]
    assert torch.equal(torch.cat(drawn), sample(12))
    assert [shard.process.main for shard in shards] == [True] + (processes - 1) * [False]


def test_a_batch_that_can_not_be_shared_is_refused() -> None:
    training = VAETraining(batch_size=16, out=Path("out"))
    fair(training, 4)
    with pytest.raises(ValueError, match=r"--vae.batch-size: wanted a multiple of the 3 processes"):
        fair(training, 3)
