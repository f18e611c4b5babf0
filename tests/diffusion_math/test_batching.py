"""Functions of rows against torch's own, and blocks against the whole."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from diffusion_math import _batching
from diffusion_math.schedule import VPLinear
from tests.support.mixtures import FORMS, mixture, normal, seeded

WIDTHS = (1, 2, 8, 9, 32, 33, 100)
"""On both sides of each choice by width."""


@pytest.mark.parametrize("width", WIDTHS)
def test_reductions_of_rows_are_torchs(width):
    """Sums, softmax and log-sum-exp to rounding, their derivatives too; rows of any size."""
    for n in (0, 1, 5):
        x = 30 * normal(seeded(width), n, width)
        torch.testing.assert_close(_batching.sums(x), x.sum(1), rtol=0, atol=1e-12)
        torch.testing.assert_close(_batching.softmax(x), x.softmax(1), rtol=1e-13, atol=0)
        log_sum, shares = _batching.normalised(x)
        torch.testing.assert_close(log_sum, x.logsumexp(1), rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(shares, x.softmax(1), rtol=1e-13, atol=0)
    x = normal(seeded(width), width)

    def each(f):
        return torch.autograd.functional.jacobian(lambda row: f(row[None])[0], x)

    torch.testing.assert_close(each(_batching.softmax), each(lambda row: row.softmax(1)))
    torch.testing.assert_close(each(lambda row: _batching.normalised(row)[0]), x.softmax(0))
    torch.testing.assert_close(
        each(lambda row: _batching.normalised(row)[1]), each(lambda row: row.softmax(1))
    )


def test_no_columns_sum_to_nothing():
    assert _batching.sums(torch.zeros(3, 0)).tolist() == [0, 0, 0]


def test_numbers_far_from_zero_do_not_overflow():
    x = torch.tensor([[1e3, 1e3], [-1e3, -1e3]], dtype=torch.float64)
    log_sum, shares = _batching.normalised(x)
    assert log_sum.tolist() == x.logsumexp(1).tolist()
    assert shares.tolist() == [[0.5, 0.5]] * 2


@pytest.mark.parametrize("event", [(), (1,), (2, 3), (4, 5, 6)])
def test_over_event_keeps_the_first_axis_alone(event):
    x = normal(seeded(3), 4, *event)
    wanted = torch.stack([one.sum() for one in x])
    torch.testing.assert_close(_batching.over_event(x), wanted, rtol=0, atol=1e-12)
    assert _batching.over_event(torch.tensor(2.0)) == 2


@pytest.mark.parametrize(
    ("n", "width"), [(0, 7), (1, _batching.BLOCK + 1), (5, _batching.BLOCK // 2)]
)
def test_blocks_hold_what_a_block_may(n, width):
    """Every row once and in order; no block of more numbers than BLOCK, if it has two rows."""
    seen = []

    def function(x):
        seen.append(len(x))
        return 2 * x

    x = torch.arange(n * 2.0).reshape(n, 2)
    assert torch.equal(_batching.in_blocks(function, x, width), 2 * x)
    assert sum(seen) == n
    assert all(size <= 1 or size * width <= _batching.BLOCK for size in seen)
    assert len(seen) <= 1 + n * width // _batching.BLOCK


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("event", [(), (2,), (2, 2)])
def test_density_and_score_in_one_pass(form, event):
    """The pair is the two alone, in their dtypes, at one time and at a time each."""
    data, schedule = mixture(form, event), VPLinear()
    x = 2 * normal(seeded(1), 6, *event)
    for t in (0.3, torch.tensor([0.1, 0.9, 0.1, 1.0, 0.5, 0.5], dtype=torch.float64)):
        for point in (x, x.float()):
            log_q, score = data.log_density_and_score(schedule, point, t)
            wanted = data.score(schedule, point, t)
            assert (log_q.dtype, score.dtype) == (torch.float64, point.dtype)
            density = data.log_density(schedule, point, t)
            torch.testing.assert_close(log_q, density, rtol=1e-13, atol=1e-13)
            rounding = torch.finfo(point.dtype).eps
            scale = wanted.abs().max().item()
            torch.testing.assert_close(score, wanted, rtol=0, atol=8 * rounding * scale)


def test_a_sum_within_a_sum_is_multiplied_out():
    """c (a x + b y) + d x is (c a + d) x + c b y, in one rounding of each coefficient."""
    x, y = normal(seeded(1), 2, 3, 4)
    each = torch.tensor([0.5, -2.0, 4.0], dtype=torch.float64)
    for c in (0.25, torch.tensor(0.25, dtype=torch.float64), each):
        inside = ((2.0, x), (-0.5, y))
        found = _batching.combined((c, inside), (3.0, x))
        column = c[:, None] if c is each else c
        torch.testing.assert_close(found, (2 * column + 3) * x - column / 2 * y)
        merged = _batching.parts((c, inside), (3.0, x))
        assert [part is one for (_, part), one in zip(merged, (x, y), strict=True)] == [True] * 2
    assert torch.equal(_batching.combined((1.0, inside)), _batching.combined(*inside))


def test_a_number_serves_inside_and_outside_inference_mode():
    """It is made once: what one mode makes must carry gradients in the other."""
    with torch.inference_mode():
        _batching.combined((0.8125, torch.ones(2)), (0.6875, torch.ones(2)))
    x = torch.ones(2, requires_grad=True)
    _batching.combined((0.8125, x), (0.6875, x.square())).sum().backward()
    assert x.grad.tolist() == [0.8125 + 2 * 0.6875] * 2
    with FakeTensorMode(allow_non_fake_inputs=True):
        _batching.combined((0.15625, torch.ones(2)), (0.34375, torch.ones(2)))
    assert _batching.combined((0.15625, x), (0.34375, x)).tolist() == [0.5] * 2
