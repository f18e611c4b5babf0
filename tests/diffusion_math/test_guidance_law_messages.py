"""What `guidance_law` says of bad arguments, to the letter."""

import math
import re

import pytest
import torch

from diffusion_math.gaussian import Gaussian
from diffusion_math.guidance_law import (
    around,
    ball,
    box,
    gaussian_guided,
    gaussian_tilted,
    guided_variance,
    log_density,
    tilted,
)
from tests.support.guided_gaussians import CLASSES, NARROW, WIDE, one
from tests.support.tensors import f64

DENOISE = one(*WIDE)[1]
U, C = one(*WIDE)[0], one(*NARROW)[0]
X = f64([0.0])
CASES = [
    (lambda: ball(3), "dimensions: wanted a whole number of at least 1 and at most 2, got 3"),
    (lambda: ball(0), "dimensions: wanted a whole number of at least 1 and at most 2, got 0"),
    (
        lambda: around(torch.zeros(4, 3).double(), 4),
        "image's dimensions: wanted a whole number of at least 1 and at most 2, got 3",
    ),
    (lambda: box([0.0], [1.0], 1), "count: wanted a whole number of at least 2, got 1"),
    (
        lambda: box([0.0, 1.0], [1.0], 4),
        "low, high: wanted as many numbers, low < high, got ((0.0, 1.0), (1.0,))",
    ),
    (
        lambda: box([1.0], [1.0], 4),
        "low, high: wanted as many numbers, low < high, got ((1.0,), (1.0,))",
    ),
    (lambda: box([], [], 4), "low, high: wanted as many numbers, low < high, got ((), ())"),
    (
        lambda: log_density(DENOISE, X, [-1.0]),
        "jumps: wanted noise levels of at least 0, got (-1.0,)",
    ),
    (
        lambda: log_density(DENOISE, X, [1.0, math.nan]),
        "jumps: wanted noise levels of at least 0, got (1.0, nan)",
    ),
    (lambda: log_density(DENOISE, X, rtol=2), "rtol: wanted a number in [1e-13, 1], got 2"),
    (lambda: log_density(DENOISE, X, atol=2), "atol: wanted a number in [1e-13, 1], got 2"),
    (lambda: tilted(CLASSES, 2, 1.0, X), "label: wanted one of 0..1, got 2"),
    (lambda: tilted(CLASSES, -1, 1.0, X), "label: wanted one of 0..1, got -1"),
    (
        lambda: tilted(CLASSES, 1, -1.0, X),
        "scale: wanted a finite number of at least 0, got -1.0",
    ),
    (
        lambda: guided_variance(f64(1.0), f64(0.0), 2.0),
        "conditional: wanted variances > 0, got tensor([0.], dtype=torch.float64)",
    ),
    (
        lambda: guided_variance(f64(0.0), f64(1.0), 2.0),
        "unconditional: wanted variances > 0, got tensor([0.], dtype=torch.float64)",
    ),
    (
        lambda: guided_variance(f64(1.0), f64(1.0), math.inf),
        "scale: wanted a finite number of at least 0, got inf",
    ),
    (
        lambda: guided_variance(f64(1.0), f64(1.0), 2.0, (2.0, 1.0)),
        "interval: wanted two numbers, 0 <= low < high, got (2.0, 1.0)",
    ),
    (
        lambda: gaussian_tilted(U, C, math.nan),
        "scale: wanted a finite number of at least 0, got nan",
    ),
    (lambda: gaussian_tilted(C, U, 7), "scale: wanted a density with an integral, got 7"),
    (lambda: gaussian_guided(U, C, -1), "scale: wanted a finite number of at least 0, got -1"),
    (
        lambda: gaussian_guided(U, Gaussian(f64(1.0), f64(1.0)), 2),
        "conditional.mean: wanted shape (1, 1), got shape (1,)",
    ),
    (
        lambda: gaussian_tilted(U, Gaussian(f64(1.0), f64(1.0)), 2),
        "conditional.mean: wanted shape (1, 1), got shape (1,)",
    ),
    (
        lambda: guided_variance(f64(1.0, 2.0), f64(1.0), 2.0),
        "conditional: wanted shape (2,), got shape (1,)",
    ),
    (
        # (1 - w) / v_u + w / v_c = 0: a flat density.
        lambda: gaussian_tilted(Gaussian(f64(0.0), f64(1.0)), Gaussian(f64(0.0), f64(2.0)), 2),
        "scale: wanted a density with an integral, got 2",
    ),
]


@pytest.mark.usefixtures("unchecked")  # shapes that disagree are among them
@pytest.mark.parametrize(("call", "message"), CASES)
def test_messages(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
