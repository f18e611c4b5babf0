"""How each known method is driven by an assertion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from typing import Any, final

import torch
from torch import Tensor

from diffusion_math.testing.adaptors.functions import with_network
from diffusion_math.testing.assertions.bound import assert_prior_term
from diffusion_math.testing.assertions.forward import assert_forward
from diffusion_math.testing.assertions.loss import assert_loss
from diffusion_math.testing.assertions.posterior import assert_posterior, first_in_use
from diffusion_math.testing.assertions.prediction_maps import assert_prediction_maps
from diffusion_math.testing.draws import drawn
from diffusion_math.testing.mistakes.levels import Levels
from diffusion_math.testing.mistakes.probes import VECTORS, guarded, parts, tensor, time_batch
from diffusion_math.testing.objects.calls import Method
from diffusion_math.testing.objects.levels import Noise, found
from diffusion_math.testing.objects.names import PARAMETERS, PREDICTIONS, Function

__all__ = ["Case", "driven"]

Run = Callable[[], None]


@final
@dataclass(frozen=True, eq=False)
class Case:
    """An object under test, what its times mean, and what its methods are given."""

    thing: Any
    noise: Noise
    predicts: str | None
    dtype: torch.dtype

    def sample(self, takes: tuple[str, ...]) -> list[Tensor]:
        """What a method takes, three rows of each."""
        times = self.noise.times
        t = time_batch([times[k % len(times)] for k in range(3)])
        x = torch.tensor(VECTORS, dtype=self.dtype, device="cpu").expand(3, -1)
        return [t if what == "t" else x.clone() for what in takes]

    def options(self, method: Method) -> dict[str, Any]:
        """What every assertion of a method is told."""
        return {
            "levels": self.noise.levels,
            "times": self.noise.times,
            "batched": method.style.batched,
            "dtype": self.dtype,
        }


def driven(case: Case, function: Function, name: str) -> Run | str:
    """What checks the method of this name; why nothing does, where it can't be driven."""
    method = Method.named(name, getattr(case.thing, name), function.takes)
    if isinstance(method, str) and "network" in function.takes:
        method = _of_own_network(case, function, name) or method
    if isinstance(method, str):
        return method
    run = DRIVES.get(function.check)
    if run is not None:
        return run(case, method)
    if len(method.takes) < len(function.takes):
        return "it has no parameter for the noise"
    return lambda: _map(case, function, method)


def _of_own_network(case: Case, function: Function, name: str) -> Method | str:
    """A method that evaluates its object's own network, as one of a network first; "" for none."""
    here = [one for one in PARAMETERS["network"] if hasattr(case.thing, one)]
    owned = [one for one in here if callable(found(case.thing, one))]
    owned = owned or [one for one in here if found(case.thing, one) is None]  # of a later time
    rest = [what for what in function.takes if what != "network"]
    method = Method.named(name, getattr(case.thing, name), rest)
    if isinstance(method, str) or not owned:
        return ""
    if len(owned) > 1:
        return f"its network may be any of {', '.join(owned)}"
    call = with_network(method.call, case.thing, owned[0])
    return replace(method, takes=("network", *method.takes), call=call)


def _forward(case: Case, method: Method) -> Run:
    def run() -> None:
        styled = method.styled(*case.sample(method.takes))
        q_sample = styled if "eps" in method.takes else drawn(styled)
        assert_forward(q_sample, **{**case.options(styled), "levels": case.noise.added})

    return run


SPREADS: Mapping[int, tuple[str, Callable[[Tensor], Tensor]]] = {
    1: ("variance", torch.sqrt),
    2: ("log-variance", lambda log_variance: (log_variance / 2).exp()),
}
"""The place of a result, what it is, and the deviation of it."""


def _mean_variance(case: Case, method: Method) -> Run:
    """By mean + deviation x noise, the deviation of each result that there is."""

    def run() -> None:
        styled = method.styled(*case.sample(method.takes))
        for place, (said, _) in SPREADS.items():
            if place < _results(case, styled):

                def q_sample(x0: Tensor, t: Any, eps: Tensor, k: int = place) -> Tensor:
                    mean, *spreads = parts(method.name, styled(x0, t), k + 1)
                    return (
                        torch.as_tensor(mean, device="cpu")
                        + SPREADS[k][1](torch.as_tensor(spreads[-1], device="cpu")) * eps
                    )

                q_sample.__name__ = f"{method.name}, {said}"
                assert_forward(q_sample, **case.options(styled))

    return run


def _posterior(case: Case, method: Method) -> Run:
    def run() -> None:
        styled = method.styled(*case.sample(method.takes))
        for place, (said, _) in SPREADS.items():
            if place == 1 or place < _results(case, styled):

                def posterior(*arguments: Any, k: int = place) -> Any:
                    results = parts(method.name, styled(*arguments), k + 1)
                    return results[0], results[k]

                posterior.__name__ = f"{method.name}, {said}"
                _assert_posterior(case, posterior, said, case.options(styled))

    return run


def _assert_posterior(
    case: Case, posterior: Callable[..., Any], spread: Any, options: dict[str, Any]
) -> None:
    """With what stands for the first variance, 0, of what is in use the nearest to theirs."""
    x, time = torch.tensor([VECTORS], dtype=case.dtype, device="cpu"), case.noise.times[0]
    at = time_batch([time]) if options["batched"] else time
    subject = posterior.__name__
    given = parts(subject, guarded(subject, posterior)(x, x, at), 2)[1]
    value = tensor(subject, given, x, 1.0)[0][0, 0]
    variance = float(value.exp() if spread == "log-variance" else value)
    first = first_in_use(variance, Levels.read(case.noise.levels, case.noise.times))
    assert_posterior(posterior, spread=spread, first=first, **options)


def _posterior_in_two(case: Case, method: Method) -> Run | str:
    variance = found(case.thing, "_get_variance")
    kind = found(case.thing, "variance_type") or "fixed_small"
    if variance is None or kind != "fixed_small":
        return "it has no `_get_variance` beside it" if variance is None else f"it is of {kind}"

    def run() -> None:
        styled = method.styled(*case.sample(method.takes))

        def posterior(x0: Tensor, x_t: Tensor, t: Any) -> tuple[Any, Any]:
            return styled(x0, x_t, t), variance(t)

        posterior.__name__ = f"{method.name}, _get_variance"
        _assert_posterior(case, posterior, "variance", case.options(styled))

    return run


def _map(case: Case, function: Function, method: Method) -> None:
    styled = method.styled(*case.sample(method.takes))
    one, other = (what for what in method.takes if what != "t")

    def convert(x: Tensor, given: Tensor, t: Any) -> Any:
        of = {one: x, other: given, "t": t}
        return styled(*(of[what] for what in method.takes))

    try:
        assert_prediction_maps({function.check: convert}, **case.options(styled))
    except AssertionError as error:
        error.args = (f"{method.name}, {error}",)
        raise


PLAIN: Mapping[str, tuple[str, ...]] = {
    "loss_type": ("MSE", "L2"),
    "model_var_type": ("FIXED",),
}
"""Attributes that say which loss it is: what is in them, in capitals, where it is the plain one."""

EXTRAS = ("self_condition", "offset_noise_strength")
"""What a network or the noise has beside x_t, where it is not off."""

WEIGHTS = ("loss_weight", "p2_loss_weight")
"""Tables of a weight on the squared error in the prediction, by time."""


def _loss(case: Case, method: Method) -> Run | str:
    predicts = case.predicts or _prediction(case.thing)
    if predicts not in PREDICTIONS.values():
        return f"its network predicts {predicts}"
    for attribute, plain in PLAIN.items():
        value = _said(case, method, attribute)
        kind = str(getattr(value, "name", value))
        if value is not None and not any(one in kind.upper() for one in plain):
            return f"its {attribute} is {kind}"
    for attribute in EXTRAS:
        if value := _said(case, method, attribute):
            return f"its {attribute} is {value}"
    for attribute in WEIGHTS:
        weight = found(case.thing, attribute)
        if isinstance(weight, Tensor) and not bool((weight == 1).all()):
            return f"its {attribute} is not 1: `assert_loss` takes its weight"

    def probed(*arguments: Any) -> Any:
        """Gives x0 where the network is given what has its shape, to find the style."""

        def network(x_t: Any, *_: Any, **__: Any) -> Any:
            assert x_t.shape == x0.shape
            return x_t

        x0 = arguments[method.takes.index("x0") - 1]
        method.call(network, *arguments)
        return x0

    def run() -> None:
        rest = method.takes[1:]
        style = replace(method, call=probed).styled(*case.sample(rest)).style

        def loss(network: Callable[..., Any], x0: Tensor, t: Tensor, *eps: Tensor) -> Any:
            def shaped(x_t: Any, *others: Any, **more: Any) -> Any:
                return style.shaped(network(style.flat(x_t), *others, **more))

            of = dict(zip(("x0", "t", "eps"), (x0, t, *eps), strict=False))
            result = method.call(shaped, *(style.shaped(of[what]) for what in rest))
            result = result[0] if isinstance(result, tuple) else result  # with a log beside it
            return style.flat(result["loss"] if isinstance(result, Mapping) else result)

        def drawing(network: Callable[..., Any], x0: Tensor, t: Tensor, eps: Tensor) -> Any:
            return drawn(lambda x0, t: loss(network, x0, t))(x0, t, eps)

        checked = loss if "eps" in rest else drawing
        checked.__name__ = method.name
        noise = case.noise
        assert_loss(checked, noise.levels, noise.times, predicts=predicts, dtype=case.dtype)

    return run


def _said(case: Case, method: Method, name: str) -> Any:
    """A parameter's default in the method, else the object's attribute."""
    parameter = signature(getattr(case.thing, method.name)).parameters.get(name)
    default = None if parameter is None else parameter.default
    return found(case.thing, name) if default in (None, Parameter.empty) else default


def _prediction(thing: Any) -> str:
    """What an object says that its network predicts; the noise where it does not say."""
    for place in (found(thing, "config"), thing):
        for name in ("prediction_type", "objective", "parameterization", "model_mean_type"):
            said = found(place, name)
            if said is not None:
                word = str(getattr(said, "name", said)).lower()
                return PREDICTIONS.get(word, word)
    return "eps"


def _prior(case: Case, method: Method) -> Run:
    def run() -> None:
        alpha, sigma = (float(each) for each in case.noise.levels(case.noise.times[-1]))
        assert_prior_term(method, alpha, sigma, unit="bits/dim", dtype=case.dtype)

    return run


def _results(case: Case, method: Method) -> int:
    """How many results a method gives."""
    t, x = case.noise.times[0], torch.tensor([VECTORS], dtype=case.dtype, device="cpu")
    at = time_batch([t]) if method.style.batched else t
    result = guarded(method.name, method)(*(at if what == "t" else x for what in method.takes))
    return len(result) if isinstance(result, tuple) else 1


DRIVES: Mapping[str, Callable[[Case, Method], Run | str]] = {
    "forward": _forward,
    "mean_variance": _mean_variance,
    "posterior": _posterior,
    "posterior_in_two": _posterior_in_two,
    "loss": _loss,
    "prior": _prior,
}
"""By `Function.check`; the others are prediction maps."""
