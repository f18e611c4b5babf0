"""x0, eps, v, flow, score: twenty maps, each against its definition, each inverse to its reverse.

Rounding: a map returns of_x x_t + of_given given, so one EPS in x_t costs |of_x| |x_t| EPS. Out of
eps the coefficients are 1 / alpha_t, out of x0 1 / sigma_t: near t = T and near t = 0 the bound
scales with them, because there x_t holds almost no trace of the wanted quantity. The others are
bounded. Where both alpha_t and sigma_t exceed 0.1 every round trip holds to 1e-12.
"""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math import prediction
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear

EPS = torch.finfo(torch.float64).eps
NAMES = ("x0", "eps", "v", "flow", "score")
PAIRS = list(itertools.permutations(NAMES, 2))
SCHEDULES: list[Schedule] = [
    Discrete.linear(), Discrete.cosine(), VPLinear(), VPCosine(), VE(), RectifiedFlow()
]  # fmt: skip
numbers = st.floats(-10, 10)

each_pair = pytest.mark.parametrize(("given_name", "wanted"), PAIRS)


def convert(
    schedule: Schedule, x_t: torch.Tensor, value: torch.Tensor, t: object, source: str, to: str
) -> torch.Tensor:
    out: torch.Tensor = getattr(prediction, f"{to}_from_{source}")(schedule, x_t, value, t)
    return out


def truth(
    schedule: Schedule, x0: torch.Tensor, eps: torch.Tensor, t: float
) -> dict[str, torch.Tensor]:
    """Everything by its definition from x0 and eps."""
    alpha, sigma = schedule(t)
    return {
        "x_t": alpha * x0 + sigma * eps,
        "x0": x0,
        "eps": eps,
        "v": alpha * eps - sigma * x0,
        "flow": eps - x0,
        "score": -eps / sigma,
    }


def time_of(schedule: Schedule, share: float) -> float:
    t = max(share * schedule.T, schedule.t_min)
    return t if not isinstance(schedule, Discrete) else float(round(t))


@each_pair
@given(
    schedule=st.sampled_from(SCHEDULES),
    share=st.floats(0, 1),
    x0=st.lists(numbers, min_size=3, max_size=3),
    eps=st.lists(numbers, min_size=3, max_size=3),
)
def test_each_map_gives_the_definition(
    given_name: str,
    wanted: str,
    schedule: Schedule,
    share: float,
    x0: list[float],
    eps: list[float],
) -> None:
    t = min(time_of(schedule, share), schedule.t_max)
    alpha, sigma = (c.item() for c in schedule(t))
    all_ = truth(schedule, *(torch.tensor(a, dtype=torch.float64) for a in (x0, eps)), t)
    got = convert(schedule, all_["x_t"], all_[given_name], t, given_name, wanted)
    # The score's own size is |eps| / sigma; its rounding is eps's, whatever sigma.
    size = 10 * (alpha + sigma) + 10
    out_of = {"x0": 1 / sigma, "eps": 1 / alpha, "score": 1 / alpha, "v": 1, "flow": 1}[given_name]
    if wanted == "score" and given_name == "eps":
        out_of = 1.0
    if wanted == "eps" and given_name == "score":
        out_of = 1.0
    scale = max(1.0, 1 / sigma) if wanted == "score" else 1 + alpha + sigma
    bound = 16 * EPS * size * max(out_of, 1.0) * scale
    assert float((got - all_[wanted]).abs().max()) <= bound


@each_pair
@given(
    schedule=st.sampled_from(SCHEDULES),
    share=st.floats(0, 1),
    value=st.lists(numbers, min_size=4, max_size=4),
    x_t=st.lists(numbers, min_size=4, max_size=4),
)
def test_each_map_is_the_inverse_of_its_reverse(
    given_name: str,
    wanted: str,
    schedule: Schedule,
    share: float,
    value: list[float],
    x_t: list[float],
) -> None:
    """1e-12 relative to the largest number involved, where 0.1 <= alpha, sigma <= 1; elsewhere
    the bound grows by (1 / alpha_t + 1 / sigma_t)^2, as the worst pair does: x0, score."""
    t = min(time_of(schedule, share), schedule.t_max)
    alpha, sigma = (c.item() for c in schedule(t))
    x, v = (torch.tensor(a, dtype=torch.float64) for a in (x_t, value))
    there = convert(schedule, x, v, t, given_name, wanted)
    back = convert(schedule, x, there, t, wanted, given_name)
    largest = max(1.0, *(float(a.abs().max()) for a in (x, v, there)))
    conditioned = alpha >= 0.1 and 0.1 <= sigma <= 1
    condition = 1.0 if conditioned else (1 + sigma) ** 2 * (1 / alpha + 1 / sigma) ** 2
    assert float((back - v).abs().max()) <= 1e-12 * largest * condition


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s}"[:9])
@pytest.mark.parametrize("t", ["scalar", "batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtypes_and_batches(schedule: Schedule, t: str, dtype: torch.dtype) -> None:
    """t of shape () or (batch,): each sample gets its own time; the dtype is the sample's."""
    generator = torch.Generator().manual_seed(0)
    x, value = (torch.randn(3, 2, 2, generator=generator, dtype=dtype) for _ in range(2))
    times = torch.tensor([schedule.t_min, schedule.t_min, schedule.t_max], dtype=torch.float64)
    for source, to in PAIRS:
        got = convert(schedule, x, value, times if t == "batch" else times[0], source, to)
        assert got.dtype == dtype
        for i in range(3):
            one = times[i] if t == "batch" else times[0]
            alone = convert(schedule, x[i : i + 1], value[i : i + 1], one, source, to)
            assert torch.equal(got[i : i + 1], alone)
    for source, to in PAIRS:
        assert convert(schedule, x[:0], value[:0], times[:0], source, to).shape == (0, 2, 2)


WRONG = {  # the formula as one might get it wrong, in alpha, sigma, x_t and the given quantity
    ("eps", "x0"): {
        "sign": lambda a, s, x, p: (x + s * p) / a,
        "lost division": lambda a, s, x, p: x - s * p,
        "variance for deviation": lambda a, s, x, p: (x - s**2 * p) / a,
        "alpha squared": lambda a, s, x, p: (x - s * p) / a**2,
    },
    ("v", "x0"): {
        "sign": lambda a, s, x, p: a * x + s * p,
        "swapped": lambda a, s, x, p: s * x - a * p,
    },
    ("v", "eps"): {
        "sign": lambda a, s, x, p: s * x - a * p,
        "swapped": lambda a, s, x, p: a * x + s * p,
    },
    ("score", "x0"): {
        "sign": lambda a, s, x, p: (x - s**2 * p) / a,
        "deviation for variance": lambda a, s, x, p: (x + s * p) / a,
        "lost division": lambda a, s, x, p: x + s**2 * p,
    },
    ("eps", "score"): {
        "sign": lambda a, s, x, p: p / s,
        "variance for deviation": lambda a, s, x, p: -p / s**2,
        "E8: multiplied, not divided": lambda a, s, x, p: -p * s,
    },
    ("flow", "x0"): {
        "sign": lambda a, s, x, p: x + s * p,
        "towards data": lambda a, s, x, p: x + (1 - s) * p,
    },
}


@pytest.mark.parametrize(
    ("pair", "name"), [(pair, name) for pair, wrongs in WRONG.items() for name in wrongs]
)
def test_wrong_maps_are_rejected(pair: tuple[str, str], name: str) -> None:
    schedule: Schedule = RectifiedFlow() if pair[0] == "flow" else VPCosine()
    x0, eps = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 0.7]).double()
    all_ = truth(schedule, x0, eps, 0.4)
    alpha, sigma = schedule(0.4)
    right = convert(schedule, all_["x_t"], all_[pair[0]], 0.4, *pair)
    wrong = WRONG[pair][name](alpha, sigma, all_["x_t"], all_[pair[0]])
    assert torch.allclose(right, all_[pair[1]], rtol=1e-13, atol=1e-13)
    assert float((wrong - all_[pair[1]]).abs().max()) > 1e-2


def test_the_maps_in_symbols() -> None:
    """q det(x, p) = x det(q, p) + p det(x, q) for any three plane vectors: all maps at once."""
    import sympy

    x, p, q = (sympy.Matrix(sympy.symbols(f"{n}:2")) for n in "xpq")

    def det(a: sympy.Matrix, b: sympy.Matrix) -> sympy.Expr:
        return sympy.Matrix.hstack(a, b).det()

    assert sympy.simplify(q * det(x, p) - x * det(q, p) - p * det(x, q)) == sympy.zeros(2, 1)


@pytest.mark.parametrize("schedule", [VPCosine(), RectifiedFlow()])
def test_at_the_ends_a_map_exists_or_is_refused(schedule: Schedule) -> None:
    x, value = torch.ones(2, dtype=torch.float64), torch.full((2,), 2.0, dtype=torch.float64)
    refused = {
        0.0: {(p, q) for p, q in PAIRS if p == "x0" or q == "score"},
        schedule.T: {(p, q) for p, q in PAIRS if p in ("eps", "score")}
        - {("eps", "score"), ("score", "eps")},
    }
    for t, illegal in refused.items():
        for pair in PAIRS:
            if pair in illegal:
                with pytest.raises(ValueError, match=r"^t: wanted"):
                    convert(schedule, x, value, t, *pair)
            else:
                assert bool(convert(schedule, x, value, t, *pair).isfinite().all())
    # At t = 0, x_t is x0 whatever the network says; at T it is eps.
    for source in ("eps", "v", "flow", "score"):
        assert torch.equal(convert(schedule, x, value, 0.0, source, "x0"), x)
    for source in ("x0", "v", "flow"):
        assert torch.allclose(convert(schedule, x, value, schedule.T, source, "eps"), x)


@each_pair
@pytest.mark.usefixtures("unchecked")
def test_shapes_must_agree(given_name: str, wanted: str) -> None:
    x = torch.ones(2, 3)
    with pytest.raises(
        ValueError, match=rf"^{given_name}: wanted shape \(2, 3\), got shape \(3,\)"
    ):
        convert(VPCosine(), x, torch.ones(3), 0.5, given_name, wanted)
    with pytest.raises(ValueError, match=r"^t or a coefficient: wanted shape \(\) or \(batch,\)"):
        convert(VPCosine(), x, x, torch.full((3,), 0.5), given_name, wanted)
    with pytest.raises(ValueError, match=r"^t: wanted"):
        convert(VPCosine(), torch.ones(2), torch.ones(2), math.nan, given_name, wanted)
