"""The score of a mixture: ours, the plain expanded square, and torch's own distribution."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.compare import Row, compare
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import VPLinear

SIZES = ((20_000, 1000, 2), (100, 1000, 1024), (100_000, 1000, 2), (1000, 1000, 4096))
"""Points, components, dimensions."""

LARGEST = 2 * 10**8
"""Torch's own distribution builds (points, components, dimensions); beyond this it is left out."""


def oracle_rows(rounds: int) -> list[Row]:
    """Our score beside both peers at every size; the memory each side took."""
    found = []
    for B, K, D in SIZES:
        generator = torch.Generator().manual_seed(0)
        means = 3 * torch.randn(K, D, generator=generator, dtype=torch.float64)
        x = 3 * torch.randn(B, D, generator=generator, dtype=torch.float64)
        schedule, t, spread = VPLinear(), torch.tensor(0.3, dtype=torch.float64), 0.25
        data = GaussianMixture(torch.zeros(K), means, torch.full((K,), spread))
        alpha_t, sigma_t = schedule(t)
        noisy = alpha_t.square() * spread + sigma_t.square()

        def ours(data: GaussianMixture = data, x: Tensor = x, t: Tensor = t) -> Tensor:
            return data.score(VPLinear(), x, t)

        def plain(x: Tensor = x, m: Tensor = alpha_t * means, v: Tensor = noisy) -> Tensor:
            squares = x.square().sum(1, keepdim=True) - 2 * x @ m.mT + m.square().sum(1)
            return ((-squares / (2 * v)).softmax(1) @ m - x) / v

        def torchs(x: Tensor = x, m: Tensor = alpha_t * means, v: Tensor = noisy) -> Tensor:
            normal = torch.distributions.Normal(m, v.sqrt())
            each = torch.distributions.Independent(normal, 1)
            weights = torch.distributions.Categorical(logits=torch.zeros(len(m)))
            family = torch.distributions.MixtureSameFamily(weights, each)
            point = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(family.log_prob(point).sum(), point)
            return gradient

        peers = {"plain products": plain, "torch's mixture": torchs}
        for name, peer in peers.items():
            if peer is torchs and B * K * D > LARGEST:
                continue
            memory = f"ours {_peak(ours):.0f} MiB, peer {_peak(peer):.0f} MiB"
            label = f"score of a mixture, {B:,} points, {K:,} components, {D:,}-D"
            found.append(replace(compare(label, name, ours, peer, rounds, 1, 1e-8), memory=memory))
    return found


def _peak(call: Callable[[], object]) -> float:
    """MiB by which the process grew at its largest; NaN where the system does not tell (Linux)."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")
        before = _kib(status, "VmRSS")
        call()
        return (_kib(status, "VmHWM") - before) / 1024
    except OSError:
        return math.nan


def _kib(status: Path, key: str) -> int:
    lines = status.read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])
