"""The score of a mixture: ours, the plain expanded square, and torch's own distribution."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from benchmarks.compare import Row, compare
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import VPLinear

Size: TypeAlias = tuple[int, int, int]
"""Points, components, dimensions."""

SIZES: tuple[Size, ...] = (
    (20_000, 1000, 2), (100, 1000, 1024), (100_000, 1000, 2), (1000, 1000, 4096),
)  # fmt: skip
OURS, PLAIN, TORCH = "ours", "plain products", "torch's mixture"
LARGEST = 2 * 10**8
"""Torch's own distribution builds (points, components, dimensions); beyond this it is left out."""


def oracle_rows(rounds: int) -> list[Row]:
    """Our score beside both peers at every size; the memory that each side takes."""
    found = []
    for size in SIZES:
        peers = [PLAIN, TORCH] if math.prod(size) <= LARGEST else [PLAIN]
        calls, peaks = scores(size), {who: peak(who, size) for who in (OURS, *peers)}
        points, components, dimensions = size
        label = (
            f"score of a mixture, {points:,} points, {components:,} components, {dimensions:,}-D"
        )
        for who in peers:
            memory = f"ours {peaks[OURS]:.0f} MiB, peer {peaks[who]:.0f} MiB"
            row = compare(label, who, calls[OURS], calls[who], rounds, 1, 1e-8)
            found.append(replace(row, memory=memory))
    return found


def scores(size: Size) -> dict[str, Callable[[], Tensor]]:
    """The three sides on one input."""
    B, K, D = size
    generator = torch.Generator().manual_seed(0)
    means, x = (
        torch.randn(rows, D, generator=generator, dtype=torch.float64).mul_(3) for rows in (K, B)
    )
    schedule, t, spread = VPLinear(), torch.tensor(0.3, dtype=torch.float64), 0.25
    data = GaussianMixture(torch.zeros(K), means, torch.full((K,), spread))
    alpha_t, sigma_t = schedule(t)
    m, v = alpha_t * means, alpha_t.square() * spread + sigma_t.square()

    def ours() -> Tensor:
        return data.score(schedule, x, t)

    def plain() -> Tensor:
        squares = x.square().sum(1, keepdim=True) - 2 * x @ m.mT + m.square().sum(1)
        return ((-squares / (2 * v)).softmax(1) @ m - x) / v

    def torchs() -> Tensor:
        normal = torch.distributions.Normal(m, v.sqrt())
        each = torch.distributions.Independent(normal, 1)
        weights = torch.distributions.Categorical(logits=torch.zeros(len(m)))
        family = torch.distributions.MixtureSameFamily(weights, each)
        point = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(family.log_prob(point).sum(), point)
        return gradient

    return {OURS: ours, PLAIN: plain, TORCH: torchs}


def peak(who: str, size: Size) -> float:
    """MiB by which one call makes a process of its own grow at most; NaN but on Linux.

    Memory that an earlier call has freed may stay with its process, where the next call's growth
    does not show.
    """
    if sys.platform != "linux":
        return math.nan
    command = [sys.executable, "-m", "benchmarks.oracle", who, *map(str, size)]
    surroundings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)}  # freed is given back
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=surroundings)
    return int(done.stdout.split()[-1]) / 1024


def main(who: str, size: Size) -> None:
    """Print the KiB by which one call makes this process grow at most, beyond its input."""
    call, small = scores(size)[who], scores((2, 2, 2))[who]
    small()  # what a first call alone takes, such as the buffers of libraries
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _kib(status, "VmRSS")
    call()
    sys.stdout.write(f"{_kib(status, 'VmHWM') - before}\n")


def _kib(status: Path, key: str) -> int:
    lines = status.read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


if __name__ == "__main__":
    points, components, dimensions = map(int, sys.argv[2:])
    main(sys.argv[1], (points, components, dimensions))
