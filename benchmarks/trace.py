"""Claim C24: what the exact trace of a score's Jacobian costs beside one probe, by dimension."""

import math

import torch
from torch import Tensor

from benchmarks.compare import Row, compare
from diffusion_math.score_matching import divergence, rademacher

SIZES = (4, 16, 64, 256)
BATCH, WIDTH = 64, 256


def trace_rows(rounds: int) -> list[Row]:
    """The exact divergence of a network's field beside Hutchinson's with one probe: D passes to 1.

    Both are averages over the batch; they agree to the probe's chance.
    """
    rows = []
    for D in SIZES:
        generator = torch.Generator().manual_seed(D)
        first = torch.randn(D, WIDTH, generator=generator, dtype=torch.float64) / math.sqrt(D)
        last = torch.randn(WIDTH, D, generator=generator, dtype=torch.float64) / WIDTH
        x = torch.randn(BATCH, D, generator=generator, dtype=torch.float64)
        probes = rademacher(generator, x)

        def field(x: Tensor, first: Tensor = first, last: Tensor = last) -> Tensor:
            return torch.tanh(x @ first) @ last - x

        def exact(x: Tensor = x, field=field) -> Tensor:
            return divergence(field, x).mean()

        def probed(x: Tensor = x, field=field, probes: Tensor = probes) -> Tensor:
            return divergence(field, x, probes).mean()

        rows.append(
            compare(
                f"exact trace of a Jacobian, {D}-D",
                "one Hutchinson probe",
                exact,
                probed,
                rounds,
                1,
                0.1,
            )
        )
    return rows
