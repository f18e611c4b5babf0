"""Noise for samplers that read one Brownian motion over sigma, by the ends of an increment."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Increments:
    """Increments of one Brownian motion over sigma, each divided by its standard deviation.

    A second ask from the same sigma goes on from where the first one ended.
    """

    def __init__(self, draw: Callable[[], Tensor]) -> None:
        self.draw, self.last = draw, (math.nan, math.nan, torch.zeros(()))

    def __call__(self, sigma: Any, sigma_next: Any) -> Tensor:
        start, end = float(sigma), float(sigma_next)
        before, middle, path = self.last
        if start == before and end < middle:
            path = path + math.sqrt(middle - end) * self.draw()
        else:
            path = math.sqrt(start - end) * self.draw()
        self.last = (start, end, path)
        return path / math.sqrt(start - end)
