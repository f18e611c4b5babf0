"""The parts of dx = f(x, t) dt + g(t) dw as `assert_schedule` takes them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_math.testing.mistakes.levels import LevelsOf
from diffusion_math.testing.mistakes.probes import coefficients, guarded, name_of, parts

__all__ = ["levels_of_marginal", "rates_of_sde"]

Rate = Callable[[Any], float]


def rates_of_sde(sde: Callable[..., Any]) -> tuple[Rate, Rate]:
    """`sde(x, t) -> f(x, t), g(t)` as the drift's factor f and g^2, functions of a plain time.

    f(x, t) is f x, read off by unit vectors. Both raise AssertionError where `sde` raises, or its
    drift is no multiple of x. g may be of any shape that spreads to x's.

    Args:
        sde: takes x `(1, 4)` and t `(1,)`. For f and g that are two functions, give
            `lambda x, t: (f(x, t), g(t))`.

    >>> from diffusion_math.testing import adaptors
    >>> drift, g2 = adaptors.rates_of_sde(lambda x, t: (-0.5 * t * x, t**0.5))
    >>> drift(0.5), g2(0.25)
    (-0.25, 0.25)
    """
    name = name_of(sde, "sde")
    safe = guarded(name, sde)

    def column(place: int, t: Any) -> dict[str, Tensor]:
        def call(given: Any) -> Any:
            return _spread(parts(name, safe(given["x"], _time(t)), 2)[place], given["x"])

        return coefficients(name, call, ("x",), 1, torch.float64)[0]

    def drift(t: Any) -> float:
        found = column(0, t)
        assert "offset" not in found, f"{name}: wanted a drift that is a multiple of x"
        return float(found["x"])

    def g2(t: Any) -> float:
        found = column(1, t)
        assert float(found["x"]) == 0, f"{name}: wanted a diffusion that is a function of t alone"
        return float(found.get("offset", torch.zeros(1, device="cpu"))) ** 2

    return drift, g2


def levels_of_marginal(marginal: Callable[..., Any]) -> LevelsOf:
    """`marginal(x0, t) -> mean, deviation` as `levels(t) -> (alpha, sigma)` of a plain time.

    It is `marginal_prob` of Song's SDEs. Raises as `rates_of_sde` does.

    >>> from diffusion_math.testing import adaptors
    >>> levels = adaptors.levels_of_marginal(lambda x, t: ((1 - t)[:, None] * x, t))
    >>> levels(0.25)
    (0.75, 0.25)
    """
    name = name_of(marginal, "marginal")
    safe = guarded(name, marginal)

    def levels(t: Any) -> tuple[float, float]:
        def call(given: Any) -> Any:
            return _spread(parts(name, safe(given["x0"], _time(t)), 2)[0], given["x0"])

        found = coefficients(name, call, ("x0",), 1, torch.float64)[0]
        one = torch.ones(1, 4, dtype=torch.float64, device="cpu")
        sigma = torch.as_tensor(parts(name, safe(one, _time(t)), 2)[1], device="cpu").flatten()[0]
        return float(found["x0"]), float(sigma)

    return levels


def _time(t: Any) -> Tensor:
    return torch.tensor([t], dtype=torch.float64, device="cpu")


def _spread(value: Any, x: Tensor) -> Tensor:
    """One number, or one an entry, in x's shape; a number of Python in x's dtype."""
    plain = isinstance(value, int | float)
    found: Tensor = torch.as_tensor(value, dtype=x.dtype if plain else None, device="cpu")
    return found.reshape(1, -1).expand_as(x) if found.numel() in (1, x.numel()) else found
