"""The digits' data, likelihood, training and rows; the experiment itself in a few updates."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import norm

from diffusion_math.elbo import lambda_t
from diffusion_math.gaussian import Gaussian
from diffusion_math.schedule import Discrete
from experiments.digits import claims, data, training
from experiments.digits import run as digits
from experiments.digits.data import Digits
from experiments.digits.loss_weights import BOUND, DRAWN, SIMPLE, Outcome, effective_share
from experiments.digits.network import NO_LABEL, PIXELS, DigitNetwork, DigitUNet
from experiments.digits.training import AnyNetwork, Budget, bound_times, learn, sample
from tests.support.chance import Count, pinned, rare, seeded
from tests.support.result_schema import check

SCHEDULE = Discrete.linear()
TINY = digits.Config(
    steps=8, width=8, blocks=1, scales=(2.0,), sampling=3, held_out=30, seeds=2, pair_steps=3,
    bound_steps=5,
)  # fmt: skip


def made(n: int, seed: int = 0, pixels: int = PIXELS) -> Digits:
    levels = torch.randint(0, 17, (n, pixels), generator=pinned(seed))
    return Digits(data.from_levels(levels.float()), torch.arange(n) % 10)


@pytest.mark.parametrize(
    "more", [{}, pytest.param({"unet": True, "side": 16}, marks=pytest.mark.slow)]
)
def test_digits(more: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(digits, "EXAMPLES", 0)  # as if these few were enough to decide
    result = digits.run(replace(TINY, **more))
    check(result, "digits")
    verdicts = {row.name: row.verdict for row in result.rows}
    # Eight updates draw nothing like digits, and write them worse than histograms do.
    assert verdicts["digits"] == verdicts["digits-distance"] == "does not hold"
    assert verdicts["digits-bits-saved"] == "does not hold"
    assert set(result.data["agreement"]) == {"0", "1", "2"}


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")  # shapes have tests of their own
def test_digits_holds() -> None:
    """The default: every verdict that the lecture's claims ask for."""
    pytest.importorskip("sklearn")
    result = digits.run(digits.Config())
    assert {row.verdict for row in result.rows} == {"holds", "measured"}


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_the_unet_learns_the_labels_and_is_guided(monkeypatch: pytest.MonkeyPatch) -> None:
    """1000 steps: the samples are read as their label, and without it at chance."""
    pytest.importorskip("sklearn")
    monkeypatch.setattr(digits, "EXAMPLES", 0)  # 3 steps for the pairs, whose rows are not asked
    config = digits.Config(
        unet=True, steps=1000, scales=(2.0,), seeds=2, pair_steps=3, bound_steps=5
    )
    verdicts = {row.name: row.verdict for row in digits.run(config).rows}
    for name in ("digits", "digits-free", "digits-guided-2", "digits-distance"):
        assert verdicts[name] == "holds", name


def test_the_split_shares_no_digit() -> None:
    pytest.importorskip("sklearn")
    train, test = data.load(400, 1)
    assert (len(train.x), len(test.x)) == (data.COUNT - 400, 400)
    assert torch.equal(data.from_levels(data.to_levels(train.x)), train.x)
    again = data.load(400, 1)[1]
    other = data.load(400, 2)[1]
    assert torch.equal(again.x, test.x)
    assert not torch.equal(other.x, test.x)
    whole = torch.cat([train.x, test.x]).sum()
    assert torch.isclose(whole, torch.cat([*(one.x for one in data.load(9, 3))]).sum())


@pytest.mark.parametrize("std", [0.01, 0.07, 0.5])
def test_levels_have_the_normals_bins(std: float) -> None:
    """By scipy's distribution function: all 17 levels, the lowest bin open, the highest closed.

    256 levels on the same range (bins of 1/255) give another number at every std.
    """
    mean = 0.3
    x0 = data.from_levels(torch.arange(17, dtype=torch.float64))[:, None]
    p = Gaussian(torch.full_like(x0, mean), torch.tensor(std**2, dtype=torch.float64))
    found = data.level_log_probability(p, x0).exp().numpy()
    edges = (x0[:, 0].numpy() - 1 / 16, x0[:, 0].numpy() + 1 / 16)
    edges[0][0] = -math.inf
    wanted = norm.cdf(edges[1], mean, std) - norm.cdf(edges[0], mean, std)
    # The bins' ends are a few roundings of a number near 1, in units of std.
    assert found == pytest.approx(wanted, abs=1e-13 / std)
    assert found.sum() == pytest.approx(norm.cdf(17 / 16, mean, std), abs=1e-12 / std)


def test_histogram_is_the_count_of_the_training() -> None:
    train, test = made(50, pixels=3), made(7, 1, pixels=3)
    found = data.histogram_bits(train, test)
    for k in range(7):
        total = 0.0
        for i in range(3):
            seen = int((train.x[:, i] == test.x[k, i]).sum())
            total -= math.log2((seen + 1) / (50 + 17))
        assert found[k].item() == pytest.approx(total / 3, rel=1e-6)


def test_one_normal_is_charged_more_than_its_bins_hold() -> None:
    """Jensen's bound, averaged over u, lies above -log2 P of the bin by a fine grid, and near it
    for a wide normal; without the bins' volume it would lie 3 bits above."""
    train = made(60, pixels=2)
    p = data.normal(train, pinned(0))
    one = Digits(train.x[:1].expand(20_000, 2), train.labels[:1].expand(20_000))
    bound = data.normal_bits(p, one, pinned(1)).mean().item()
    inner = (torch.arange(60, dtype=torch.float64) + 0.5) / 60 / 8 - 1 / 16
    at = train.x[0].double() + torch.cartesian_prod(inner, inner)
    mass = p.log_density(at).exp().mean() / 64
    exact = -mass.log2().item() / 2
    assert -1e-3 < bound - exact < 0.1


def test_copies_are_noticed() -> None:
    train, test = made(200), made(200, 1)
    assert all(data.copies(train, test, train.x[:50]))
    assert sum(data.copies(train, test, test.x)) == 10
    assert claims.copied([True] * 50).measured == 1


def test_independent_pixels_keep_each_pixels_values() -> None:
    train = made(30)
    x = data.shuffled(train, 500, pinned(0))
    for i in (0, 17, 63):
        assert set(x[:, i].tolist()) <= set(train.x[:, i].tolist())
    assert len({tuple(row) for row in x.tolist()}) == 500


SMALL = {
    "layers": Budget(width=8, blocks=1, steps=6, batch=40),
    "U-Net": Budget(width=8, blocks=1, steps=6, batch=40, unet=True),
}


def moved(budget: Budget, drop: float) -> set[int]:
    """The labels whose embedding a training changes."""
    before, after = (
        learn(SCHEDULE, made(40), one, 0, drop).label.weight
        for one in (replace(budget, rate=0.0, steps=1), budget)
    )
    return set((before != after).any(1).nonzero().flatten().tolist())


@pytest.mark.parametrize("network", SMALL)
def test_a_dropped_label_teaches_no_label(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With drop = 1 only the null class is learned, with drop = 0 only the digits (C28)."""
    assert NO_LABEL == 10
    assert moved(SMALL[network], 0.0) == set(range(10))
    assert moved(SMALL[network], 1.0) == {NO_LABEL}
    assert moved(SMALL[network], 0.5) == set(range(11))
    monkeypatch.setattr(training, "NO_LABEL", 0)  # wrong: a dropped label becomes digit 0
    assert moved(SMALL[network], 1.0) == {0}


def hears(network: AnyNetwork, w: float) -> bool:
    """Whether samples of another label, from the same noise, are others."""
    labels = torch.zeros(3, dtype=torch.long), torch.full((3,), 7)
    one, other = (sample(SCHEDULE, network, label, 3, pinned(0), w) for label in labels)
    return not torch.equal(one, other)


@pytest.mark.parametrize("network", SMALL)
def test_guidance_of_zero_does_not_hear_the_label(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = learn(SCHEDULE, made(40), SMALL[network], 0)
    assert [hears(trained, w) for w in (0.0, 1.0, 2.0)] == [False, True, True]
    for kind in (DigitNetwork, DigitUNet):  # wrong: the label is ignored
        given = kind.given
        monkeypatch.setattr(kind, "given", lambda self, label, given=given: given(self, 0 * label))
    assert [hears(trained, w) for w in (0.0, 1.0, 2.0)] == [False, False, False]


@pytest.mark.parametrize("side", [8, 16, 32])
def test_an_enlarged_digit_repeats_each_pixel(side: int) -> None:
    digits, times = made(3), side // 8
    wide = data.enlarged(digits, side)
    images = wide.x.reshape(3, side, side)
    for r, c in ((0, 0), (side - 1, 1), (side // 2, side - 1)):
        pixel = digits.x.reshape(3, 8, 8)[:, r // times, c // times]
        assert torch.equal(images[:, r, c], pixel)
    assert torch.equal(data.reduced(wide.x), digits.x)
    budget = replace(SMALL["U-Net"], steps=1)
    network = learn(SCHEDULE, wide, budget, 0)
    assert sample(SCHEDULE, network, wide.labels, 2, pinned(0), 2.0).shape == (3, side**2)


def test_the_bits_of_an_enlarged_digit_are_counted_on_its_own_pixels() -> None:
    """A network that predicts no noise at all: four equal pixels need four times the bits of one.

    To 5%, since each has its own noise. Without the factor, the ratio is 1.
    """
    found = {}
    for side in (8, 16):
        network = DigitUNet(side, 8, 1, pinned(0))
        for weight in network.unet.conv_out.parameters():
            torch.nn.init.zeros_(weight)
        config = replace(TINY, unet=True, side=side)
        codes = digits._codes(config, SCHEDULE, network.requires_grad_(False), made(40), made(20))
        found[side] = [each.mean().item() for each in codes.values()]
    for wide, narrow, ratio in zip(found[16], found[8], (4, 4, 1, 1, 1), strict=True):
        assert wide / narrow == pytest.approx(ratio, rel=0.05)


@pytest.mark.chance(2e-9, "uniform times")
def test_times_are_drawn_in_proportion_to_lambda() -> None:
    """The share of t <= 10."""
    n = 20_000
    t = bound_times(SCHEDULE)(SCHEDULE, seeded(0), n)
    every = lambda_t(SCHEDULE, torch.arange(1, 1001))
    wanted = float(every[:10].sum() / every.sum())
    share = Count(n, wanted, 1e-9)
    assert share.holds(int((t <= 10).sum()))
    assert rare(share.misses(0.01))
    assert t.min() >= 1
    assert t.max() <= 1000
    assert 0.1 < effective_share(SCHEDULE) < 0.3
    constant = Discrete(torch.tensor([0.1, 0.1]))
    a, b = lambda_t(constant, torch.tensor([1, 2])).tolist()
    assert effective_share(constant) == pytest.approx((a + b) ** 2 / (a**2 + b**2) / 2)


def test_the_rows_can_fail() -> None:
    """Real digits stand for perfect draws; labels off by one are rejected, and equal weights."""
    right, wrong, chance = [True] * 200, [False] * 200, [k % 10 == 0 for k in range(200)]

    def verdicts(free: list[bool], agreement_1: list[bool], guided: list[bool]) -> list[str]:
        rows = claims.agreement({0.0: free, 1.0: agreement_1, 2.0: guided}, right)
        return [row.verdict for row in rows if row.name != "digits-real"]

    assert verdicts(chance, right, right) == ["holds"] * 3
    assert verdicts(right, wrong, wrong)[:2] == ["does not hold"] * 2
    assert verdicts(chance, right, wrong)[2] == "does not hold"
    better = [Outcome(0.02 + k / 1000, 0.95 + k / 100, 4.0) for k in range(4)]
    worse = [Outcome(0.05 + k / 1000, 0.85 + k / 200, 4.0 + k) for k in range(4)]
    budget = Budget(8, 1, 10)
    for simple, other, wanted in (
        (better, worse, "holds"),
        (better, better, "does not hold"),
        (worse, better, "does not hold"),
    ):
        rows = claims.weight({SIMPLE: simple, BOUND: other, DRAWN: other}, budget, 0.2)
        assert {row.name: row.verdict for row in rows}["digits-simple"] == wanted
