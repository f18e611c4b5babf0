"""rectified-flow-pytorch: flows from noise at t = 0 to data at t = 1, and average velocities."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from diffusion_math import prediction
from diffusion_math.schedule import RectifiedFlow
from diffusion_math.testing import Sampler, UnsupportedError, assert_loss
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._lucidrains import check, drawing
from experiments.audit.peers.rectified_flow_models import (
    SPREAD,
    Found,
    flow,
    module,
    of_average,
)
from experiments.audit.subject import Subject, subjects_of

UNTRIED = {
    "Trainer, ReflowTrainer, SoFlowTrainer": "they read and write files",
    "Unet, FiT, LapFlowDiT": "networks",
    "SelfFlow": "it takes FiT alone, and its second loss is of hidden layers",
    "LPIPS losses": "they want the weights of VGG",
    "UAFlow": "its loss weighs by a learned variance; the sampler adds its gradient",
    "RecurrentStateNanoFlow, TDFlow, ValueFlow": "of a state and of rewards, not of data alone",
    "RectifiedFlow.sample(ref_image=...)": "a guidance of one image, whose paper is not at hand",
    "EquilibriumMatching.sample": "gradient descent by torch's optimisers, to no distribution",
    "XMWrapper": "it takes the least loss of several draws, for which it states no formula",
    "RectifiedFlow(immiscible=True)": "noise is assigned to the nearest data: no product law",
}
"""What the library exports and is not audited, and why."""

SLOW = "by its name, `slow_sample`, it takes steps of the velocity at r = t, not of the average"
LIMITS = dict.fromkeys(("MeanFlow.sample, 2 steps", "SplitMeanFlow.sample, 2 steps"), SLOW)
LIBRARY, F32 = "rectified-flow-pytorch", torch.float32
TIMES = [k / 20 for k in range(19, 0, -1)]
"""Theirs, from little to much noise."""


def losses(name: str, predicts: str) -> Found:
    """The losses of RectifiedFlow and NanoFlow, by what the network predicts."""
    cap = 1.0 if name == "RectifiedFlow" and predicts != "clean" else 0.99
    kind = {"flow": "flow", "noise": "eps", "clean": "x0"}[predicts]
    options: dict[str, Any] = {"predict": predicts}
    options = options if name == "RectifiedFlow" else {"predict_clean": predicts == "clean"}

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        sign = -1 if predicts == "flow" else 1
        own = flow(name, lambda x, t: sign * network(x, t), **options)
        return torch.as_tensor(own(x0, noise=noise, times=t))

    return {
        (f"{name}.forward", "loss"): lambda: assert_loss(
            loss,
            lambda t: (cap * t, 1 - cap * t),
            TIMES,
            predicts=kind,
            weight=None if predicts == "noise" else lambda step: 1 / step.sigma_t**2,
        )
    }


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
        with drawing(repeat(torch.full((1,), 0.7))):
            found = own(torch.linspace(-1, 1, 8).reshape(2, 4))
        assert abs(float(found)) < 1e-8, f"the loss of the exact network: got {float(found):.3g}"

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

    def boundary() -> None:
        seen: list[Tensor] = []

        def network(x: Tensor, t: Tensor, other: Tensor) -> Tensor:
            seen.append(other)
            return x

        flow(name, network, **{always: 1.0})(torch.ones(2, 4))
        got = float(seen[0].abs().max())
        check(got, 0.0, "t - r, that the network is told where r = t: off by", 1e-6)

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
    if name == "SplitMeanFlow":
        found[f"{name}.forward", "times"] = boundary
    return found


def others() -> Found:
    """What is beside the plain flows."""
    half = torch.full((1, 4), 0.3)

    def there_and_back(name: str) -> None:
        ways = {"NanoFlow": ("normalize_data_fn", "unnormalize_data_fn")}
        by = ways.get(name, ("data_normalize_fn", "data_unnormalize_fn"))
        scaled = dict(zip(by, (lambda x: 2 * x - 1, lambda x: (x + 1) / 2), strict=True))
        own = flow(name, lambda x, t: 0 * x, **scaled, data_shape=(4,))
        noise = own.sample(image=half, reverse=True)
        back = float(own.sample(noise=noise).mean())
        check(back, 0.3, "an image of 0.3, to noise and back, where the network is 0")

    def fixed_point() -> None:
        own = flow("NanoFlow", lambda x, t: (t[:, None] - 0.6) * x, data_shape=(4,))
        noise = own.sample(image=half, reverse=True, steps=8, reverse_fixed_point_steps=40)
        back = float(own.sample(noise=noise, steps=8).mean())
        check(back, 0.3, "an image of 0.3, to noise and back")

    class Constant(nn.Module):
        """A network that is its one parameter."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor, times: Tensor) -> Tensor:
            return self.weight * torch.ones_like(x)

    def consistent() -> Any:
        plain = {"data_normalize_fn": None, "data_unnormalize_fn": None, "data_shape": (4,)}
        own = module("rectified_flow").RectifiedFlow(Constant(), use_consistency=True, **plain)
        own.ema_model.ema_model.weight.data.fill_(2.0)
        return own

    def averaged() -> None:
        found = consistent().sample(noise=torch.zeros(1, 4), use_ema=True)
        check(float(found.mean()), 2.0, "a sample of the average, whose velocity is 2")

    def matched() -> None:
        """The loss's second part compares the network with its average."""
        given = {"noise": torch.zeros(1, 4), "times": torch.full((1,), 0.5)}
        parts = consistent()(torch.zeros(1, 4), return_loss_breakdown=True, **given)[1]
        check(float(parts.velocity_match), 1.0, "squared difference of velocities 1 and 2")

    def times_kept() -> None:
        run = lambda t: consistent()(torch.zeros(1, 4), times=t)  # noqa: E731
        driven.leaves_alone(run, torch.full((1,), 0.5), "times")

    def one_step() -> None:
        own = flow("RectifiedFlow", lambda x, t: torch.ones_like(x), data_shape=(4,))
        found = own.sample(noise=torch.zeros(1, 4), steps=1)
        check(float(found.mean()), 1.0, "a sample in 1 step, where the velocity is 1")

    def huber() -> None:
        sizes = torch.tensor([[1.0], [3.0]])
        own = flow("RectifiedFlow", lambda x, t: 0 * x, loss_fn="pseudo_huber")

        def loss(x: Tensor) -> float:
            return float(own(x, noise=0 * x, times=torch.full((len(x),), 0.5)))

        data = sizes.expand(2, 4)
        both = (loss(data[:1]) + loss(data[1:])) / 2
        check(loss(data), both, "the loss of two examples, the mean of theirs", 1e-4)

    def clean() -> None:
        own = flow(
            "SoFlow", lambda x, t, s: 0 * x, model_output_clean=True, lambda_flow_matching=1.0
        )
        found = float(own(torch.zeros(4, 4), noise=torch.ones(4, 4)))
        assert abs(found) < 1e-6, f"the loss of the exact network: got {found:.3g}"

    def late(depth: int) -> None:
        seen: list[float] = []

        def network(x: Tensor, t: Tensor, other: Tensor) -> Tensor:
            seen.append(float(t.max()))
            return x

        with torch.random.fork_rng():
            torch.manual_seed(0)
            flow("RecursiveFlow", network, recursive_depth=depth)(torch.zeros(50, 4))
        assert max(seen) <= 1, f"times up to {max(seen):.3g} where 1 is data"

    def reflow() -> None:
        own = flow("RectifiedFlow", lambda x, t: 0 * x, data_shape=(4,))
        module("reflow").Reflow(own, batch_size=2)()

    return {
        ("RectifiedFlow.sample, reverse", "inversion"): partial(there_and_back, "RectifiedFlow"),
        ("NanoFlow.sample, reverse", "inversion"): partial(there_and_back, "NanoFlow"),
        ("NanoFlow.sample, reverse_fixed_point_steps", "inversion"): fixed_point,
        ("RectifiedFlow.sample, use_ema", "average"): averaged,
        ("RectifiedFlow.forward, use_consistency", "average"): matched,
        ("RectifiedFlow.forward, use_consistency", "arguments"): times_kept,
        ("RectifiedFlow.sample, 1 step", "steps"): one_step,
        ("RectifiedFlow.forward, pseudo_huber", "batch"): huber,
        ("SoFlow.forward, model_output_clean", "loss"): clean,
        ("RecursiveFlow.forward, 2 levels", "times"): partial(late, 2),
        ("RecursiveFlow.forward, 3 levels", "times"): partial(late, 3),
        ("Reflow.forward", "runs"): reflow,
    }


def sampler(kind: str, order: int, noisy: bool = False, **options: Any) -> Sampler:
    """Sampling of RectifiedFlow, of n steps where it is asked for n + 1 times, and of NanoFlow."""
    clean = "clean" in options.values() or options.get("predict_clean", False)

    def run(n: int, network: Any, channels: int, batch: int) -> Tensor:
        if n >= 99:
            raise UnsupportedError("at most 100 steps")
        own = flow(kind, network, data_shape=(channels,), **options)
        steps = n + 1 if kind == "RectifiedFlow" else n
        return torch.as_tensor(own.sample(batch_size=batch, steps=steps))

    def velocity(schedule: Any, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        return x0 if clean else -prediction.flow_from_x0(schedule, x, x0, t)

    return driven.sampler(
        kind,
        RectifiedFlow(),
        run,
        lambda t: 1 - t,
        order,
        noisy,
        predicts=velocity,
        stages=2 if kind == "RectifiedFlow" else 1,
    )


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Formulas by setting, then samplers."""
    given = partial(formulas_of, LIBRARY, limits=LIMITS)
    for name, kinds in (
        ("RectifiedFlow", ("flow", "noise", "clean")),
        ("NanoFlow", ("flow", "clean")),
    ):
        for predicts in kinds:
            yield from given(predicts, losses(name, predicts))
    found: Found = {}
    for name in ("MeanFlow", "SplitMeanFlow", "LsdFlow", "SoFlow"):
        found |= averages(name)
    yield from given("defaults", found | others())
    cases: list[tuple[str, int, bool, dict[str, Any]]] = [
        ("RectifiedFlow", 2, False, {"predict": "flow"}),
        ("NanoFlow", 1, False, {"predict_clean": False}),
        ("RectifiedFlow", 2, False, {"predict": "clean"}),
        ("NanoFlow", 1, False, {"predict_clean": True}),
    ]
    for subject in subjects_of(LIBRARY, sampler, cases[: 2 if quick else 4]):
        yield replace(subject, ladder=(8, 16, 32, 64))
