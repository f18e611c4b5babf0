"""`assert_posterior` and `assert_learned_variance`: right code passes, mistakes are named."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_math import gaussian
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPLinear
from diffusion_math.testing.assertions.learned_variance import assert_learned_variance
from diffusion_math.testing.assertions.posterior import assert_posterior
from diffusion_math.testing.mistakes.diagnosis import MistakeError
from diffusion_math.variance import large_variance, small_variance

pytestmark = pytest.mark.usefixtures("unchecked")  # many calls; shapes have tests of their own

T = 40
SCHEDULE = Discrete.linear(T, 1e-3, 0.1)
CASES: dict[str, tuple[Schedule, list[float]]] = {
    "linear": (Discrete.linear(), list(range(1, 1001))),
    "cosine": (Discrete.cosine(200), list(range(1, 201))),
    "SD": (Discrete.scaled_linear(), list(range(1, 1001))),
    "VP": (VPLinear(), [0.001, 0.01, 0.1, 0.5, 0.9, 1.0]),
    "VE": (VE(), [0.01, 0.1, 0.4, 1.0]),
    "EDM": (VE(), [0.002, 0.1, 1.0, 80.0]),
    "flow": (RectifiedFlow(), [0.01, 0.3, 0.7, 0.99]),
}


class DDPM:
    """Tables as people write them, from betas in one dtype; index 0 is the first."""

    def __init__(self, dtype: torch.dtype = torch.float64, betas: Tensor = SCHEDULE.betas) -> None:
        self.betas = betas.to(dtype)
        self.abar = torch.cumprod(1 - self.betas, 0)
        self.prev = torch.cat([torch.ones(1, dtype=dtype), self.abar[:-1]])
        self.variance = self.betas * (1 - self.prev) / (1 - self.abar)
        self.c0 = self.betas * self.prev.sqrt() / (1 - self.abar)
        self.c1 = (1 - self.prev) * (1 - self.betas).sqrt() / (1 - self.abar)
        self.clipped = torch.cat([self.variance[1:2], self.variance[1:]]).log()

    def levels(self, i: int) -> tuple[Tensor, Tensor]:
        return self.abar[i].sqrt(), (1 - self.abar[i]).sqrt()

    def posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = self.c0[t][:, None] * x0 + self.c1[t][:, None] * x_t
        return mean, self.variance[t][:, None], self.clipped[t][:, None]


def check(ddpm: DDPM, posterior: Callable[..., Any] | None = None, **options: Any) -> None:
    length = len(ddpm.betas)
    assert_posterior(posterior or ddpm.posterior, ddpm.levels, range(length), **options)


def diagnoses(ddpm: DDPM, posterior: Callable[..., Any] | None = None, **options: Any) -> list[str]:
    with pytest.raises(MistakeError) as caught:
        check(ddpm, posterior, **options)
    return [one.name for one in caught.value.mistakes]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_our_posterior_passes(case: str, dtype: torch.dtype) -> None:
    schedule, times = CASES[case]
    before = dict(zip(times, [0, *times], strict=False))

    def posterior(x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.tensor([before[each] for each in t.tolist()], dtype=torch.float64)
        q = gaussian.posterior(schedule, x_t, x0, t, s)
        return q.mean, q.variance.to(dtype)

    def levels(t: float) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule(t)
        return alpha, sigma

    assert_posterior(posterior, levels, times, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "betas", [SCHEDULE.betas, Discrete.linear().betas, Discrete.cosine().betas], ids=str
)
def test_tables_as_people_write_them_pass(betas: Tensor, dtype: torch.dtype) -> None:
    ddpm = DDPM(dtype, betas)
    check(ddpm, dtype=dtype)
    check(
        ddpm,
        lambda x0, x, t: ddpm.posterior(x0, x, t)[::2],
        spread="log-variance",
        first="second",
        dtype=dtype,
    )


def test_any_pair_of_times_passes_and_a_guessed_one_fails() -> None:
    def posterior(x0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        q = gaussian.posterior(SCHEDULE, x_t, x0, t, s)
        return q.mean, q.variance

    pairs = [(t, s) for t in range(2, T + 1, 3) for s in range(1, t, 4)]
    assert_posterior(posterior, SCHEDULE, range(1, T + 1), pairs=pairs)
    with pytest.raises(MistakeError, match="every coefficient is its right value, with the"):
        assert_posterior(
            lambda x0, x, t, s: posterior(x0, x, t, (s - 1).clamp(0)),
            SCHEDULE,
            range(1, T + 1),
            pairs=pairs,
        )


def test_functions_of_one_time_and_of_numpy_pass() -> None:
    ddpm = DDPM()

    def one(x0: Tensor, x_t: Tensor, t: int) -> tuple[np.ndarray, float]:
        assert isinstance(t, int) and x0.shape == (1, 4)
        return (ddpm.c0[t] * x0 + ddpm.c1[t] * x_t).numpy(), float(ddpm.variance[t])

    check(ddpm, one, batched=False)
    ddpm.c1 = ddpm.c1 * 1.01
    with pytest.raises(MistakeError, match="coefficient of x_t differs at 39 of 40"):
        check(ddpm, one, batched=False)


def planted(**tables: Callable[[DDPM], Tensor]) -> DDPM:
    ddpm = DDPM()
    for name, table in tables.items():
        setattr(ddpm, name, table(ddpm))
    return ddpm


MISTAKES: dict[str, tuple[Callable[[], DDPM], str]] = {
    "beta": (
        lambda: planted(variance=lambda d: d.betas),
        "is beta, the upper bound of the variance",
    ),
    "brackets": (
        lambda: planted(variance=lambda d: d.betas * (1 - d.prev) / 1.0 - d.abar),
        "is that of beta (1 - abar_s) / 1 - abar_t: brackets are missing",
    ),
    "1e-20": (
        lambda: planted(variance=lambda d: d.variance.clamp(min=1e-20)),
        "at the first time is clipped at 1e-20; if that is meant, first=1e-20",
    ),
    "second": (
        lambda: planted(variance=lambda d: d.clipped.exp()),
        "at the first time is that of the second; if that is meant, first='second'",
    ),
    "deviation": (
        lambda: planted(variance=lambda d: d.variance.sqrt()),
        "is sqrt(its right value)",
    ),
    "previous": (
        lambda: planted(variance=lambda d: d.variance[(torch.arange(T) - 1).clamp(0)]),
        "is its right value of index t - 1",
    ),
    "wrapped": (
        lambda: planted(variance=lambda d: d.variance.roll(1)),
        "is its right value of index t - 1, where -1 is the last",
    ),
    "mirrored": (
        lambda: planted(variance=lambda d: d.variance.flip(0)),
        "is its right value of the index counted from the other end",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_variance_is_named(mistake: str) -> None:
    make, name = MISTAKES[mistake]
    assert diagnoses(make()) == [f"the variance {name}"]


def test_wrong_coefficients_are_named() -> None:
    assert diagnoses(planted(c0=lambda d: d.betas * d.abar.sqrt() / (1 - d.abar))) == [
        "the coefficient of x0 is its right value times alpha_t / alpha_s"
    ]
    assert diagnoses(planted(c1=lambda d: (1 - d.prev) * (1 - d.betas) / (1 - d.abar))) == [
        "the coefficient of x_t is its right value times alpha_t / alpha_s"
    ]
    d = DDPM()
    d.c0, d.c1 = d.c1, d.c0
    assert diagnoses(d) == ["x0 and x_t are exchanged"]
    d = DDPM()
    assert diagnoses(d, lambda x0, x, t: d.posterior(x0, x, (t - 1).clamp(0))) == [
        "every coefficient is its right value of index t - 1"
    ]


@pytest.mark.parametrize(
    ("before", "name"),
    [
        (lambda abar: abar.roll(1), "read at index -1, the last, where it is 1"),
        (lambda abar: torch.cat([abar[:1], abar[:-1]]), "that of the first time, where it is 1"),
        (lambda abar: abar, "abar_t, of the time itself"),
        (lambda abar: torch.cat([torch.ones(2), abar[:-2]]), "that of the time before s"),
    ],
)
def test_another_abar_of_the_time_before_is_named(
    before: Callable[[Tensor], Tensor], name: str
) -> None:
    d = DDPM()
    prev = before(d.abar)
    d.c0 = d.betas * prev.sqrt() / (1 - d.abar)
    d.c1 = (1 - prev) * (1 - d.betas).sqrt() / (1 - d.abar)
    d.variance = d.betas * (1 - prev) / (1 - d.abar)
    assert diagnoses(d) == [f"abar_s, of the time before, is {name}"]


def test_the_previous_table_padded_at_the_wrong_end_is_named() -> None:
    d = DDPM()
    wrong = DDPM()
    wrong.prev = torch.cat([d.abar[:-1], torch.ones(1)])
    ratio = wrong.abar / wrong.prev
    beta = 1 - ratio
    wrong.variance = beta * (1 - wrong.prev) / (1 - d.abar)
    wrong.c0 = beta * wrong.prev.sqrt() / (1 - d.abar)
    wrong.c1 = (1 - wrong.prev) * ratio.sqrt() / (1 - d.abar)
    assert diagnoses(d, wrong.posterior) == [
        "every coefficient is its right value, with t's level where that of s, the earlier time, "
        "belongs, clean data at the last"
    ]


def test_an_offset_is_told() -> None:
    d = DDPM()
    with pytest.raises(MistakeError, match="the offset differs at 40 of 40 indices"):
        check(d, lambda x0, x, t: (d.posterior(x0, x, t)[0] + 1, d.variance[t]))


@pytest.mark.parametrize("spread", ["variance", "deviation", "log-variance"])
def test_each_spread_passes_and_another_is_named(spread: str) -> None:
    d = DDPM()
    forms = {"variance": lambda v: v, "deviation": torch.sqrt, "log-variance": torch.log}
    for given, form in forms.items():
        d.variance = form(DDPM().variance)
        if given == spread:
            check(d, spread=spread)
        else:
            assert diagnoses(d, spread=spread)


@pytest.mark.parametrize(
    ("posterior", "message"),
    [
        (lambda x0, x, t: x0, "wanted 2 results, got Tensor"),
        (lambda x0, x, t: (x0,), "wanted 2 results, got tuple of 1"),
        (lambda x0, x, t: (x0, x0[:, :3]), r"wanted a result of shape \(40, 4\), got \(40, 3\)"),
        (lambda x0, x, t: (x0, None), "wanted an array, got NoneType"),
        (lambda x0, x, t: {}["mean"], "raised KeyError: 'mean'"),
        (lambda x0, x: (x0, x), "raised TypeError"),
        (lambda x0, x, t: (x0 + x, 0.1 * x0), "the variance depends on x0 or x_t"),
    ],
)
def test_what_is_no_posterior_is_one_line(posterior: Callable[..., Any], message: str) -> None:
    with pytest.raises(AssertionError, match=f"^posterior: {message}") as caught:
        check(DDPM(), posterior)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spread": "std"}, "spread: wanted one of variance, deviation, log-variance, got 'std'"),
        ({"first": "third"}, "first: wanted a number or 'second', got 'third'"),
        ({"first": -1}, "first: wanted a number of at least 0, or 'second'"),
        ({"pairs": []}, "pairs: wanted at least one pair"),
        ({"pairs": [(3, 5)]}, "pairs: wanted s less noisy"),
        ({"pairs": [(3, 1)], "first": "second"}, "first: wanted 0, the exact one, with pairs"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        check(DDPM(), **options)


def learned(mix: Callable[[Tensor, Tensor, Tensor], Tensor], dtype: torch.dtype = torch.float64):  # type: ignore[no-untyped-def]
    t = torch.arange(1, T + 1)
    large, small = large_variance(SCHEDULE, t, t - 1), small_variance(SCHEDULE, t, t - 1)
    small[0] = small[1]
    large, small = large.log().to(dtype), small.log().to(dtype)
    return lambda v, t: mix(v, large[t][:, None], small[t][:, None])


def levels(i: int) -> tuple[Tensor, Tensor]:
    return SCHEDULE(i + 1)


def geometric(v: Tensor, large: Tensor, small: Tensor) -> Tensor:
    frac = (v + 1) / 2
    return frac * large + (1 - frac) * small


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_learned_variance_passes_in_each_form(dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"dtype": dtype}
    log = learned(geometric, dtype)
    assert_learned_variance(log, levels, range(T), **options)
    assert_learned_variance(
        lambda v, t: log(v, t).exp(), levels, range(T), spread="variance", **options
    )
    assert_learned_variance(
        lambda v, t: (log(v, t) / 2).exp(), levels, range(T), spread="deviation", **options
    )
    assert_learned_variance(
        lambda v, t: log(2 * v - 1, t), levels, range(T), ends=(0, 1), **options
    )
    one = lambda v, t: log(v, torch.tensor([t]))  # noqa: E731
    assert_learned_variance(one, levels, range(T), batched=False, **options)


LEARNED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "v = -1 to 1 is used as the share of log beta, 0 to 1": lambda v, a, b: v * a + (1 - v) * b,
    "beta and beta~ are exchanged": lambda v, a, b: geometric(v, b, a),
    "the mean of beta and beta~ is arithmetic, not geometric": (
        lambda v, a, b: ((v + 1) / 2 * a.exp() + (1 - v) / 2 * b.exp()).log()
    ),
    "the variance is beta whatever v is": lambda v, a, b: a,
    "the variance is beta~ whatever v is": lambda v, a, b: b,
}


@pytest.mark.parametrize("name", LEARNED)
def test_a_wrong_learned_variance_is_named(name: str) -> None:
    with pytest.raises(MistakeError) as caught:
        assert_learned_variance(learned(LEARNED[name]), levels, range(T))
    assert [one.name for one in caught.value.mistakes] == [name]


def test_a_share_of_zero_to_one_that_is_scaled_again_is_named() -> None:
    with pytest.raises(MistakeError) as caught:
        assert_learned_variance(learned(geometric), levels, range(T), ends=(0, 1))
    (one,) = caught.value.mistakes
    assert one.name == "v = 0 to 1, the share of log beta, is scaled as from -1 to 1"


def test_bad_arguments_of_a_learned_variance_are_refused() -> None:
    variance = learned(geometric)
    with pytest.raises(ValueError, match="ends: wanted two numbers"):
        assert_learned_variance(variance, levels, range(T), ends=(1, -1))
    with pytest.raises(ValueError, match="first: wanted 'second' or a positive number, got 0"):
        assert_learned_variance(variance, levels, range(T), first=0)
    with pytest.raises(ValueError, match="first: wanted a number of at least 0, or 'second' with"):
        assert_learned_variance(variance, levels, [0])
    with pytest.raises(ValueError, match="spread: wanted one of"):
        assert_learned_variance(variance, levels, [0], spread="std")  # type: ignore[arg-type]


def test_an_arithmetic_mean_with_the_first_variance_0_is_named() -> None:
    t = torch.arange(1, T + 1)
    large, small = large_variance(SCHEDULE, t, t - 1), small_variance(SCHEDULE, t, t - 1)

    def variance(v: Tensor, t: Tensor) -> Tensor:
        return (v + 1) / 2 * large[t][:, None] + (1 - v) / 2 * small[t][:, None]

    with pytest.raises(MistakeError) as caught:
        assert_learned_variance(variance, levels, range(T), spread="variance", first=1e-20)
    assert [one.name for one in caught.value.mistakes] == [
        "the mean of beta and beta~ is arithmetic, not geometric"
    ]
