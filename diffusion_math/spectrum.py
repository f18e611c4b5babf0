"""Eigenvalues of covariance matrices, as far as float64 can tell them from 0."""

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion_math.checks import require

__all__ = ["spectrum"]


def spectrum(
    argument: str, C: Float64[Tensor, "K D D"]
) -> tuple[Float64[Tensor, "K D"], Float64[Tensor, "K D D"]]:
    """Eigenvalues, rising, and eigenvectors in columns; below D eps of the largest they are 0.

    That is right of a singular matrix, whose eigenvalues come out as rounding. A matrix that is
    singular in units of its own deviations, C_ij / sqrt(C_ii C_jj), is one by its entries' own say.
    Of another, as diag(1, 1e-18) turned a little, small eigenvalues exist and would be lost.

    Raises ValueError, naming the argument, where they would.
    """
    values, basis = _eigen(C)
    deviations = C.diagonal(dim1=1, dim2=2).abs().sqrt()
    scale = torch.where(deviations > 0, 1 / deviations, 0)
    alike, _ = _eigen(scale[:, :, None] * C * scale[:, None, :])
    there = (values == 0).sum(1) <= (alike == 0).sum(1)
    wanted = "eigenvalues within a factor of 1e15 (a diagonal, given as one, may have any)"
    require(bool(there.all()), argument, wanted, C)
    return values, basis


def _eigen(C: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, those within rounding of the largest as 0 (a diagonal has none), and vectors."""
    values, basis = torch.linalg.eigh(C)
    mixed = (C - torch.diag_embed(C.diagonal(dim1=1, dim2=2))).abs().amax((1, 2)) > 0
    rounding = C.shape[1] * torch.finfo(C.dtype).eps * values.abs().amax(1) * mixed
    return torch.where(values.abs() <= rounding[:, None], 0, values), basis
