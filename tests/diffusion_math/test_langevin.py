"""Langevin chains: what they climb, what they keep, and what they find (C22, C23, E6)."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.toy import ring
from diffusion_math.langevin import (
    Particles,
    annealed,
    ascent,
    baoab,
    chain,
    log_acceptance,
    mala,
    proposal,
    ula,
)
from diffusion_math.noise import from_generator, from_seeds, zeros
from tests.support.chance import Count, rare, seeded
from tests.support.langevin_moves import LINE, MOVES, SCHEDULE, at_clean, last, score_of


def normal_score(x):
    return -x


@pytest.mark.claim("E6", "diffusion_math.langevin.ascent")
@given(x=st.floats(1e-3, 1e3), sign=st.sampled_from([-1, 1]), delta=st.floats(1e-3, 10))
def test_e6_a_step_along_the_score_raises_the_likelihood_only_if_short(measured, x, sign, delta):
    """Under N(0, 1), x -> (1 - delta) x: likelier for delta < 2, as likely at 2, else less so.
    Printed: every delta raises it. Exact in float64 but for a hair's breadth around 2.
    """
    point = torch.tensor([[sign * x]], dtype=torch.float64)
    end = last(chain(ascent(normal_score, delta), point, 1))
    gained = point.square() - end.x.square()  # twice the gain in log-density
    if abs(delta - 2) > 1e-9:
        assert bool(gained > 0) == (delta < 2)
    same = last(chain(ascent(normal_score, 2.0), point, 1)).x.square() - point.square()
    measured(same.abs(), 0, "change of x^2 at delta = 2, where the gain changes its sign: exact")


@pytest.mark.claim("C22", "diffusion_math.langevin.ascent")
def test_c22_points_gather_at_the_modes_and_do_not_follow_the_distribution(measured):
    """Ascent from exact samples of the ring ends on eight points; its within-mode spread, 0.15 in
    the data, is gone. Its neighbours move a mode by exp(-(2 radius sin(pi/8) / std)^2 / 2) = e^-52.
    """
    data, delta = ring(), 0.4 * 0.15**2
    start = data.sample(torch.Generator().manual_seed(0), 500)
    first, end = (last(chain(ascent(score_of(data), delta), start, n)) for n in (1, 150))
    assert (first.x - start - delta * score_of(data)(start)).abs().max() < 1e-14
    away, mode = (end.x[:, None] - data.means).norm(dim=2).min(1)
    measured(away.max(), 1e-12, "largest distance to a mode, where the data's spread is 0.15")
    spread = (start[:, None] - data.means).norm(dim=2).amin(1).square().mean()
    assert spread > 0.15**2  # 2 std^2 expected
    assert len(mode.unique()) == 8


def all_pairs(data, delta, line):
    """What mala needs for every move between points of a line: (x, ...), (y, ...), row x."""
    log_q, score = at_clean(data)(line[:, None])
    n = len(line)
    x, y = line.repeat_interleave(n)[:, None], line.repeat(n)[:, None]
    here = (x, log_q.repeat_interleave(n), score.repeat_interleave(n)[:, None])
    return here, (y, log_q.repeat(n), score.repeat(n, 1))


@pytest.mark.claim("C23", "diffusion_math.langevin.mala")
@pytest.mark.parametrize("delta", [0.05, 0.3, 1.0])
def test_c23_mala_keeps_the_density_exactly(measured, delta):
    """pi K = pi by quadrature, K = ula's move times the acceptance plus what is rejected.

    The moves' std is at least 8 grid steps, so the trapezoid rule is exact to rounding; detailed
    balance holds entry by entry. Wrong versions not kept: no correction for the proposal, the
    correction upside down, every proposal taken (ula).
    """
    line, h = torch.linspace(-7, 8, 401, dtype=torch.float64), 15 / 400
    here, there = all_pairs(LINE, delta, line)
    n = len(line)
    move = proposal(here[0], here[2], delta).log_density(there[0]).exp().reshape(n, n) * h
    log_pi = here[1].reshape(n, n)[:, 0]
    ratio = log_acceptance(here, there, delta).reshape(n, n)
    uncorrected = log_pi - log_pi[:, None]

    def drift(log_accept):
        flow = log_pi.exp()[:, None] * move * log_accept.clamp(max=0).exp()
        return (flow.sum(0) - flow.sum(1)).abs().max().item()

    measured(drift(ratio), 1e-13, "drift of the density in one move, by quadrature")
    flow = log_pi[:, None] + move.log() + ratio.clamp(max=0)
    near = (line - line[:, None]).abs() < 3  # where no log has lost its digits
    assert (flow - flow.T)[near].abs().max() < 1e-11
    for wrong in (uncorrected, 2 * uncorrected - ratio, torch.zeros_like(ratio)):
        assert drift(wrong) > 1e-4


@given(seed=st.integers(0, 10_000), delta=st.floats(1e-3, 2), event=st.sampled_from([(), (2, 2)]))
def test_mala_takes_a_proposal_just_when_the_ratio_says_so(seed, delta, event):
    """log u < log ratio: taken for u a millionth below it, kept for u a millionth above.

    By the move itself, so its proposal, its test and its memory are all `log_acceptance`'s.
    """
    generator = torch.Generator().manual_seed(seed)
    x, z = (torch.randn((3, *event), generator=generator, dtype=torch.float64) for _ in range(2))

    def target(x):
        return -x.reshape(3, -1).pow(4).sum(1) / 4, -x.pow(3)

    log_q, score = target(x)
    y = x + delta * score + math.sqrt(2 * delta) * z
    ratio = log_acceptance((x, log_q, score), (y, *target(y)), delta)
    for nudge in (-1e-6, 1e-6):
        w = torch.special.ndtri((ratio + nudge).exp().clamp(max=1))

        def noise(like, t, s, w=w):
            return z if t == s + 1 else w

        end = mala(target, delta)(Particles(x), noise)
        # u = 1 is no draw; below e^-500 the normal w is not a float64 any more.
        for i in ((ratio > -500) & (ratio + nudge < 0)).nonzero().flatten().tolist():
            assert end.accepted[i] == (1 if nudge < 0 else 0)
            torch.testing.assert_close(end.x[i], y[i] if nudge < 0 else x[i])
        log_q_end, score_end = target(end.x)
        torch.testing.assert_close(end.log_density, log_q_end)
        torch.testing.assert_close(end.score, score_end)
        for i in (ratio >= 0).nonzero().flatten().tolist():
            assert end.accepted[i] == 1


def test_mala_never_leaves_the_support():
    """Where log q is -inf or NaN no proposal is taken, be the noise what it may."""

    def target(x):
        log_q = torch.where(x[:, 0] > 0, -x[:, 0], -math.inf)
        return torch.where(x[:, 0] < 2, log_q, math.nan), -torch.ones_like(x)

    noise = from_generator(torch.Generator().manual_seed(0))
    end = last(chain(mala(target, 0.5), torch.ones(200, 1, dtype=torch.float64), 50, noise))
    assert ((end.x > 0) & (end.x < 2)).all()
    assert 0 < end.accepted.sum() < 200 * 50


def test_mala_evaluates_once_a_move_and_counts_what_it_takes():
    """Memory in the state: 1 + moves evaluations; `accepted` counts the moves that moved."""
    calls = []

    def target(x):
        calls.append(x)
        return at_clean(LINE)(x)

    noise = from_generator(torch.Generator().manual_seed(0))
    particles = chain(mala(target, 2.0), torch.zeros(50, 1, dtype=torch.float64), 8, noise)
    states = [next(particles)]
    assert calls == []  # the walk is lazy
    states += particles
    assert len(calls) == 9
    moved = sum((b.x != a.x)[:, 0].long() for a, b in pairwise(states))
    assert torch.equal(states[-1].accepted, moved)
    assert 0 < moved.sum() < 400


MODES = GaussianMixture(
    torch.tensor([0.2, 0.8]).log(), torch.tensor([[-3.0], [3.0]]), torch.tensor([0.16, 0.16])
)
LEVELS = torch.logspace(math.log10(5), math.log10(0.25), 8, dtype=torch.float64)
EACH, DELTA = 50, 0.0125


def exact_share_on_the_left(steps):
    """P(x < 0) after moves (score, delta) from N(0, 25), by pushing the density over a grid."""
    line = torch.linspace(-30, 30, 601, dtype=torch.float64)
    density = torch.exp(-line.square() / 50) / math.sqrt(50 * math.pi)
    x, y = line.repeat_interleave(601)[:, None], line.repeat(601)[:, None]
    for score, delta, moves in steps:
        ahead = score(line[:, None]).repeat_interleave(601)[:, None]
        kernel = 0.1 * proposal(x, ahead, delta).log_density(y).exp().reshape(601, 601)
        for _ in range(moves):
            density = density @ kernel
    assert 0.1 * density.sum() == pytest.approx(1, abs=1e-5)  # nothing fell off the grid
    return 0.1 * density[line < 0].sum().item() + 0.05 * density[300].item()


@pytest.mark.chance(6e-9, "plain Langevin, whose share is not the mode's weight of 0.2")
def test_c23_annealing_finds_the_weights_that_plain_langevin_cannot():
    """Modes of 0.2 and 0.8, fifteen standard deviations apart, from N(0, 25), 400 moves each.

    The share on the left is 0.219 in law when annealed (short of infinite patience) and 0.497 for
    plain ula: both computed by quadrature, with no random number. Then 4000 particles: each
    count is binomial about its own share, and plain ula's about neither the annealed nor 0.2.
    """

    def noisy(x, sigma):
        return MODES.score(SCHEDULE, x, sigma)

    ladder = [
        (lambda x, s=s: noisy(x, s), DELTA * float(s / LEVELS[-1]) ** 2, EACH) for s in LEVELS
    ]
    exact = exact_share_on_the_left(ladder)
    stuck = exact_share_on_the_left([(score_of(MODES), DELTA, EACH * len(LEVELS))])
    assert exact == pytest.approx(0.2, abs=0.025)
    assert stuck > 0.4
    n = 4000
    start = 5 * torch.randn(n, 1, generator=seeded(0), dtype=torch.float64)
    counts = []
    for move in (annealed(noisy, LEVELS, EACH, DELTA), ula(score_of(MODES), DELTA)):
        noise = from_generator(seeded(1))
        counts.append(int((last(chain(move, start, EACH * len(LEVELS), noise)).x < 0).sum()))
    found, plain, weight = (Count(n, share, 1e-9) for share in (exact, stuck, 0.2))
    assert found.holds(counts[0]) and plain.holds(counts[1])
    assert rare(found.misses(stuck)) and rare(weight.misses(stuck))
    assert not found.holds(counts[1]) and not weight.holds(counts[1])


def test_annealed_step_sizes_follow_the_levels():
    """delta_i = delta sigma_i^2 / sigma_L^2, `moves_each` a level, the last level kept afterwards.

    The score is recorded, and being 1 it shows delta_i as the displacement without noise. The
    square left out, or a level changed one move late, fails.
    """
    seen = []

    def score(x, sigma):
        seen.append(sigma.item())
        return torch.ones_like(x)

    levels = torch.tensor([4.0, 2.0, 1.0])
    x = torch.zeros(1, 1, dtype=torch.float64)
    states = list(chain(annealed(score, levels, 2, 0.01), x, 8, zeros))
    moved = [(b.x - a.x).item() for a, b in pairwise(states)]
    assert seen == [4, 4, 2, 2, 1, 1, 1, 1]
    assert moved == pytest.approx([0.16, 0.16, 0.04, 0.04, 0.01, 0.01, 0.01, 0.01], rel=1e-12)


@pytest.mark.parametrize("name", MOVES)
def test_the_loop(name):
    """The start first, then one state a move; a shorter chain is a longer one's beginning; a chain
    taken up again goes on as if never interrupted; a sample does not depend on its batch.
    """
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    seeds = [5, 6, 7, 8, 9]
    states = list(chain(MOVES[name](), x, 6, from_seeds(seeds)))
    assert states[0].x is x
    assert [state.moves for state in states] == list(range(7))
    short = last(chain(MOVES[name](), x, 3, from_seeds(seeds)))
    assert torch.equal(short.x, states[3].x)
    assert torch.equal(last(chain(MOVES[name](), short, 3, from_seeds(seeds))).x, states[6].x)
    alone = last(chain(MOVES[name](), x[2:3], 6, from_seeds(seeds[2:3])))
    torch.testing.assert_close(alone.x, states[6].x[2:3], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MOVES)
def test_dtypes_and_empty_batches(name):
    """float32 stays float32, no particles are no error, and no moves are the start."""
    noise = from_generator(torch.Generator().manual_seed(0))
    for batch in (0, 3):
        end = last(chain(MOVES[name](), torch.zeros(batch, 1), 2, noise))
        assert end.x.dtype == torch.float32
        assert end.x.shape == (batch, 1)
    assert [state.moves for state in chain(MOVES[name](), torch.zeros(3, 1), 0)] == [0]


LADDER = torch.tensor([2.0, 1.0])


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: ascent(normal_score, 0.0), "delta"),
        (lambda: ula(normal_score, -1.0), "delta"),
        (lambda: mala(at_clean(LINE), math.nan), "delta"),
        (lambda: annealed(lambda x, s: x, LADDER, 1, math.inf), "delta"),
        (lambda: annealed(lambda x, s: x, LADDER, 0, 0.1), "moves_each"),
        (lambda: annealed(lambda x, s: x, LADDER.flip(0), 1, 0.1), "levels"),
        (lambda: annealed(lambda x, s: x, torch.tensor([1.0, 0.0]), 1, 0.1), "levels"),
        (lambda: baoab(normal_score, 0.0, 1.0), "h"),
        (lambda: baoab(normal_score, 0.1, -1.0), "friction"),
        (lambda: chain(ula(normal_score, 0.1), torch.zeros(1, 1), -1), "moves"),
        (lambda: ula(lambda x: x[:, :1], 0.1)(Particles(torch.zeros(2, 2)), from_seeds([0])), "sc"),
    ],
)
def test_bad_arguments(make, argument, unchecked):
    """Each is named, and at the call, not at the first move."""
    with pytest.raises(ValueError, match=f"^{argument}.*: wanted"):
        make()
