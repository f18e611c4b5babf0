"""rectified-flow-pytorch: flows from noise at t = 0 to data at t = 1, and average velocities."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_math import prediction
from diffusion_math.schedule import RectifiedFlow
from diffusion_math.testing import Sampler, UnsupportedError, assert_loss
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._lucidrains import check
from experiments.audit.peers.rectified_flow_averages import averages
from experiments.audit.peers.rectified_flow_models import TIMES, Found, flow, module
from experiments.audit.subject import Subject, subjects_of

UNTRIED = {
    "Trainer, ReflowTrainer, SoFlowTrainer": "they read and write files",
    "Unet, FiT, LapFlowDiT": "networks",
    "SelfFlow": "it takes FiT alone, and its second loss is of hidden layers",
    "LPIPSLoss": "it wants the weights of VGG",
    "EquilibriumMatching.forward, nano_flow_multi_obj, LapFlow": "not driven",
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
            told=lambda t: cap * t,
            weight=None if predicts == "noise" else lambda step: 1 / step.sigma_t**2,
        )
    }


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

    def lpips(part: str) -> None:
        """arXiv:2405.20320, section 4.2: Huber's weight is 1 - t, LPIPS' 1 / t, noise at t = 1."""
        where, time = module("rectified_flow"), torch.tensor([0.75])
        zero, one = torch.zeros(1, 4), torch.ones(1, 4)
        features = {"vgg": nn.Flatten()}
        loss = where.PseudoHuberLossWithLPIPS(lpips_kwargs=features)
        pred, data = (one, zero) if part == "Huber" else (zero, one)
        found = loss(pred, zero, pred_data=data, data=zero, times=time)
        right = float(where.PseudoHuberLoss()(one, zero)) * 0.75 if part == "Huber" else 4.0
        check(float(found), right, f"{part}'s part of the loss at 3/4 of the way to data")

    def cosmap() -> None:
        """arXiv:2403.03206, appendix: the share of data is tan(pi u / 2) times that of noise."""
        u = torch.linspace(0.05, 0.95, 19).double()
        t = module("rectified_flow").cosmap(u)
        off = float((t - (1 - t) * (torch.pi * u / 2).tan()).abs().max())
        check(off, 0.0, "the share of data is off by", 1e4)

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
        ("RectifiedFlow.forward, pseudo_huber_with_lpips, Huber", "weight"): (
            partial(lpips, "Huber")
        ),
        ("RectifiedFlow.forward, pseudo_huber_with_lpips, LPIPS", "weight"): (
            partial(lpips, "LPIPS")
        ),
        ("cosmap", "schedule"): cosmap,
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
