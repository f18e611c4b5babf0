"""Arguments of a wrong type: each public function names the argument, what it wants and the value.

The list of functions is read off the package, and the wrong values off the annotations, so that a
new function is among them.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import diffusion_math as dm
from diffusion_math.checks import checked
from diffusion_math.densities.toy import Density
from diffusion_math.schedule import Schedule

PRIVATE = ("testing", "interop.pulled", "checks")
"""Modules without arguments of users: `testing` has checks of its own."""

EVERY_STEP = {
    "gaussian.Gaussian.log_density",
    "gaussian.Gaussian.sample",
    "gaussian.Gaussian.score",
    "inpainting.check_known",
    "langevin.Particles",
    "langevin.log_acceptance",
    "langevin.proposal",
    "noise.required",
    "noise.zeros",
    "prediction.terms_from_x0",
    "schedule.shape_like",
    "solvers.exponential.Level",
    "solvers.exponential.Level.at",
    "solvers.exponential.exponential_step",
    "solvers.exponential.exponential_terms",
    "solvers.exponential.noise_std",
    "solvers.exponential.phi",
    "solvers.exponential.stage_terms",
    "solvers.exponential.stages",
    "solvers.exponential.weights",
    "solvers.linear.mixed",
    "solvers.linear.rows_of_grid",
    "solvers.step.State",
}
"""What a solver calls at each step, with values of its own."""

TIMES = re.compile(r"schedule\.\w+\.(__call__|log_snr|time)")
"""Methods of schedules, whose one argument is checked when it is read."""


INTERFACES = {dm.Schedule, dm.Grid, Density}


class Nothing:
    """A value that no argument may have."""


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public functions, methods and dataclasses of the package, with their names in it."""
    names = [one.name for one in pkgutil.walk_packages(dm.__path__, "diffusion_math.")]
    for name in names:
        short = name.removeprefix("diffusion_math.")
        if short.startswith(PRIVATE) or "._" in name:
            continue
        for own, value in vars(importlib.import_module(name)).items():
            if own.startswith("_") or getattr(value, "__module__", "") != name:
                continue
            if inspect.isfunction(value):
                yield f"{short}.{own}", value
            elif inspect.isclass(value) and value not in INTERFACES:
                if hasattr(value, "__dataclass_fields__") and value.__dataclass_fields__:
                    yield f"{short}.{own}", value
                for method, it in vars(value).items():
                    it = it.__func__ if isinstance(it, classmethod) else it
                    if inspect.isfunction(it) and (method == "__call__" or method[0] != "_"):
                        yield f"{short}.{own}.{method}", it


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Those with an annotation that says what they are."""
    return [
        one
        for one in inspect.signature(function).parameters.values()
        if one.name not in ("self", "cls")
        and one.annotation not in (inspect.Parameter.empty, Any, object)
        and not isinstance(one.annotation, str)
        and one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]


ALL = dict(functions())
CHECKED = {
    name: parameters(function)
    for name, function in ALL.items()
    if name not in EVERY_STEP and not TIMES.fullmatch(name) and parameters(function)
}


def refused(function: Callable[..., Any], name: str, value: object) -> str:
    """The message for one wrong argument: it comes before Python misses the others."""
    with pytest.raises(ValueError, match=f"^{name}: wanted .*, got ") as caught:
        function(**{name: value})
    return str(caught.value)


def test_the_exceptions_are_functions_of_the_package() -> None:
    assert ALL.keys() >= EVERY_STEP
    assert len(CHECKED) > 200


@pytest.mark.parametrize("name", CHECKED)
def test_values_of_another_type_are_refused(name: str) -> None:
    for one in CHECKED[name]:
        assert refused(ALL[name], one.name, Nothing()).endswith(" got a Nothing")


@pytest.mark.parametrize("name", CHECKED)
def test_whole_numbers_are_no_floating_point_tensor(name: str) -> None:
    """A mean of whole numbers, rounded to whole numbers, would be silently wrong."""
    whole = torch.ones(2, dtype=torch.int64)
    for one in CHECKED[name]:
        if re.match(r"<class 'jaxtyping.Float", str(one.annotation)):
            assert "a floating-point tensor" in refused(ALL[name], one.name, whole)


@pytest.mark.parametrize("name", CHECKED)
def test_a_schedules_class_is_no_schedule(name: str) -> None:
    for one in CHECKED[name]:
        if one.annotation is Schedule:
            assert refused(ALL[name], one.name, dm.VPLinear).endswith("got the class VPLinear")


VP = dm.VPLinear()
STEP, GRID, X = dm.ddim(VP), dm.trailing(VP, 4), torch.ones(2, 3)


def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return x


MESSAGES: list[tuple[Callable[[], object], str]] = [
    (lambda: dm.Discrete([0.1]), "betas: wanted a floating-point tensor, got a list"),
    (
        lambda: dm.final(STEP, model, X, [1.0, 0.0]),
        "grid: wanted a floating-point tensor, got a list",
    ),
    (lambda: dm.final(STEP, model, X, 4), "grid: wanted a floating-point tensor, got 4"),
    (lambda: dm.final(dm.ddim, model, X, GRID), "step: wanted a function of 5 arguments, got "),
    (lambda: dm.final(model, STEP, X, GRID), "step: wanted a function of 5 arguments, got "),
    (
        lambda: dm.final(STEP, VP, X, GRID),
        "denoise: wanted a function of 2 arguments, got a VPLinear",
    ),
    (
        lambda: dm.trajectory(STEP, model, X.long(), GRID),
        "x: wanted a floating-point tensor, got a ",
    ),
    (
        lambda: dm.inversion(STEP, model, X, "ddim"),
        "grid: wanted a floating-point tensor, got 'ddim'",
    ),
    (lambda: dm.start_noise(5, (2,)), "seeds: wanted a sequence, got 5"),
    (
        lambda: dm.start_noise((i for i in range(2)), (2,)),
        "seeds: wanted a sequence, got a generator",
    ),
    (lambda: dm.cfg(2.0, model, model), "conditional: wanted a function of 2 arguments, got 2.0"),
    (lambda: dm.cfg(model, 2.0, model), "unconditional: wanted a function of 2 arguments, got 2.0"),
    (lambda: dm.cfg(model, model, "2"), "scale: wanted a number, got '2'"),
    (lambda: dm.Discrete.zero_terminal_snr(VP), "self: wanted a Discrete, got a VPLinear"),
    (lambda: VP("0.5"), "t: wanted numbers, got '0.5'"),
    (lambda: VP.time(None), "log_snr: wanted numbers, got None"),
    (lambda: dm.uniform_log_snr(20, VP), "schedule: wanted a Schedule, got 20"),
    (lambda: dm.uniform_log_snr(VP, 2.5), "steps: wanted a whole number, got 2.5"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), MESSAGES, ids=[message for _, message in MESSAGES])
def test_the_message(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


OUTPUTS: list[tuple[Callable[[torch.Tensor], object], str]] = [
    (lambda x: (x, x), "wanted a tensor of shape (2, 3), got a tuple"),
    (lambda x: x.numpy(), "wanted a tensor of shape (2, 3), got a ndarray"),
    (lambda x: x[:1], "wanted shape (2, 3), got shape (1, 3)"),
    (lambda x: x.long(), "wanted a floating-point tensor, got a tensor of shape (2, 3), int64"),
    (lambda x: None, "wanted a tensor of shape (2, 3), got None"),
]
MAKERS = (dm.from_x0, dm.from_eps, dm.from_v, dm.from_score, dm.from_flow)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("output", "message"), OUTPUTS, ids=[message for _, message in OUTPUTS])
def test_what_a_network_returns_is_checked(
    make: Callable[..., dm.Denoiser], output: Callable[[torch.Tensor], Any], message: str
) -> None:
    denoise = make(lambda x, t: output(x), VP)
    with pytest.raises(ValueError, match=re.escape(f"the network's output: {message}")):
        denoise(X, torch.tensor(0.5))


def test_what_is_accepted() -> None:
    """Values that are not of the annotation's class, and are as good."""

    @checked
    def takes(number: float, whole: int, flag: bool, many: tuple[int, ...], other: Any) -> None:
        pass

    takes(np.float32(1), np.int64(2), np.True_, [1, 2], Nothing())
    takes(torch.tensor(0.5), 2.0, False, range(3), None)
    for name, value in (("number", True), ("whole", 0.5), ("flag", 1), ("many", "ab")):
        refused(takes, name, value)
    with pytest.raises(TypeError, match="unexpected keyword"):
        takes(1, 1, True, [], None, another=1)
