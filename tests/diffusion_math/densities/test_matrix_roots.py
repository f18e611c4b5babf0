"""Roots and polar factors: what defines them, and derivatives where singular values are equal."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from diffusion_math.densities._matrix_roots import polar, root
from diffusion_math.densities.multivariate import Multivariate, wasserstein2

# Forward derivatives warn of a part of torch that torch itself still uses.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

# Equal ones, some equal ones, and none.
VALUES = ([1.0, 1.0, 1.0], [2.0, 2.0, 0.5], [0.3, 1.1, 2.7])


def turned(seed: int, D: int) -> Tensor:
    """A random rotation or reflection."""
    return torch.from_numpy(np.linalg.qr(np.random.default_rng(seed).standard_normal((D, D)))[0])


def covariance(seed: int, values: list[float]) -> Tensor:
    Q = turned(seed, len(values))
    return (Q * torch.tensor(values, dtype=torch.float64)) @ Q.mT


def both(C: Tensor) -> Tensor:
    """C, of which only the symmetric part counts: a finite difference may change any entry."""
    return root((C + C.mT) / 2)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), D=st.integers(1, 4))
def test_what_they_are(seed: int, D: int) -> None:
    rng = np.random.default_rng(seed)
    M = torch.from_numpy(rng.standard_normal((2, D, D)))
    R, U = root(M @ M.mT), polar(M)
    one = torch.eye(D, dtype=torch.float64).expand_as(U)
    size = M.norm(dim=(-2, -1)).max().item()
    # Some hundred roundings of numbers as large as the matrices'.
    torch.testing.assert_close(R @ R, M @ M.mT, rtol=0, atol=1e-13 * size**2)
    torch.testing.assert_close(U @ U.mT, one, rtol=0, atol=1e-13)
    assert (torch.linalg.eigvalsh(R) >= -1e-13 * size).all()
    # No H >= 0 but the root of M^T M has U H = M; the square has lost half of the digits.
    torch.testing.assert_close(U @ root(M.mT @ M), M, rtol=0, atol=1e-7 * size)


@pytest.mark.parametrize("values", VALUES, ids=str)
@pytest.mark.parametrize("function", [both, polar])
def test_derivatives_of_first_and_second_order(
    function: Callable[[Tensor], Tensor], values: list[float]
) -> None:
    """Against finite differences, backward and forward, in a batch with another matrix."""
    M = torch.stack([covariance(1, values), covariance(2, [0.4, 0.9, 1.7])])
    M = (M if function is both else turned(3, 3) @ M).requires_grad_()
    assert gradcheck(function, (M,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, (M,), check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("values", VALUES, ids=str)
@pytest.mark.parametrize("function", [both, polar])
def test_transforms_of_torch(function: Callable[[Tensor], Tensor], values: list[float]) -> None:
    """Jacobians forward and backward agree, in a map over a batch too."""
    M = torch.stack([covariance(seed, values) for seed in (4, 5)])
    backward = torch.func.vmap(torch.func.jacrev(function))(M)
    forward = torch.stack([torch.func.jacfwd(function)(one) for one in M])
    assert forward.abs().max() > 0.1
    torch.testing.assert_close(backward, forward, rtol=1e-10, atol=1e-10)


def test_gaussians_are_fitted_from_a_round_one() -> None:
    """W2 and samples have finite, right gradients at C = I, where all eigenvalues are equal."""
    target = Multivariate(torch.tensor([1.0, -1.0]), covariance(6, [0.3, 2.0]))
    z = torch.tensor([0.7, -0.4], dtype=torch.float64)

    def cost(mean: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        q = Multivariate(mean, (C + C.mT) / 2)
        return wasserstein2(q, target), q.sample(z)

    start = [torch.zeros(2), torch.eye(2)]
    given = tuple(one.double().requires_grad_() for one in start)
    assert gradcheck(cost, given)
    # The gradient in the mean is the unit vector between the means, by its share of the distance.
    distance = cost(*given)[0]
    slope = torch.autograd.grad(distance, given[0])[0]
    torch.testing.assert_close(slope, -target.mean / distance.detach())


def test_a_distance_of_zero_has_a_finite_gradient() -> None:
    """A subgradient, as of torch's norms: a descent that has arrived stays."""
    mean = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    C = torch.eye(2, dtype=torch.float64, requires_grad=True)
    distance = wasserstein2(Multivariate(mean, C), Multivariate(torch.zeros(2), torch.eye(2)))
    distance.backward()  # type: ignore[no-untyped-call]
    assert distance.item() == 0
    for one in (mean, C):
        assert one.grad is not None and bool((one.grad == 0).all())
