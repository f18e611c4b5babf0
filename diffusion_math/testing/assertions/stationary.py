"""`assert_stationary`: an affine kernel's covariance by unit vectors and the Lyapunov equation."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import checked, require
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.probes import MIXED, guarded, name_of, tensor
from diffusion_math.testing.mistakes.table import Table

__all__ = ["assert_stationary"]

LANGEVIN = "Roberts and Tweedie (1996), Bernoulli 2(4)"


@checked
def assert_stationary(
    kernel: Callable[..., Any],
    mean: Tensor,
    covariance: Tensor,
    *,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check that `kernel(x, z)`, affine in x and in normals z, keeps N(mean, covariance).

    x' = A x + B z + c keeps it where A mean + c = mean and A C A^T + B B^T = C, the discrete
    Lyapunov equation. A, B and c are read off with unit vectors: nothing is random.

    Args:
        kernel: takes x and z of shape `(batch, D)`; returns the like of x. See
            `diffusion_math.testing.draws.drawn` for a kernel that draws z itself. A kernel of a
            position and a velocity is one of both in one vector.
        mean, covariance: `(D,)` and `(D, D)`, symmetric, of what the kernel is said to keep. For
            unadjusted Langevin that is no target but `dm.langevin_law.ula_stationary`.
        dtype: that of x and z.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it;
    AssertionError for a kernel that is not affine; ValueError for arguments that are none.
    Source: Roberts and Tweedie (1996), Bernoulli 2(4), for Langevin's moves.

    >>> import torch
    >>> from diffusion_math.testing import assert_stationary
    >>> mean, covariance = torch.zeros(2), torch.eye(2)
    >>> assert_stationary(lambda x, z: 0.6 * x + 0.8 * z, mean, covariance)
    >>> assert_stationary(lambda x, z: 0.6 * x + 0.64 * z, mean, covariance)
    Traceback (most recent call last):
    ...
    diffusion_math.testing.mistakes.diagnosis.MistakeError: kernel: wrong
      the covariance after a move differs at 2 of 3 indices, most at entry (0, 0): got 0.7696, ...
      diagnosis: the noise is the square of what it should be: a variance in a deviation's place
    ...
    """
    wanted = mean.ndim == 1 and covariance.shape == (len(mean), len(mean))
    require(wanted, "covariance", "shape (D, D) to a mean of (D,)", tuple(covariance.shape))
    C, m = covariance.double(), mean.double()
    require(bool(torch.allclose(C, C.T)), "covariance", "a symmetric matrix", C.tolist())
    subject = name_of(kernel, "kernel")
    (A, B, c), eps = _affine(subject, kernel, len(m), dtype)
    moves = not torch.equal(A, torch.eye(len(m), device="cpu").double()) or bool(B.any())
    assert moves, f"{subject}: moves nothing: it is x and a constant, whatever z"
    moved, after = A @ m + c, A @ C @ A.T + B @ B.T
    scale = C.diagonal().sqrt()
    _compare(subject, "mean", moved, {"right": m}, scale, eps, {}, "A mean + c")
    size = scale * scale[:, None]
    missing = C - A @ C @ A.T
    alternatives = {
        name: A @ C @ A.T + noise(missing) for name, (noise, _) in NOISES.items()
    }  # what is left after the move, were the noise this
    known = {name: source for name, (_, source) in NOISES.items()}
    columns = {"right": C, "unchanged": missing, **alternatives}
    right = f"A C A^T + B B^T = C; {_own(A, B)}"
    _compare(subject, "covariance", after, columns, size, eps, known, right)


def _power(noise: Tensor, power: float) -> Tensor:
    """Of a symmetric matrix, its negative part left out."""
    values, vectors = torch.linalg.eigh(noise)
    found: Tensor = vectors @ torch.diag(values.clamp(min=0) ** power) @ vectors.T
    return found


NOISES: Mapping[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "the noise is too small by sqrt(2): sqrt(step) in the place of sqrt(2 step)": (
        lambda noise: noise / 2,
        LANGEVIN,
    ),
    "the noise is too large by sqrt(2): 2 step in the place of step": (
        lambda noise: 2 * noise,
        LANGEVIN,
    ),
    "the noise is half of what it should be": (lambda noise: noise / 4, ""),
    "the noise is twice what it should be": (lambda noise: 4 * noise, ""),
    "there is no noise": (lambda noise: 0 * noise, ""),
    "the noise is the square of what it should be: a variance in a deviation's place": (
        lambda noise: _power(noise, 2.0),
        "",
    ),
    "the noise is the root of what it should be": (lambda noise: _power(noise, 0.5), ""),
}
"""Wrong noises, from the covariance that is missing after the move without noise."""


def _own(A: Tensor, B: Tensor) -> str:
    """What the kernel keeps instead, by the Lyapunov equation."""
    from scipy.linalg import solve_discrete_lyapunov

    if not float(torch.linalg.eigvals(A).abs().max()) < 1:
        return "it keeps no covariance: A has an eigenvalue of modulus 1 or more"
    found = solve_discrete_lyapunov(A.numpy(), (B @ B.T).numpy())
    rows = "; ".join(" ".join(f"{entry:.6g}" for entry in row) for row in found)
    return f"what it keeps is the covariance [{rows}]"


def _affine(
    subject: str, kernel: Callable[..., Any], size: int, dtype: torch.dtype
) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    """A, B and c of the kernel; AssertionError where it is not affine."""
    call = guarded(subject, kernel)
    zero, unit = (
        torch.zeros(size, size, dtype=dtype, device="cpu"),
        torch.eye(size, dtype=dtype, device="cpu"),
    )

    def moved(x: Tensor, z: Tensor) -> Tensor:
        return tensor(subject, call(x.clone(), z.clone()), x)[0]

    _, eps = tensor(subject, call(zero.clone(), zero.clone()), zero)
    c = moved(zero, zero)
    A, B = (moved(unit, zero) - c).T, (moved(zero, unit) - c).T
    both = moved(2 * unit, -unit) - c
    straight = (both - (2 * A - B).T).abs().amax()
    limit = 256 * eps * (A.abs().amax() + B.abs().amax() + c.abs().amax())
    off = max(straight, (c - c[:1]).abs().amax())
    assert bool(off <= limit), (
        f"{subject}: is not affine in x and z "
        f"(off by {float(off):.3g}, tolerance {float(limit):.2g})"
    )
    same = moved(2 * unit[:1].expand(size, -1), -unit[:1].expand(size, -1)) - c
    unmixed = (same - (2 * A - B).T[:1]).abs().amax() <= limit
    assert bool(unmixed), f"{subject}: {MIXED}"
    return (A, B, c[0]), eps


def _compare(
    subject: str,
    what: str,
    measured: Tensor,
    columns: Mapping[str, Tensor],
    scale: Tensor,
    eps: float,
    known: Mapping[str, str],
    right: str,
) -> None:
    """compare() entry by entry of a vector, or of a matrix's upper triangle."""
    upper = torch.ones_like(measured, dtype=torch.bool)
    upper = upper.triu() if measured.ndim == 2 else upper
    field, size = f"{what} after a move", scale[upper]
    names = [str(tuple(k)) if len(k) > 1 else str(k[0]) for k in upper.nonzero().tolist()]
    table = Table(
        tuple(f"entry {name}" for name in names), {k: v[upper] for k, v in columns.items()}, eps
    )

    def entries(column: str, at: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {field: at[column]}

    values = measured[upper]
    for column in table.columns.values():  # to rounding: of sums that may cancel
        values = torch.where((values - column).abs() <= 256 * eps * size, column, values)
    compare(
        subject,
        {field: values},
        partial(entries, "right"),
        table,
        table.rows,
        eps=eps,
        known=[Mistake.of(name, partial(entries, name), of) for name, of in known.items()],
        right=right,
    )
