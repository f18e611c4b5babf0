"""Memory, FLOP and traffic of a device in a training step, against the number of devices.

P weights in float32, AdamW, an exponential moving average (EMA) of the weights, gradients averaged
over N devices; products in bfloat16 by autocast, as in `sd.train`.
"""

from dataclasses import dataclass

from benchmarks.scale.network import BACKWARD, flop, saved, weights
from sd.config import UNetConfig

FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Training:
    """A training of a U-Net on latents of side x side, with `tokens` of a prompt.

    Attributes:
        forward: FLOP of a forward pass of one example.
        kept: bytes that one example keeps for the backward pass.
        copies: bytes of the weights in bfloat16, which autocast keeps for the backward pass.
        all, largest, rest: weights, those of the largest block, those outside the blocks.
    """

    forward: int
    kept: int
    copies: int
    all: int
    largest: int
    rest: int

    @classmethod
    def of(cls, config: UNetConfig, side: int, tokens: int) -> "Training":
        """The counts of a network; both of `saved` are linear in the batch."""
        one, two = (saved(config, side, tokens, batch) for batch in (1, 2))
        return cls(flop(config, side, tokens), two - one, 2 * one - two, **weights(config))

    def flop(self, examples: float) -> float:
        """FLOP of a step on that many examples: (1 + 2) times those of the forward pass."""
        return (1 + BACKWARD) * self.forward * examples

    def state(self, devices: int, sharded: bool) -> float:
        """Bytes of weights, gradients, AdamW's two moments and the average of the weights.

        Every device holds all of them, 4 P (1 + 1 + 2 + 1), and `DistributedDataParallel` another
        4 P of buckets; or with FSDP (ZeRO's stage 3) the N-th part, 4 P (1 + 1 + 2 + 1) / N.
        Sources: Rajbhandari et al. 2020, arXiv:1910.02054, section 3; for the buckets PyTorch's
        documentation of `gradient_as_bucket_view`.
        """
        copies = 5 + (devices > 1 and not sharded)
        return FLOAT * self.all * copies / (devices if sharded else 1)

    def memory(self, devices: int, examples: float, sharded: bool) -> float:
        """Bytes of a device in a step on that many examples, at most.

        Gradients are made as activations go, so that both are never whole at once.
        The state, the activations, the copies of the weights in bfloat16 and, with FSDP, the
        gathered weights: those outside the blocks and two blocks, of which one is prefetched.
        Source: Zhao et al. 2023, arXiv:2304.11277, section 3.
        """
        gathered = FLOAT * (self.rest + 2 * self.largest) if sharded and devices > 1 else 0
        return self.state(devices, sharded) + self.copies + examples * self.kept + gathered

    def traffic(self, devices: int, sharded: bool, scatter: int = 1) -> float:
        """Bytes that a device sends in a step.

        By ring algorithms an all-reduce of P numbers sends 2 P (N - 1) / N, an all-gather and a
        reduce-scatter P (N - 1) / N each. Data parallel training reduces the gradients once. FSDP
        gathers the weights for the forward pass, those of the blocks again for the backward pass,
        and scatters the gradients: 3 P (N - 1) / N, less the weights outside the blocks once.
        Sources: Patarasuk & Yuan 2009, doi:10.1016/j.jpdc.2008.09.002; arXiv:1910.02054, section 7.

        Args:
            scatter: what a reduce-scatter sends over that of a ring; 2 for gloo, which reduces all.
        """
        passes = 1 + (1 - self.rest / self.all) + scatter if sharded else 2
        return FLOAT * self.all * passes * (devices - 1) / devices


@dataclass(frozen=True)
class Device:
    """What a device costs in a step of a training by `devices` of them."""

    devices: int
    examples: float
    flop: float
    replicated: float
    sharded: float
    reduced: float
    gathered: float


def table(training: Training, batch: int, counts: list[int]) -> list[Device]:
    """A row for each number of devices, which share a batch of `batch` examples."""
    return [
        Device(
            n,
            batch / n,
            training.flop(batch / n),
            training.memory(n, batch / n, False),
            training.memory(n, batch / n, True),
            training.traffic(n, False),
            training.traffic(n, True),
        )
        for n in counts
    ]
