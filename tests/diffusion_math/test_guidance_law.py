"""What guided flows sample, against two Gaussians' closed forms and mixtures' own densities."""

import math

import pytest
import torch
from mpmath import mp, quad
from scipy.integrate import solve_ivp

from diffusion_math import gaussian, guidance_law
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import Gaussian
from diffusion_math.guidance import cfg, limited
from diffusion_math.guidance_law import (
    RADIUS,
    SCHEDULE,
    Nodes,
    around,
    ball,
    box,
    flow_map,
    gaussian_guided,
    gaussian_tilted,
    guided_variance,
    kl,
    log_density,
    log_normaliser,
    mode_weights,
    tilted,
)
from tests.support.guided_gaussians import CLASSES, NARROW, WIDE, one
from tests.support.tensors import f64

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own


def on(law, x):
    return Gaussian(law.mean.expand_as(x), law.variance).log_density(x)


@pytest.mark.parametrize("scales", [(3.0,), pytest.param((0.5, 3.0, 7.5), marks=pytest.mark.slow)])
def test_two_gaussians_have_the_closed_law(scales):
    """(guidance_law.8), (guidance_law.10): the flow's density, in nats, at 10 nodes for each w.

    All in one batch. At w = 7.5 one deviation is 0.03 and a change of 1e-7 in u counts 1e3 times
    in log p. Wrong by more than 0.05 nats somewhere: the tilted density's moments.
    """
    cases = [(w, WIDE, NARROW) for w in scales]
    denoisers, xs, wanted = [], [], []
    for w, u, c in cases:
        (law_u, free), (law_c, known) = one(*u), one(*c)
        exact = gaussian_guided(law_u, law_c, w)
        across = torch.linspace(-5, 5, 10, dtype=torch.float64)[:, None]
        x = exact.mean + exact.variance.sqrt() * across
        denoisers.append(cfg(known, free, w))
        xs.append(x)
        wanted.append(on(exact, x))
        assert (on(gaussian_tilted(law_u, law_c, w), x) - wanted[-1]).abs().max() > 0.05

    def denoise(x_t, t):
        return torch.cat([f(x, t) for f, x in zip(denoisers, x_t.split(10), strict=True)])

    got = log_density(denoise, torch.cat(xs), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(got, torch.cat(wanted), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "interval", [(0.4, 2.0), pytest.param((0.5, math.inf), marks=pytest.mark.slow)]
)
def test_an_interval_has_the_closed_variance(interval):
    """(guidance_law.9), and the integrator starts anew at the jumps: 1e-5 of the variance.

    The law is Gaussian, so three values of its log-density give the variance.
    """
    (_, free), (_, known) = one(*WIDE), one(*NARROW)
    denoise = limited(cfg(known, free, 5.0), known, SCHEDULE, interval)
    x = f64([0.5], [1.5], [2.5])
    low, middle, high = log_density(denoise, x, interval, rtol=1e-7, atol=1e-8)
    got = 1 / (2 * middle - low - high)
    wanted = guided_variance(f64(2.0), f64(0.7), 5.0, interval)
    torch.testing.assert_close(got, wanted[0], rtol=1e-5, atol=0)


def test_the_variance_of_an_interval_by_quadrature():
    """2 d log(deviation) is (1 - w) / (v_u + rho) + w / (v_c + rho) in rho = r^2, integrated."""
    v_u, v_c, w, a, b = 2.0, 0.7, 5.0, 0.4, 1.7

    def slope(rho):
        weight = w if a**2 <= rho <= b**2 else 1.0
        return (1 - weight) / (v_u + rho) + weight / (v_c + rho)

    far = 1e4
    grown = float(quad(slope, [0, a**2, b**2, 10, 100, far]))
    wanted = (v_c + far) * math.exp(-grown)
    got = guided_variance(f64(v_u), f64(v_c), w, (a, b))
    assert abs(got.item() - wanted) < 1e-12
    torch.testing.assert_close(guided_variance(f64(v_u), f64(v_c), w), f64(v_u ** (1 - w) * v_c**w))


@pytest.mark.parametrize("w", [0.0, 0.3, 1.0, 2.0, 3.0, 7.5, 20.0])
@pytest.mark.parametrize("v_c", [0.05, 0.9, 2.0, 6.0])
def test_the_mean_is_that_of_the_linear_equation(w, v_c):
    """dy/drho of (guidance_law.8) from rho = 0 to infinity, in p of (guidance_law.10)."""
    v_u, m_u, m_c = 2.0, 0.3, 1.5
    with mp.workdps(30):
        ratio = mp.mpf(v_c) / v_u
        led = quad(lambda p: (ratio + (1 - ratio) * p * p) ** ((mp.mpf(w) - 1) / 2), [0, 0.2, 1])
        wanted = m_u + w * (m_c - m_u) * led
    law = gaussian_guided(Gaussian(f64(m_u), f64(v_u)), Gaussian(f64(m_c), f64(v_c)), w)
    assert abs(law.mean.item() - float(wanted)) < 1e-11 * (1 + abs(float(wanted)))
    torch.testing.assert_close(law.variance, f64(v_u ** (1 - w) * v_c**w), rtol=1e-12, atol=0)


def test_the_mean_by_the_flow_itself():
    """The point of noise 0 lands at the mean: the scalar equation by another integrator."""
    v_u, v_c, m_u, m_c, w = 2.0, 0.7, 0.3, 1.5, 4.0

    def slope(tau, u):
        alpha, variances = 1 - tau, [(1 - tau) ** 2 * v + tau**2 for v in (v_u, v_c)]
        x0 = [
            m + alpha * v / s * (u - alpha * m)
            for m, v, s in zip((m_u, m_c), (v_u, v_c), variances, strict=True)
        ]
        return (u - (x0[0] + w * (x0[1] - x0[0]))) / tau

    found = solve_ivp(slope, (1.0, 1e-6), [0.0], method="DOP853", rtol=1e-10, atol=1e-12)
    law = gaussian_guided(Gaussian(f64(m_u), f64(v_u)), Gaussian(f64(m_c), f64(v_c)), w)
    assert abs(found.y[0, -1] - law.mean.item()) < 1e-5


def test_equal_variances_make_guidance_a_tilt():
    """Then, and only then, the guided law is the tilted density: N(m_u + w (m_c - m_u), v)."""
    u, c = Gaussian(f64(0.3), f64(2.0)), Gaussian(f64(1.5), f64(2.0))
    law, tilt = gaussian_guided(u, c, 4.0), gaussian_tilted(u, c, 4.0)
    for found in (law, tilt):
        torch.testing.assert_close(found.mean, f64(5.1))
        torch.testing.assert_close(found.variance, f64(2.0))
    other = Gaussian(c.mean, f64(1.0))
    assert gaussian.kl(gaussian_guided(u, other, 4.0), gaussian_tilted(u, other, 4.0)) > 0.1


def test_known_values_of_the_tilted_gaussian():
    """w = 3 of N(0, 2) and N(1, 1): precision -2/2 + 3 = 2, mean (0 + 3) / 2; guided 2^-2."""
    u, c = Gaussian(f64(0.0), f64(2.0)), Gaussian(f64(1.0), f64(1.0))
    tilt, law = gaussian_tilted(u, c, 3), gaussian_guided(u, c, 3)
    assert (tilt.mean.item(), tilt.variance.item()) == (1.5, 0.5)
    assert law.variance.item() == pytest.approx(0.25, rel=1e-14)
    assert law.mean.item() == pytest.approx(3 * (1 + 2 * 0.5) / 3, rel=1e-14)


def test_shapes_of_gaussian_laws():
    """A variance that broadcasts; whole batches of events."""
    u = Gaussian(torch.zeros(3, 2, dtype=torch.float64), f64(2.0, 3.0))
    c = Gaussian(torch.ones(3, 2, dtype=torch.float64), f64(1.0))
    for law in (gaussian_guided(u, c, 2.0), gaussian_tilted(u, c, 2.0)):
        assert law.mean.shape == law.variance.shape == (3, 2)
    torch.testing.assert_close(gaussian_guided(u, c, 2.0).variance[1], 1 / f64(2.0, 3.0))


@pytest.mark.parametrize("w", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_the_ends_are_the_models_own_densities(w):
    """At w = 0 and 1 the law is the mixture and its conditional: nats at nodes, mass and KL."""
    known, free = CLASSES.given(1), CLASSES.mixture
    denoise = cfg(known.denoiser(SCHEDULE), free.denoiser(SCHEDULE), w)
    nodes = around(flow_map(denoise, ball(1)), 60)
    log_p = log_density(denoise, nodes.x, rtol=1e-7, atol=1e-7)
    truth = (known if w else free).log_density(SCHEDULE, nodes.x, 0)
    torch.testing.assert_close(log_p, truth, rtol=0, atol=1e-5)
    assert abs(nodes.integral(log_p.exp()) - 1) < 1e-6
    assert abs(kl(nodes, log_p, truth)) < 1e-6
    if w:
        weights = mode_weights(CLASSES, 1, nodes, log_p)
        torch.testing.assert_close(weights, f64(0.4, 0.6), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_plane_and_the_default_tolerance():
    """In two dimensions, on the hull alone, at 1e-6 as by default: mass, KL and weights to 1e-5."""
    means = f64([-1.0, 0.0], [1.0, 1.2], [3.5, -0.5])
    data = GaussianMixture(f64(0.5, 0.2, 0.3).log(), means, f64(0.5, 0.3, 0.3))
    denoise = data.denoiser(SCHEDULE)
    image = flow_map(denoise, ball(2))
    nodes = around(image, 36)
    assert 600 < len(nodes.x) < 0.9 * 36**2
    assert (nodes.x.amin(0) > image.amin(0)).all() and (nodes.x.amax(0) < image.amax(0)).all()
    log_p = log_density(denoise, nodes.x)
    truth = data.log_density(SCHEDULE, nodes.x, 0)
    torch.testing.assert_close(log_p, truth, rtol=0, atol=1e-4)
    assert abs(nodes.integral(log_p.exp()) - 1) < 1e-5
    # In the plane 2 log(1 - CLEAN) is the change of scale, 2e-5: the mean error is far below it.
    assert (log_p - truth).mean().abs() < 2e-6


def test_the_walk_lands_where_the_exact_flow_does():
    """One Gaussian: z at t = 1 lands at m + sqrt(c) z, to 1e-3 by 60 steps of order 2."""
    data = GaussianMixture(f64(0.0), f64([1.5]), f64(0.49))
    z = f64([-6.0], [0.0], [2.0])
    torch.testing.assert_close(
        flow_map(data.denoiser(SCHEDULE), z), 1.5 + 0.7 * z, rtol=1e-3, atol=2e-3
    )


def test_the_ball():
    assert ball(1).tolist() == [[-RADIUS], [RADIUS]] == [[-6.0], [6.0]]
    points = ball(2)
    assert points.shape == (144, 2)
    radii = points.square().sum(1).sqrt()
    torch.testing.assert_close(radii, f64(2.0, 4.0, 6.0).repeat_interleave(48))
    assert points[96:].mean(0).abs().max() < 1e-14
    angles = torch.atan2(points[96:, 1], points[96:, 0]).sort().values
    torch.testing.assert_close(angles.diff(), torch.full((47,), math.pi / 24).double())


def test_a_box_is_the_middles_of_equal_cells():
    nodes = box([0.0, -1.0], [1.0, 3.0], 2)
    assert nodes.x.tolist() == [[0.25, 0.0], [0.25, 2.0], [0.75, 0.0], [0.75, 2.0]]
    assert nodes.cell == 1.0
    assert nodes.integral(f64(1.0, 2.0, 3.0, 4.0)) == 10.0
    assert Nodes(f64([0.5]), 0.25).integral(f64(2.0)) == 0.5


def test_nodes_off_the_hull_are_left_out():
    """A triangle's box has the corner above its long side left out; the cell stays the box's."""
    nodes = around(f64([0.0, 0.0], [4.0, 0.0], [0.0, 4.0]), 4)
    kept = {tuple(x) for x in nodes.x.tolist()}
    assert (0.5, 0.5) in kept and (3.5, 3.5) not in kept and (2.5, 2.5) not in kept
    assert nodes.cell == 1.0
    assert around(f64([1.0], [3.0], [2.0]), 4).x[:, 0].tolist() == [1.25, 1.75, 2.25, 2.75]


def test_tilted_is_the_product_of_powers():
    """log p(x)^(1-w) p(x|c)^w + w log P(c), and Z by quadrature is that of two Gaussians."""
    x = f64([-0.5], [1.0], [4.0])
    free = CLASSES.mixture.log_density(SCHEDULE, x, 0)
    known = CLASSES.given(1).log_density(SCHEDULE, x, 0)
    wanted = -2 * free + 3 * known + 3 * math.log(0.5)
    torch.testing.assert_close(tilted(CLASSES, 1, 3.0, x), wanted)
    torch.testing.assert_close(tilted(CLASSES, 1, 0, x), free)
    nodes = box([-8.0], [9.0], 400)
    height = tilted(CLASSES, 1, 3.0, nodes.x)
    log_z = log_normaliser(nodes, height)
    assert nodes.integral((height - log_z).exp()) == pytest.approx(1, rel=1e-12)
    half = log_normaliser(nodes, tilted(CLASSES, 1, 1.0, nodes.x))
    assert half == pytest.approx(math.log(0.5), abs=1e-10)  # P(c)


def test_kl_by_quadrature_is_the_closed_one():
    p, q = Gaussian(f64([0.3]), f64(0.5)), Gaussian(f64([-0.4]), f64(1.2))
    nodes = box([-7.0], [8.0], 100)
    got = kl(nodes, on(p, nodes.x), on(q, nodes.x))
    assert got == pytest.approx(gaussian.kl(p, q).item(), rel=1e-10)


def test_mode_weights_of_a_mode_alone():
    """A law that is one component has that component's mean of P(k | x, c), 0.97 here."""
    nodes = box([-3.0], [8.0], 300)
    log_p = CLASSES.mixture.among([2]).log_density(SCHEDULE, nodes.x, 0)
    near, far = mode_weights(CLASSES, 1, nodes, log_p).tolist()
    assert near + far == pytest.approx(1, abs=1e-6)
    assert 0.95 < far < 1


def test_pieces_leave_out_what_is_no_jump():
    """0, infinity, a level twice; a piece ends just before a jump, the next begins after it."""
    pieces = guidance_law._pieces((3.0, 0, math.inf, 1.0, 1.0))
    assert [(round(s, 6), round(t, 6)) for s, t in pieces] == [
        (1e-5, 0.5),
        (0.5, 0.75),
        (0.75, 1.0),
    ]
    (first, second, third) = pieces
    assert first[1] < 0.5 < second[0] and second[1] < 0.75 < third[0]
    assert second[0] - first[1] == pytest.approx(1e-9, rel=1e-3)
    assert guidance_law._pieces(()) == [(1e-5, 1.0)]
    # A piece of no noise, or of less than stands for clean data.
    assert guidance_law._pieces((1e-6,)) == [(1e-5, 1.0)]


def test_the_default_tolerance_and_each_dimension_count():
    """N(0, I) of twelve numbers flows to itself: its log-density to 2e-6 nats a number."""
    x = torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(2, 12)

    def denoise(x_t, t):  # E[x_0 | x_t] of N(0, I)
        return (1 - t) / ((1 - t) ** 2 + t**2) * x_t

    exact = on(Gaussian(torch.zeros_like(x), f64(1.0)), x)
    assert (log_density(denoise, x) - exact).abs().max() < 2.4e-5


def test_every_label_can_be_tilted_to():
    x = f64([0.3])
    for label in (0, 1):
        posterior = CLASSES.log_posterior(SCHEDULE, x, 0)[:, label]
        wanted = CLASSES.mixture.log_density(SCHEDULE, x, 0) + 2 * posterior
        torch.testing.assert_close(tilted(CLASSES, label, 2.0, x), wanted)
