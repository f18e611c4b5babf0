"""What Langevin chains do to a Gaussian, read off the moves themselves without a random number.

Every move is affine here, so unit vectors in the noise's place give its mean and covariance.
"""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_math.gaussian import Gaussian
from diffusion_math.langevin import Particles, baoab, chain, ula
from diffusion_math.langevin_law import baoab_stationary, ula_distribution, ula_stationary
from diffusion_math.noise import UnitNoise

EPS = torch.finfo(torch.float64).eps
UNIT = Gaussian(torch.zeros(1, 1).double(), torch.ones(()).double())


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def score_of(target):
    return lambda x: (target.mean - x) / target.variance


@settings(max_examples=25)
@given(
    c=st.tuples(st.floats(0.1, 4), st.floats(0.1, 4)),
    delta=st.floats(1e-6, 5),
    moves=st.integers(0, 6),
    std=st.floats(0, 3),
)
def test_e7_the_law_after_k_moves(c, delta, moves, std):
    """C23: ula's mean and covariance after k moves, stable or not, are `ula_distribution`'s.

    Tolerance: k products of factors up to 1 + 50, each rounded, in what is read off and what is
    computed; entries grow as the factors do, so it is relative to the largest.
    """
    target = Gaussian(vector(1.0, -2.0)[None], vector(*c)[None])
    start = Gaussian(vector(0.5, 3.0)[None], vector(std**2))
    basis = UnitNoise(-torch.arange(moves + 1).double(), (2,))
    *_, end = chain(ula(score_of(target), delta), basis.start(start.mean[0], std), moves, basis)
    law = ula_distribution(target, delta, start, moves)
    close = {"rtol": 1e-11, "atol": 1e-11 * (1 + law.variance.max().item())}
    torch.testing.assert_close(basis.mean(end.x), law.mean[0], **close)
    torch.testing.assert_close(basis.covariance(end.x), law.variance[0].diag(), **close)


def test_e7_wrong_laws_are_told_apart():
    """The move read off as above is not the law of one move more or less, of noise sqrt(delta) z,
    of a score of the wrong sign, or of a variance taken for a standard deviation.
    """
    target, start = (
        Gaussian(vector(1.0)[None], vector(0.8)),
        Gaussian(vector(3.0)[None], vector(2.0)),
    )
    basis = UnitNoise(-torch.arange(4).double(), (1,))
    *_, end = chain(ula(score_of(target), 0.3), basis.start(start.mean[0], 2**0.5), 3, basis)

    def fits(law):
        mean = torch.allclose(basis.mean(end.x), law.mean[0], rtol=1e-3)
        return mean and torch.allclose(basis.covariance(end.x), law.variance, rtol=1e-3)

    right = ula_distribution(target, 0.3, start, 3)
    a = 1 - 0.3 / 0.8
    halved = right.variance - 0.3 * (1 + a**2 + a**4)
    assert fits(right)
    assert not fits(Gaussian(right.mean, halved))
    assert not fits(ula_distribution(target, 0.3, start, 2))
    assert not fits(ula_distribution(target, 0.3, start, 4))
    assert not fits(ula_distribution(Gaussian(target.mean, -target.variance), 0.3, start, 3))
    assert not fits(ula_distribution(Gaussian(target.mean, target.variance.sqrt()), 0.3, start, 3))


@pytest.mark.parametrize("delta", [1e-12, 0.1, 1.0, 2 - 1e-12, 2.0, 2 + 1e-12, 2.5])
@pytest.mark.parametrize("moves", [0, 1, 7, 200])
def test_e7_the_recursion_in_exact_fractions(delta, moves):
    """m <- a m, v <- a^2 v + 2 delta in rationals; the textbook's 1 - a^2k loses all digits at the
    ends. Tolerance: a power of k is k roundings. Noise sqrt(delta) z, half the variance, fails.
    """
    a, m, v, half = 1 - Fraction(delta), Fraction(3), Fraction(2), Fraction(2)
    for _ in range(moves):
        m, v, half = a * m, a * a * v + 2 * Fraction(delta), a * a * half + Fraction(delta)
    law = ula_distribution(UNIT, delta, Gaussian(vector(3.0)[None], vector(2.0)), moves)
    assert law.mean.item() == pytest.approx(float(m), rel=8 * (moves + 1) * EPS)
    assert law.variance.item() == pytest.approx(float(v), rel=8 * (moves + 1) * EPS)
    if moves > 0:
        assert abs(v - half) > 16 * (moves + 1) * EPS * v


@pytest.mark.claim("C23", "diffusion_math.langevin_law.ula_distribution")
@given(c=st.floats(0.01, 100), part=st.floats(1e-6, 0.999))
def test_e7_the_stationary_law_is_kept_and_reached(measured, c, part):
    """N(m, c / (1 - delta / 2c)) is kept by a move and reached from a point; q itself is not kept
    (the printed E7), and differs from it by delta / 2 to first order.

    Tolerance: 1 - delta / 2c is rounded by EPS over itself, at least 1e-3.
    """
    target, delta = Gaussian(vector(0.7)[None], vector(c)), 2 * c * part
    kept = ula_stationary(target, delta)
    after = ula_distribution(target, delta, kept, 1)
    assert after.variance.item() == pytest.approx(kept.variance.item(), rel=1e4 * EPS)
    assert after.mean.item() == pytest.approx(0.7, rel=8 * EPS)
    reached = ula_distribution(target, delta, Gaussian(vector(5.0)[None], vector(0.0)), 20_000_000)
    assert reached.variance.item() == pytest.approx(kept.variance.item(), rel=1e-8)
    drift = ula_distribution(target, delta, target, 1).variance.item() - c
    assert drift == pytest.approx(delta**2 / c, rel=1e-3, abs=8 * EPS * c)
    # c / (1 - delta / 2c) - c = (delta / 2) / (1 - delta / 2c)
    excess = kept.variance.item() - c
    predicted = delta / 2 / (1 - part)
    off = abs(excess - predicted) / (predicted + 8e6 * EPS * c)
    measured(off, 1e-6, "error of the law's excess variance, which falls as delta / 2, relative")


@pytest.mark.claim("E7", "diffusion_math.langevin_law.ula_stationary")
def test_e7_the_standard_normal(measured):
    """Variance 1 / (1 - delta / 2), by the move itself run to its end; printed: 1."""
    moves, delta = 200, 0.5
    basis = UnitNoise(-torch.arange(moves + 1).double(), (1,))
    *_, end = chain(ula(score_of(UNIT), delta), basis.start(vector(4.0), 0.0), moves, basis)
    run, closed = basis.covariance(end.x).item(), ula_stationary(UNIT, delta).variance.item()
    off = max(abs(run / (4 / 3) - 1), abs(closed / (4 / 3) - 1))
    measured(off, 1e-12, "relative error of 1 / (1 - delta / 2), run and in closed form")
    # The score of a density must be that of the density: with half of it, the limit is another.
    halved = Gaussian(UNIT.mean, 2 * UNIT.variance)
    assert ula_stationary(halved, delta).variance.item() != pytest.approx(4 / 3, rel=0.1)


def affine(move, pairs):
    """(M, b) of the move (x, v) <- M (x, v) + b z: columns read off unit vectors."""

    def noise(x, t, s):
        return vector(0.0, 0.0, 1.0)[:, None]

    start = Particles(vector(1.0, 0.0, 0.0)[:, None], velocity=vector(0.0, 1.0, 0.0)[:, None])
    x, v = pairs(move(start, noise))
    columns = torch.stack([x, v])
    return columns[:, :2], columns[:, 2:]


def stationary(M, b):
    """Sigma = M Sigma M^T + b b^T."""
    size = len(M)
    system = torch.eye(size * size, dtype=torch.float64) - torch.kron(M, M)
    return torch.linalg.solve(system, (b @ b.T).flatten()).reshape(size, size)


def position_and_velocity(state):
    return state.x[:, 0], state.velocity[:, 0]


@given(c=st.floats(0.01, 100), part=st.floats(0.01, 0.99), friction=st.floats(0, 20))
def test_baoab_keeps_the_exact_positions(c, part, friction):
    """One move maps diag(c, 1 - h^2 / 4c) to itself: the position's variance is c at every h.

    Tolerance: in units of the position's std and the unit velocity all entries of M are O(1) and
    squared once; 1 - h^2 / 4c is at least 0.02, far above the rounding.
    """
    target = Gaussian(vector(0.0)[None], vector(c))
    h = 2 * math.sqrt(c) * part
    M, b = affine(baoab(score_of(target), h, friction), position_and_velocity)
    position, velocity = baoab_stationary(target, h)
    law = torch.cat([position.variance, velocity.variance.flatten()]).diag()
    unit = vector(1 / math.sqrt(c), 1.0).diag()
    after = M @ law @ M.T + b @ b.T
    torch.testing.assert_close(unit @ after @ unit, unit @ law @ unit, rtol=0, atol=1e-12)
    if friction * h > 0.01:
        # Without the h^2 / 4c, with it halved, or with it in the position: not kept.
        for wrong in (vector(c, 1.0), vector(c, 1 - part**2 / 2), vector(c * (1 - part**2), 1.0)):
            moved = M @ wrong.diag() @ M.T + b @ b.T - wrong.diag()
            assert (unit @ moved @ unit).abs().max() > 1e-8


@pytest.mark.parametrize(("h", "friction"), [(0.1, 1.0), (0.5, 2.0), (1.2, 0.3), (1.9, 5.0)])
def test_baoab_is_exact_in_position_where_euler_is_not(h, friction):
    """The limit's covariance, solved from the move's own matrix, on N(0, 1).

    Euler's move x + h v, v + h S - friction h v + sqrt(2 friction h) z misses the variance by more
    than h / 4 where it is stable at all; BAOAB's misses 1 by rounding, v's is 1 - h^2 / 4.
    """
    move = baoab(score_of(UNIT), h, friction)
    got = stationary(*affine(move, position_and_velocity))
    wanted = vector(1.0, 1 - h**2 / 4).diag()
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-11)
    M = torch.tensor([[1.0, h], [-h, 1 - friction * h]], dtype=torch.float64)
    if torch.linalg.eigvals(M).abs().max() < 1:
        euler = stationary(M, vector(0.0, math.sqrt(2 * friction * h))[:, None])
        assert abs(euler[0, 0].item() - 1) > h / 4
    else:
        assert h > 1


def test_baoab_at_infinite_friction_draws_each_velocity_anew():
    """e^-inf = 0: x <- x + h^2/2 S + (h/2)(z + z'), whose limit is exact in position too."""
    move = baoab(score_of(UNIT), 0.8, math.inf)
    got = stationary(*affine(move, position_and_velocity))
    torch.testing.assert_close(got, vector(1.0, 1 - 0.16).diag(), rtol=0, atol=1e-13)


def test_baoab_draws_its_first_velocity_at_unit_temperature():
    """From x alone, by the noise of (t, s) = (1, 0): the law after k moves from x ~ N(0, 2)."""
    grid = torch.arange(1, -5, -1).double()
    basis = UnitNoise(grid, (1,))
    *_, end = chain(baoab(score_of(UNIT), 0.3, 1.0), basis.start(vector(0.0), 2**0.5), 4, basis)
    M, b = affine(baoab(score_of(UNIT), 0.3, 1.0), position_and_velocity)
    law = vector(2.0, 1.0).diag()
    for _ in itertools.repeat(None, 4):
        law = M @ law @ M.T + b @ b.T
    assert basis.covariance(end.x).item() == pytest.approx(law[0, 0].item(), rel=1e-13)


@pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf, 2.0, 2.1])
def test_no_stationary_law_beyond_the_stable_step(value):
    """delta < 2 c and h < 2 sqrt(c), for the least c of all entries."""
    target = Gaussian(torch.zeros(1, 2).double(), vector(1.0, 9.0)[None])
    with pytest.raises(ValueError, match=r"^delta: wanted 0 < delta < 2 min variance = 2"):
        ula_stationary(target, value)
    with pytest.raises(ValueError, match=r"^h: wanted 0 < h < 2 min standard deviation = 2"):
        baoab_stationary(target, value)
    if not value > 0 or value == math.inf:
        with pytest.raises(ValueError, match=r"^delta: wanted a positive finite"):
            ula_distribution(target, value, target, 1)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"^moves: "):
        ula_distribution(UNIT, 0.1, UNIT, -1)
    with pytest.raises(ValueError, match=r"^start.mean: "):
        ula_distribution(UNIT, 0.1, Gaussian(torch.zeros(1, 2).double(), vector(1.0)), 1)
