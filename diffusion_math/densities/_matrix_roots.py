"""Symmetric square roots and polar factors of matrices, with the derivatives of their formulas.

Derivatives through eigenvectors divide by differences of eigenvalues, which equal ones make NaN;
the functions of the matrix are smooth there. With S_R(G) the X of R X + X R = G,

    R = C^{1/2}:                     dR = S_R(dC)
    M = U H, U orthogonal, H >= 0:   dU = U S_H(U^T dM - dM^T U)

S_R divides by sums of R's eigenvalues: two that are 0, where the functions have no derivative, give
infinite or NaN ones. Derivatives of any order, forward and backward, and `torch.func` transforms.
Derivation: (multivariate.12), (multivariate.13).
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["polar", "root"]


def root(C: Tensor) -> Tensor:
    """The symmetric R with R R = C, an eigenvalue that rounding made negative taken as 0.

    Derivation: (multivariate.12).
    """
    return _applied(_Root, C)


def polar(M: Tensor) -> Tensor:
    """The orthogonal U that is nearest to M, which is square. Derivation: (multivariate.12)."""
    return _applied(_Polar, M)


def _between(R: Tensor, G: Tensor) -> Tensor:
    """S_R(G), for a symmetric R. Derivation: (multivariate.13)."""
    return _applied(_Sylvester, R, G)


def _applied(function: Any, *matrices: Tensor) -> Tensor:
    found: Tensor = function.apply(*matrices)  # torch does not tell its types
    return found


class _Root(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(C: Tensor) -> Tensor:
        values, Q = torch.linalg.eigh(C)
        return cast(Tensor, (Q * values.clamp(min=0).sqrt()[..., None, :]) @ Q.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        _keep(ctx, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (R,) = ctx.saved_tensors
        return _between(R, grad)

    @staticmethod
    def jvp(ctx: Any, dC: Tensor) -> Tensor:
        (R,) = ctx.saved_tensors
        return _between(R, dC)


class _Polar(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(M: Tensor) -> Tensor:
        W, _, Vh = torch.linalg.svd(M)
        return cast(Tensor, W @ Vh)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        _keep(ctx, output, *inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        U, M = ctx.saved_tensors
        Z = _between(U.mT @ M, U.mT @ grad)
        return cast(Tensor, U @ (Z - Z.mT))

    @staticmethod
    def jvp(ctx: Any, dM: Tensor) -> Tensor:
        U, M = ctx.saved_tensors
        turn = U.mT @ dM
        return cast(Tensor, U @ _between(U.mT @ M, turn - turn.mT))


class _Sylvester(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(R: Tensor, G: Tensor) -> Tensor:
        values, Q = torch.linalg.eigh(R)
        sums = values[..., :, None] + values[..., None, :]
        return cast(Tensor, Q @ ((Q.mT @ G @ Q) / sums) @ Q.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        _keep(ctx, inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        R, X = ctx.saved_tensors
        Z = _between(R, grad)
        return -(Z @ X.mT + X.mT @ Z), Z

    @staticmethod
    def jvp(ctx: Any, dR: Tensor, dG: Tensor) -> Tensor:
        R, X = ctx.saved_tensors
        return _between(R, dG - dR @ X - X @ dR)


def _keep(ctx: Any, *tensors: Tensor) -> None:
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
