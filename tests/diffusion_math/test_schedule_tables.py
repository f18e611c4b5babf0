"""Tables of betas: long ones in linear time, their sums rounded once, the cosine's cap."""

import math
import time
from itertools import pairwise

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math.schedule import MOST, Discrete, _running_sums


@given(
    st.lists(
        st.floats(1e-300, 0.999) | st.sampled_from([1e-300, 1e-16, 0.5]), min_size=1, max_size=60
    )
)
def test_a_running_sum_is_rounded_once(betas):
    """Against fsum of every prefix, as the table is made of; to the last bit but one."""
    logs = torch.log1p(-torch.tensor(betas, dtype=torch.float64)).tolist()
    got = _running_sums(torch.tensor(logs, dtype=torch.float64)).tolist()
    wanted = [math.fsum(logs[: k + 1]) for k in range(len(logs))]
    assert got == pytest.approx(wanted, rel=2**-52, abs=0)


def test_a_sum_may_grow_by_more_than_it_is():
    logs = [-0.0024183686636522488, -0.037459273457502995, -0.06233538193621561]
    got = _running_sums(torch.tensor(logs, dtype=torch.float64)).tolist()
    assert got == [math.fsum(logs[: k + 1]) for k in range(3)]


def test_a_long_table_is_right_at_its_end():
    """100,000 equal betas: log abar_t = t log1p(-beta), which a plain running sum misses."""
    T, beta = 100_000, 1e-4
    table = Discrete(torch.full((T,), beta, dtype=torch.float64))
    with mpmath.workdps(40):
        log_abar = [t * mpmath.log1p(-mpmath.mpf(beta)) for t in (1, 777, T)]
        wanted = [float(L - mpmath.log(-mpmath.expm1(L))) for L in log_abar]
    got = table.log_snr(torch.tensor([1.0, 777.0, T], dtype=torch.float64))
    assert got.tolist() == pytest.approx(wanted, rel=4e-16)


def test_time_grows_with_the_table_and_not_with_its_square():
    """Sixteen times the table takes less than 64 times as long (256 by sums of every prefix)."""

    def seconds(T):
        tries = []
        for _ in range(3):
            start = time.process_time()
            Discrete.linear(T, 0.1 / T, 20.0 / T)
            tries.append(time.process_time() - start)
        return min(tries)

    assert seconds(32_000) < 64 * max(seconds(2_000), 1e-3)


def test_a_table_has_an_end():
    for make in (Discrete.linear, Discrete.scaled_linear, Discrete.cosine):
        with pytest.raises(ValueError, match=rf"^steps: .* at most {MOST}, got 1000000000"):
            make(10**9)
    with pytest.raises(ValueError, match=rf"^betas: wanted at most {MOST} entries, got {MOST + 1}"):
        Discrete(torch.full((MOST + 1,), 1e-7))
    assert Discrete(torch.full((MOST,), 1e-5, dtype=torch.float64)).T == MOST


def test_the_least_beta_is_float64_s_least_normal_number():
    tiny = torch.finfo(torch.float64).tiny
    least = Discrete(torch.tensor([tiny], dtype=torch.float64))
    assert least.log_snr(1).item() == pytest.approx(-math.log(tiny), rel=1e-15)
    with pytest.raises(ValueError, match=r"^betas: wanted all in \(0, 1\), got"):
        Discrete(torch.tensor([tiny / 2], dtype=torch.float64))


@pytest.mark.parametrize("largest", [0.999, 0.5, 0.1, 0.02])
def test_the_cosine_table_is_capped_where_it_is_told(largest):
    """beta = min(1 - f(t) / f(t - 1), largest): the last ones are it, the first ones below."""
    f = [math.cos(math.pi / 2 * (t / 50 + 0.008) / 1.008) ** 2 for t in range(51)]
    wanted = [min(1 - b / a, largest) for a, b in pairwise(f)]
    table = Discrete.cosine(50, largest=largest)
    assert table.betas.tolist() == pytest.approx(wanted, rel=1e-10)
    assert table.betas[-1] == largest and table.betas[0] < largest
