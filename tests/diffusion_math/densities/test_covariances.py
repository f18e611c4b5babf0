"""Covariances as users give them: symmetric by their own measure, and no eigenvalue lost."""

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math.densities._quadratic_forms import spectrum
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.multivariate import Multivariate
from diffusion_math.schedule import VPLinear

pytestmark = pytest.mark.usefixtures("unchecked")


def mixture(C):
    return GaussianMixture(torch.zeros(1), torch.zeros(1, len(C), dtype=torch.float64), C[None])


def multivariate(C):
    return Multivariate(torch.zeros(len(C), dtype=torch.float64), C)


MAKE = {"mixture": mixture, "multivariate": multivariate}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@given(
    sizes=st.tuples(st.floats(-12, 12), st.floats(-12, 12)),
    off=st.sampled_from([0.9, 1e-3, 1e-8, 1e-11]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_an_asymmetry_is_measured_by_its_own_entries(make, sizes, off, dtype):
    """However small the entries, and whatever stands beside them: half of it would be dropped."""
    a, b = (10.0**size for size in sizes)
    C = torch.tensor([[a, 0, 0], [0, b, 0], [0, 0, b]], dtype=dtype)
    make(C)
    C[1, 2] = off * b
    if off > 3 * torch.finfo(dtype).eps:
        with pytest.raises(ValueError, match=r"^covariances?: wanted a symmetric matrix"):
            make(C)
    C[2, 1] = off * b
    make(C) if make is multivariate or 1e-9 < a / b < 1e9 else None


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@given(seed=st.integers(0, 1000), dtype=st.sampled_from([torch.float64, torch.float32]))
def test_the_rounding_of_a_product_is_no_asymmetry(make, seed, dtype):
    """A D A^T by two products, its rows of sizes 1e-6 to 1e6."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(6, 9, generator=generator, dtype=dtype)
    A = A * torch.logspace(-2, 2, 6, dtype=dtype)[:, None]
    make((A * torch.rand(9, generator=generator, dtype=dtype)) @ A.T)


def turned(small):
    """diag(1, small) in a basis that is turned by so little that its entries know of small."""
    angle = small**0.5 / 2
    return torch.tensor([[1.0, angle], [angle, angle**2 + small]], dtype=torch.float64)


@pytest.mark.parametrize("small", [1e-17, 1e-18, 1e-25, 1e-40])
def test_eigenvalues_that_would_be_lost_are_refused(small):
    """The correlation is 1 / sqrt 5: no singular matrix, and its small eigenvalue is rounding."""
    with pytest.raises(ValueError, match=r"^covariances: wanted eigenvalues within a factor"):
        mixture(turned(small))
    block = torch.block_diag(turned(small), torch.eye(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^covariances: wanted eigenvalues within a factor"):
        mixture(block)


@pytest.mark.parametrize("small", [1e-4, 1e-8, 1e-12])
def test_eigenvalues_that_are_kept_are_right(small):
    """log q at clean data, in 60 digits; the rounding of an eigenvalue is eps / small of it."""
    C = turned(small)
    x = torch.tensor([[0.5, 0.5 * float(C[0, 1])]], dtype=torch.float64)
    with mpmath.workdps(60):
        M, v = mpmath.matrix(C.tolist()), mpmath.matrix(x[0].tolist())
        form = (v.T * M**-1 * v)[0] + mpmath.log(4 * mpmath.pi**2 * mpmath.det(M))
        wanted = float(-form / 2)
    got = mixture(C).log_density(VPLinear(), x, 0).item()
    assert got == pytest.approx(wanted, abs=1e-14 + 4e-16 / small)


@pytest.mark.parametrize(
    "C",
    [
        [[1.0, 1.0], [1.0, 1.0]],
        [[1.0, 1e-9], [1e-9, 1e-18]],
        [[0.0, 0.0], [0.0, 1.0]],
        [[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
    ],
)
def test_a_singular_matrix_is_one(C):
    """Its rounding is no variance: at clean data it has no density, and noise gives it one."""
    data = mixture(torch.tensor(C, dtype=torch.float64))
    x = torch.zeros(1, len(C), dtype=torch.float64)
    with pytest.raises(ValueError, match="point mass"):
        data.log_density(VPLinear(), x, 0)
    assert data.log_density(VPLinear(), x, 0.5).isfinite().all()


def test_a_diagonal_matrix_keeps_every_eigenvalue():
    """Given as a matrix or as what it is."""
    C, x = torch.tensor([1.0, 1e-18], dtype=torch.float64), torch.tensor([[1.0, 2e-9]]).double()
    full, plain = (
        mixture(torch.diag(C)),
        GaussianMixture(torch.zeros(1), torch.zeros(1, 2), C[None]),
    )
    got, wanted = (data.log_density(VPLinear(), x, 0) for data in (full, plain))
    torch.testing.assert_close(got, wanted, rtol=1e-14, atol=0)


def spread(*matrices):
    return spectrum("C", torch.stack([torch.tensor(C, dtype=torch.float64) for C in matrices]))


def test_each_of_several_covariances_is_measured_by_itself():
    """A diagonal keeps what rounds to nothing beside entries; a small matrix beside a large one."""
    mixed = [[1.0, 0.5], [0.5, 1.0]]
    values, _ = spread([[1.0, 0.0], [0.0, 1e-18]], mixed)
    assert values[0].tolist() == [1e-18, 1.0]
    values, _ = spread([[1e-20, 5e-21], [5e-21, 1e-20]], mixed)
    torch.testing.assert_close(values[0], 1e-20 * values[1], rtol=1e-12, atol=0)


def test_singular_covariances_beside_one_another():
    singular = [[1.0, 1.0], [1.0, 1.0]]
    values, _ = spread(singular, singular)
    assert values.flatten().tolist() == pytest.approx([0, 2, 0, 2])
    with pytest.raises(ValueError, match=r"^C: wanted eigenvalues within .*, got tensor\("):
        spread(turned(1e-18).tolist(), singular)
