"""rectified-flow-pytorch's classes that learn average velocities."""

from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from diffusion_math.testing import assert_loss
from experiments.audit.peers._lucidrains import check, drawing
from experiments.audit.peers.rectified_flow_models import TIMES, Found, flow

F32 = torch.float32
SPREAD = 0.5
"""The deviation of data whose flow is known: x_t is x_s times the ratio of its deviations."""


def deviation(t: Tensor) -> Tensor:
    """Of x_t, where t = 1 is noise."""
    return ((1 - t) ** 2 * SPREAD**2 + t**2).sqrt()


def average_velocity(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """(x_t - x_s) / (t - s) of the flow through x at t, noise at 1; the velocity at s = t."""
    t, s = (each.reshape(-1, *([1] * (x.ndim - 1))) for each in (t, s))
    same = (t - s).abs() < 1e-9
    now = x * (t - (1 - t) * SPREAD**2) / deviation(t) ** 2
    step = torch.where(same, torch.ones_like(t), t - s)
    return torch.where(same, now, x * (1 - deviation(s) / deviation(t)) / step)


def of_average(name: str) -> Callable[..., Tensor]:
    """The exact network of each library's class that learns average velocities."""

    def towards_data(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return -average_velocity(x, 1 - s, 1 - t)

    return {
        "MeanFlow": lambda x, t, delta: average_velocity(x, t, t - delta),
        "SplitMeanFlow": lambda x, t, delta: towards_data(x, t, t - delta),
        "LsdFlow": towards_data,
        "SoFlow": average_velocity,
    }[name]


def averages(name: str) -> Found:
    """Samples of exact networks, their losses, and whether given noise is used."""
    options = {"use_adaptive_loss_weight": False} if name != "LsdFlow" else {}
    share = {"LsdFlow": "diag_prob", "SoFlow": "lambda_flow_matching"}
    always = share.get(name, "prob_default_flow_obj")
    to_noise = name in ("MeanFlow", "SoFlow")

    def given_times(own: Any, *times: Tensor) -> Any:
        each = iter(repeat(times[0]) if len(times) == 1 else [*times, *times])
        own.sample_times = lambda *_, **__: next(each)
        return mock.patch.object(torch, "rand", own.sample_times)

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        sign = 1 if to_noise else -1
        own = flow(name, lambda x, t, other: sign * network(x, t), **options, **{always: 1.0})
        with given_times(own, t.float()):
            return torch.as_tensor(own(x0, noise=noise))

    def sampled(steps: int) -> None:
        own = flow(name, of_average(name), data_shape=(4,))
        with drawing(repeat(torch.ones(1))):
            found = own.sample(steps=steps)
        check(float(found.mean()), SPREAD, f"deviation of samples in {steps} steps", 1e-3)

    def kept() -> None:
        own = flow(name, lambda x, *_: 0 * x, data_shape=(4,))
        z = torch.arange(4.0)[None]
        off = float((own.sample(noise=z, steps=2) - z).abs().max())
        check(off, 0.0, "where the network is 0, samples differ from the noise that is given by")

    def consistent() -> None:
        """The loss of an exact network, of which nothing is left."""
        own = flow(name, of_average(name), **options, **{always: 0.0})
        with drawing(repeat(torch.full((1,), 0.7))), torch.random.fork_rng():
            torch.manual_seed(0)  # of the times
            found = own(torch.linspace(-1, 1, 8).reshape(2, 4))
        assert abs(float(found)) < 1e-6, f"the loss of the exact network: got {float(found):.3g}"

    def gradient() -> None:
        """MeanFlow's, of a factor on the exact network, over data and noise."""
        factor = torch.ones((), requires_grad=True)
        exact = of_average(name)
        own = flow(name, lambda *given: factor * exact(*given), **options, **{always: 0.0})
        zero, one, total = torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(())
        for x0, noise in ((SPREAD * one, zero), (zero, one)):
            times = iter([torch.tensor([0.8]), torch.tensor([0.3])])
            own.sample_times = lambda *_, times=times: next(times)
            total = total + own(x0, noise=noise)
        (slope,) = torch.autograd.grad(total, factor)
        assert abs(float(slope)) < 1e-5, f"the exact network's gradient: got {float(slope):.3g}"

    def of_a_point() -> None:
        """SoFlow's, on data that are 0, whose flow is straight."""
        own = flow(name, lambda x, t, s: x / t[:, None], **options, **{always: 0.0})
        got = float(own(torch.zeros(4, 4), noise=torch.ones(4, 4)))
        assert got < 1e-8, f"the loss of the exact network: got {got:.3g}"

    def boundary() -> None:
        seen: list[Tensor] = []

        def network(x: Tensor, t: Tensor, other: Tensor) -> Tensor:
            seen.append(other)
            return x

        flow(name, network, **{always: 1.0})(torch.ones(2, 4))
        got = float(seen[0].abs().max())
        check(got, 0.0, "t - r, that the network is told where r = t: off by", 1e-6)

    def reconstructed() -> None:
        """What the exact network says of the data, which the loss compares with them."""
        data, noise = torch.full((2, 4), 0.7), torch.full((2, 4), 0.2)
        own = flow(name, lambda x, *_: data - noise, add_recon_loss=True, **{always: 1.0})
        got = float(own(data, noise=noise, return_loss_breakdown=True)[1][1])
        assert got < 1e-8, f"the loss of exact data: got {got:.3g}"

    times = TIMES[::-1] if to_noise else TIMES
    levels = (lambda t: (1 - t, t)) if to_noise else (lambda t: (t, 1 - t))
    found: Found = {
        (f"{name}.forward", "loss"): lambda: assert_loss(
            loss, levels, times, predicts="flow", dtype=F32
        ),
        (f"{name}.sample", "noise"): kept,
        (f"{name}.sample, 1 step", "spread"): partial(sampled, 1),
        (f"{name}.sample, 2 steps", "spread"): partial(sampled, 2),
    }
    if name in ("LsdFlow", "SplitMeanFlow"):
        found[f"{name}.forward", "average velocity"] = consistent
    if name == "MeanFlow":
        found[f"{name}.forward", "average velocity"] = gradient
    if name == "SoFlow":
        found[f"{name}.forward", "average velocity"] = of_a_point
    if name == "SplitMeanFlow":
        found[f"{name}.forward", "times"] = boundary
        found[f"{name}.forward, add_recon_loss", "loss"] = reconstructed
    return found
