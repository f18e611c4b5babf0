"""BayesFlow's flow matching, consistency models and Levy areas; its models around our network."""

import logging
import math
import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from diffusion_math import testing
from diffusion_math.denoiser import Denoiser
from experiments.audit.peers._isolated_import import without
from experiments.audit.peers.bionemo_tokens import close

__all__ = ["Formulas", "close", "consistency", "model", "part"]

Formulas = dict[tuple[str, str], Callable[[], Any]]


@cache
def part(name: str) -> Any:
    """A module of the library, whose import turns torch's gradients off for good."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    logging.getLogger().addHandler(logging.NullHandler())  # its import sets the root's up
    logging.getLogger("bayesflow").disabled = True
    unused = without("tensorflow", "jax", "networkx", "seaborn", "pandas")
    with torch.set_grad_enabled(torch.is_grad_enabled()), unused:
        return import_module(f"bayesflow.{name}")


def model(kind: str, network: Callable[..., Any], **options: Any) -> Any:
    """One of its networks for inference, around `network(x, time)` of ours."""
    made = getattr(part("networks"), kind)(**options)
    vars(made).update(subnet=lambda given, **_: network(*given[:2]))
    vars(made).update(output_projector=lambda x: x, subnet_projector=lambda x: x)
    return made


def consistency() -> Formulas:
    """Flow matching's loss and times; the consistency models' losses and noise levels."""
    random = part("networks") and import_module("keras").random
    times = torch.linspace(0.98, 0.02, 13, dtype=torch.float64).tolist()

    def matched(network: Denoiser, x0: Tensor, t: Tensor, noise: Tensor) -> Any:
        one = model("FlowMatching", lambda x, time: -network(x, time[:, 0]))
        with (
            patch.object(one.base_distribution, "sample", return_value=noise),
            patch.object(random, "uniform", return_value=t),
        ):
            return one.compute_metrics(x0, stage="validation")["loss"]

    def median(alpha: float) -> float:
        """Of the times, where p(t) ~ t^(1 / (1 + alpha)) is documented."""
        seen: list[Tensor] = []

        def network(x: Tensor, time: Tensor) -> Tensor:
            seen.append(time)
            return torch.zeros_like(x)

        one = model("FlowMatching", network, time_power_law_alpha=alpha)
        one.base_distribution.build((None, 4))
        with patch.object(random, "uniform", return_value=torch.tensor([0.5])):
            one.compute_metrics(torch.zeros(1, 4), stage="validation")
        return float(seen[0][0, 0])

    def late() -> None:
        got = median(1.0)
        assert got > 0.5, f"got a median of {got:.3g}, expected more than 0.5: p(t) grows with t"

    def levels(sigma: float) -> None:
        """On data at 0, a network that is told t is given sin(t) sigma noise."""
        seen: list[tuple[float, float]] = []

        def network(x: Tensor, t: Tensor) -> Tensor:
            seen.append((float(x[0, 0] * sigma), float(t[0, 0])))
            return x / t.tan() if float(t[0, 0]) > 0 else torch.zeros_like(x)

        one = model("StableConsistencyModel", network, sigma=sigma)
        with patch.object(random, "normal", return_value=torch.ones(1, 4)):
            one._inverse(torch.ones(1, 4), steps=4)
        inputs, at = torch.tensor(seen).T
        close(inputs, at.sin() * sigma)

    def multistep() -> None:
        """On data at 0, the exact model is given sqrt(t^2 - eps^2) noise (arXiv:2303.01469)."""
        seen: list[tuple[float, float]] = []

        def network(x: Tensor, scaled: Tensor) -> Tensor:
            t = scaled * 80
            seen.append((float(x[0, 0]), float(t[0, 0])))
            skip, out = 1 / ((t - 0.001) ** 2 + 1), (t - 0.001) / (1 + t**2).sqrt()
            return -skip * x / out if out[0, 0] > 0 else 0 * x

        one = model("ConsistencyModel", network, total_steps=20)
        one.unique_n = [4]
        with patch.object(random, "normal", return_value=torch.ones(1, 4)):
            one._inverse(torch.ones(1, 4), steps=4)
        inputs, at = torch.tensor(seen, dtype=torch.float64).T
        close(inputs[0], 80.0)
        close(inputs[1:], (at[1:] ** 2 - 0.001**2).clamp(min=0).sqrt())

    def density() -> None:
        """Flow matching's log-density of data of deviation 1/2, by the exact velocity."""
        one = model("FlowMatching", lambda x, t: (t / 4 - (1 - t)) / (t**2 / 4 + (1 - t) ** 2) * x)
        one.base_distribution.build((None, 4))
        x = torch.tensor([[0.5, -1.0, 0.25, 1.5]])
        got = one._forward(x, density=True, method="rk45", steps=60)[1]
        close(got, -2 * (x**2).sum(-1) - 2 * math.log(math.pi / 2), 5e-3)

    def tangent() -> None:
        """The exact model of a standard normal is f(x, t) = x, and its tangent is 0."""
        x = torch.tensor([[1.0, -2.0, 0.5, 3.0]])
        one = model("StableConsistencyModel", lambda x, t: -(t / 2).tan() * x)
        vars(one).update(weight_fn=lambda x: 0 * x, weight_fn_projector=lambda x: x, p_mean=0.0)
        draws = lambda shape, **_: x if len(shape) == 2 else torch.zeros(shape)  # noqa: E731
        with patch.object(random, "normal", draws):
            close(one.compute_metrics(x, stage="validation")["loss"], 0.0)

    def distance() -> None:
        """A pseudo-Huber distance of vectors is twice as far for four equal entries as for one."""
        values = []
        for difference in ((1.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)):
            network = lambda x, t, d=difference: torch.tensor([d]) * (t - 0.5)  # noqa: E731
            one = model("ConsistencyModel", network, total_steps=20, s0=10, s1=10)
            vars(one).update(c_huber=0.0, c_huber2=0.0)
            one.discretization_map = torch.zeros(12, dtype=torch.int32)
            one.discretized_times = torch.tensor([[1.0, 2.0]])
            with (
                patch.object(random, "categorical", return_value=torch.zeros(1, 1).long()),
                patch.object(random, "normal", return_value=torch.zeros(1, 4)),
            ):
                values.append(one.compute_metrics(torch.zeros(1, 4), stage="validation")["loss"])
        close(values[1] / values[0], 2.0)

    def area() -> None:
        """H ~ N(0, h / 12), independent of W (arXiv:2210.17543): at h = 0.01, W = 1, then Z = 1."""
        levy = part("utils.integrate").compute_levy_area
        one, zero, step = (torch.tensor([each]) for each in (1.0, 0.0, 0.01))
        given = [{"x": each} for each in (one, one)]
        parts = [levy(*given, {"x": w}, {"x": z}, step)["x"] for w, z in ((one, zero), (zero, one))]
        close(torch.cat(parts), [0.0, (0.01 / 12) ** 0.5])

    return {
        ("FlowMatching.loss", "loss"): lambda: testing.assert_loss(
            matched, lambda t: (t, 1 - t), times, predicts="flow"
        ),
        ("FlowMatching.log_prob", "likelihood"): density,
        ("ConsistencyModel.sample", "levels"): multistep,
        ("FlowMatching(time_power_law_alpha=0)", "times"): lambda: close(median(0.0), 0.5),
        ("FlowMatching(time_power_law_alpha=1)", "times"): late,
        ("StableConsistencyModel.sample", "levels"): lambda: levels(1.0),
        ("StableConsistencyModel(sigma=2).sample", "levels"): lambda: levels(2.0),
        ("StableConsistencyModel.loss", "tangent"): tangent,
        ("ConsistencyModel.loss", "distance"): distance,
        ("sea_step, shark_step", "Levy area"): area,
    }
