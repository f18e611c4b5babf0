"""Tensors of float64 written down, drawn, compared."""

import torch


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def far(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference over the largest entry."""
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
