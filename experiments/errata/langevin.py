"""Errata of Langevin's chain: one step along the score (E6), and many with noise (E7)."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_math import langevin, langevin_law
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import Gaussian
from experiments.common.statistics import seeded, variance_interval
from experiments.errata.data import PLAIN, normal
from experiments.errata.erratum import FALSE_ALARM, Erratum, variance_off
from experiments.errata.figures import histogram, mark, note
from experiments.langevin.bias import BIASED as DELTAS
from experiments.langevin.bias import last
from experiments.plots.charts import Axis, Chart, Series

EPS = torch.finfo(torch.float64).eps
STARTS = (0.5, 1.0, 1.5)  # from where E6 steps
TESTED = (0.5, 1.0, 1.5)  # those at which a Metropolis test is tried
SIZE = r"step size $\delta$"
MOVES = 40  # of E7's chains; the slowest forgets its start as (3/4)^{2 MOVES}, to 1e-10


def e6(samples: int, seed: int) -> Erratum:
    """What one step of `ascent` does to log N(x; 0, 1): x^2 delta (2 - delta) / 2. Draws nothing.

    The bound is the rounding of two log-densities of size (x^2 + y^2) / 2 + 1.
    """
    q = normal()
    deltas = [k / 20 for k in range(1, 65)]
    x = torch.tensor(STARTS, dtype=torch.float64)
    ends = torch.stack([_climbed(q, x, delta) for delta in deltas])  # (deltas, starts)
    before, after = _log_q(q, x), _log_q(q, ends.flatten()).reshape(ends.shape)
    change = after - before
    size = torch.tensor(deltas, dtype=torch.float64)[:, None]
    bound = 8 * EPS * (x.square() + ends.square() + 2)
    true = ((change - x.square() * size * (2 - size) / 2).abs() / bound).max().item()
    printed = (-change / bound)[size[:, 0] > 2].max().item()  # it says: never below 0
    marks = [mark("printed", "printed: above 0 at every $\\delta$", [0, 3.2], [0, 0], "dashed")]
    for k, (role, start) in enumerate(zip(("other", "true", "measured"), STARTS, strict=True)):
        curve = [0.0, *change[:, k].tolist()]
        marks.append(mark(role, f"from x = {start:g}", [0.0, *deltas], curve))
    marks.append(mark("mark", "", [2, 2], [-4.4, 2.2], "dotted"))
    notes = note(r"$\delta = 2$", 2.04, 1.7), note("less likely than before", 0.1, -0.5, va="top")
    title = "Change of the log-density, one step"
    x_axis, y_axis = Axis(SIZE, 0, 3.2), Axis("nats", -4.4, 2.2)
    right = Chart(title, x_axis, y_axis, marks, notes, "lower left", below=0.0)
    return Erratum(
        id="E6",
        of="C22",
        printed="a step along the score raises the likelihood",
        true="only a short one: under N(0, 1) it lowers it whenever delta > 2",
        what="Change of log N(x; 0, 1), in nats, by a step of delta = 2.5 from x = 1; true -5/8, "
        "printed above 0",
        measured=change[deltas.index(2.5), STARTS.index(1.0)].item(),
        interval=None,
        true_off=true,
        printed_off=printed,
        bound="the rounding of two log-densities; the printed form's worst is beyond delta = 2",
        charts=[_e6_steps(q), right],
        caption="One step x + delta S(x) under N(0, 1), where S(x) = -x. Up to delta = 2 the point "
        "lands nearer to the mode; beyond, it lands on the other side and lower than it was.",
        alt="A bell's logarithm with lines from one point to where a short and a long step land; "
        "curves of the change that are positive up to a step of two and negative beyond.",
        data={"deltas": deltas, "starts": STARTS, "change": change.tolist()},
    )


def _score(q: GaussianMixture) -> Callable[[Tensor], Tensor]:
    return lambda x: q.score(PLAIN, x, 0.0)


def _log_q(q: GaussianMixture, x: Tensor) -> Tensor:
    return q.log_density(PLAIN, x, 0.0)


def _climbed(q: GaussianMixture, x: Tensor, delta: float) -> Tensor:
    """Where one step along the score lands."""
    *_, end = langevin.chain(langevin.ascent(_score(q), delta), x, 1)
    return end.x


def _e6_steps(q: GaussianMixture) -> Chart:
    line = torch.linspace(-2.6, 2.6, 261, dtype=torch.float64)
    start = torch.tensor([1.0], dtype=torch.float64)
    marks = [mark("true", "", line, _log_q(q, line))]
    height = _log_q(q, start).item()
    marks.append(mark("mark", "", [-2.6, 2.6], [height] * 2, "dotted"))
    marks.append(mark("measured", "start", [1.0], [height], "points"))
    notes = [note("start, x = 1", 1.12, height, ha="left")]
    for delta in (0.5, 2.5):
        end = _climbed(q, start, delta)
        role = "true" if delta < 2 else "printed"
        x, y = end.item(), _log_q(q, end).item()
        marks.append(mark(role, "", [1.0, x], [height, y], "dashed"))
        marks.append(mark(role, "", [x], [y], "points"))
        side = ("left", 0.1) if delta < 2 else ("right", -0.1)
        word = "higher" if y > height else "lower"
        notes.append(note(f"$\\delta = {delta:g}$: {word}", x + side[1], y + 0.1, role, side[0]))
    place, height_axis = Axis("x", -3.4, 3.4), Axis(r"$\log q(x)$, nats", -4.4, -0.5)
    return Chart("Where a step from x = 1 lands", place, height_axis, marks, notes, "")


def e7(samples: int, seed: int) -> Erratum:
    """The variance that ULA's chain keeps on N(0, 1) at a fixed delta, beside MALA's.

    Both start at N(0, 1) itself, so that MALA's distribution is N(0, 1) after every move and ULA's
    is normal with the variance of `langevin_law`: the sample variances are chi-squared, exactly.
    """
    q = normal()
    x = torch.randn(samples, generator=seeded(seed), dtype=torch.float64)
    ends = {}
    for k, delta in enumerate(DELTAS):
        ends[delta] = last(langevin.ula(_score(q), delta), x, MOVES, seeded(seed, 1 + k))
    states = {}
    for k, delta in enumerate(TESTED):
        move = langevin.mala(lambda y: (_log_q(q, y), _score(q)(y)), delta)
        states[delta] = last(move, x, MOVES, seeded(seed, 1 + len(DELTAS) + k))
    target = Gaussian(x.new_zeros(1), x.new_ones(()))

    def exact(delta: float) -> float:
        return langevin_law.ula_stationary(target, delta).variance.item()

    chance = FALSE_ALARM / (len(DELTAS) + len(TESTED))
    seen = {delta: end.var().item() for delta, end in ends.items()}
    metropolis = {delta: end.var().item() for delta, end in states.items()}
    off = [variance_off(seen[d], exact(d), samples, chance) for d in DELTAS]
    off += [variance_off(metropolis[d], 1.0, samples, chance) for d in TESTED]
    # A distribution for every delta is refuted by one.
    wrong = max(abs(variance_off(seen[d], 1.0, samples, chance)) for d in DELTAS)
    line = [0.02 * k for k in range(1, 94)]
    shown, at = 1.5, 1.0
    marks = (
        mark("printed", "printed: the limit is N(0, 1)", [0, 1.87], [1, 1], "dashed"),
        mark("true", r"true: $1 / (1 - \delta/2)$", line, [exact(d) for d in line]),
        _variances("measured", "Langevin, 95% interval", seen, samples),
        _variances("other", "with a Metropolis test", metropolis, samples),
    )
    title = f"Variance after {MOVES} moves that start in N(0, 1)"
    left = Chart(title, Axis(SIZE, 0, 1.87), Axis("variance", 0, 9.5), marks, legend="upper left")
    return Erratum(
        id="E7",
        of="C23",
        printed="at a fixed delta the chain's limit is q",
        true="under N(0, 1) its variance is 1 / (1 - delta / 2); with a Metropolis test it is q",
        what=f"Variance of {samples} chains of Langevin at delta = {at:g}; true {exact(at):g}, "
        "printed 1",
        measured=seen[at],
        interval=variance_interval(seen[at], samples, 0.05),
        true_off=max(map(abs, off)),
        printed_off=wrong,
        bound=f"half of the variance's interval, for {len(off)} sets of chains with false alarm "
        f"{FALSE_ALARM:g}, the worst of them for either form",
        charts=[left, _e7_histogram(ends[shown], target, shown)],
        caption=f"{samples} chains on N(0, 1), started from exact samples of it. Without a test "
        "they leave it for a normal of variance 1 / (1 - delta / 2), which tends to 1 only as "
        "delta -> 0; with a Metropolis test they stay.",
        alt="Measured variances on a rising curve, and others on a level line at one; a histogram "
        "twice as wide as the bell it was meant to follow.",
        data={
            "deltas": DELTAS,
            "variance": list(seen.values()),
            "true": [exact(d) for d in DELTAS],
            "deltas_with_metropolis": TESTED,
            "variance_with_metropolis": list(metropolis.values()),
            "moves": MOVES,
        },
    )


def _variances(role: str, label: str, found: dict[float, float], samples: int) -> Series:
    ends = [variance_interval(one, samples, 0.05) for one in found.values()]
    return mark(role, label, list(found), list(found.values()), "points", ends)


def _e7_histogram(x: Tensor, target: Gaussian, delta: float) -> Chart:
    reach = 7.0
    line = torch.linspace(-reach, reach, 281, dtype=torch.float64)
    stationary = langevin_law.ula_stationary(target, delta)

    def bell(exact: Gaussian) -> Tensor:
        return Gaussian(exact.mean.expand_as(line), exact.variance).log_density(line).exp()

    marks = (
        histogram("measured", "chains", x, -reach, reach, 56),
        mark("printed", "printed: N(0, 1)", line, bell(target), "dashed"),
        mark("true", f"true: N(0, {stationary.variance.item():g})", line, bell(stationary)),
    )
    title, place = f"Where the chains are at $\\delta$ = {delta:g}", Axis("x", -reach, reach)
    return Chart(title, place, Axis("density", 0, 0.5), marks, legend="upper left")
