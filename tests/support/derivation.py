"""Gaussian algebra in symbols, and the measure of a float's distance from what was derived.

A derivation starts at log-densities and ends at an expression; `exactly` evaluates it in 60 digits
at the very numbers that the shipped function was given. What is derived here is the square's
completion alone: a log-density quadratic in y, with slope and bend L' and L'' at y = 0, is that of
N(-L' / L'', -1 / L''), and the integral of its exponential is the exponential of its summit times
sqrt(-2 pi / L'') (`test_symbolic.test_the_gaussian_integral` has sympy integrate it).
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache

import mpmath
import sympy
import torch
from mpmath import mpf
from sympy import Expr, Symbol

EPS = torch.finfo(torch.float64).eps
DIGITS = 60
NOTHING = 1e-40
"""Added to a scale that may be 0: below it cancelling terms have used up the 60 digits."""


def log_normal(x: Expr, mean: Expr, variance: Expr) -> Expr:
    """log N(x; mean, variance), written out."""
    return -((x - mean) ** 2) / (2 * variance) - sympy.log(2 * sympy.pi * variance) / 2


def law(log_density: Expr, y: Symbol) -> tuple[Expr, Expr]:
    """(mean, variance) of y under a log-density quadratic in it, by its slope and bend."""
    bend = sympy.factor(sympy.diff(log_density, y, 2))
    slope = sympy.diff(log_density, y).subs(y, 0)
    return sympy.factor(-slope / bend), sympy.factor(-1 / bend)


def integrated(log_density: Expr, y: Symbol) -> Expr:
    """The logarithm of the integral over y of exp(log_density), a quadratic of y."""
    mean, variance = law(log_density, y)
    return log_density.subs(y, mean) + sympy.log(2 * sympy.pi * variance) / 2


def vanishes(expression: Expr) -> bool:
    """Whether a sum of rational terms and halves of logarithms is 0 for all positive symbols.

    Doubled and exponentiated, the logarithms are a rational function too, which must be 1.
    """
    terms = sympy.Add.make_args(sympy.expand(expression))
    logs = sympy.Add(*(term for term in terms if term.has(sympy.log)))
    rest = sympy.Add(*(term for term in terms if not term.has(sympy.log)))
    product = sympy.simplify(sympy.exp(sympy.expand(2 * logs)))
    return bool(sympy.simplify(rest) == 0 and product == 1)


def is_zero(expression: Expr) -> bool:
    """Whether sympy simplifies it to 0."""
    return bool(sympy.simplify(expression) == 0)


def exactly(expression: Expr, values: Mapping[Symbol, object]) -> mpf:
    """The expression in 60 digits; floats among the values are taken as the binary numbers."""
    names = tuple(sorted(values, key=str))
    with mpmath.workdps(DIGITS):
        return mpf(_function(expression, names)(*(mpf(values[n]) for n in names)))


def size(expression: Expr, values: Mapping[Symbol, object]) -> float:
    """The sum of the magnitudes of the expanded expression's terms: what its rounding scales with.

    A sum in float64 has an error of some EPS times this, however much its terms cancel.
    """
    with mpmath.workdps(DIGITS):
        return float(mpmath.fsum(abs(exactly(term, values)) for term in _terms(expression)))


def ulps(got: object, exact: mpf, scale: float) -> float:
    """The distance of a float from the exact value, in units of EPS times scale."""
    with mpmath.workdps(DIGITS):
        return float(abs(mpf(float(got)) - exact) / (EPS * scale + NOTHING))


def product_of_kept(betas: Iterable[float]) -> mpf:
    """abar = prod (1 - beta), in 60 digits."""
    with mpmath.workdps(DIGITS):
        return mpmath.fprod(1 - mpf(beta) for beta in betas)


@cache
def _function(expression: Expr, names: tuple[Symbol, ...]) -> Callable[..., object]:
    function: Callable[..., object] = sympy.lambdify(names, expression, "mpmath")
    return function


@cache
def _terms(expression: Expr) -> tuple[Expr, ...]:
    return tuple(sympy.Add.make_args(sympy.expand(expression)))
