"""BayesFlow's diffusion, flow-matching and consistency models and its integrators, on torch."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from diffusion_math import testing
from diffusion_math.denoiser import Denoiser
from diffusion_math.grid import trailing
from diffusion_math.noise import Noise
from diffusion_math.prediction import score_from_x0
from diffusion_math.schedule import RectifiedFlow, VPLinear
from diffusion_math.testing import weights
from diffusion_math.testing.adaptors import of_velocity
from diffusion_math.testing.sampler import Sampler
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers.bayesflow_models import Formulas, close, consistency, model, part
from experiments.audit.subject import Subject, subjects_of

SAMPLERS: list[tuple[str, int, bool, dict[str, Any]]] = [
    ("euler", 1, False, {}),
    ("rk45", 5, False, {}),
    ("tsit5", 5, False, {}),
    ("euler_maruyama", 1, True, {}),
    ("two_step_adaptive", 1, True, {}),
    ("sea", 1, True, {}),
    ("shark", 1, True, {}),
]
"""Each integrator: its order (the weak order where it draws noise), whether it is noisy."""


def sampler(name: str, order: int, noisy: bool) -> Sampler:
    """An integrator on any grid: of a flow's velocity, or of the reverse VP SDE."""
    integrate = part("utils.integrate")
    if not noisy:

        def flow(velocity: Callable[..., Tensor], x: Tensor, times: Tensor) -> Any:
            def field(time: Any, xz: Tensor) -> dict[str, Tensor]:
                return {"xz": velocity(xz, time)}

            return integrate.integrate(field, {"xz": x}, steps=times, method=name)["xz"]

        straight = RectifiedFlow()
        return Sampler(
            name,
            straight,
            of_velocity(flow),
            lambda n: trailing(straight, n, end=0.02),
            order,
            exact=name == "euler",
        )
    schedule, step = VPLinear(), getattr(integrate, f"{name}_step")
    more = {"use_adaptive_step_size": False} if name == "two_step_adaptive" else {}

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> Iterator[Tensor]:
        def rate(time: Any) -> Any:
            return schedule.beta_min + (schedule.beta_max - schedule.beta_min) * time

        def drift(time: Any, xz: Tensor) -> dict[str, Tensor]:
            score = score_from_x0(schedule, xz, denoise(xz, time), time)
            return {"xz": -rate(time) * (xz / 2 + score)}

        def diffusion(time: Any, xz: Tensor) -> dict[str, Tensor]:
            return {"xz": rate(time).sqrt() * torch.ones_like(xz)}

        for t, s in pairwise(grid):
            given = {"noise": {"xz": noise(x, t, s)}, **more}
            if name in ("sea", "shark"):
                given["noise_aux"] = {"xz": torch.zeros_like(x)}
            x = step(drift, diffusion, {"xz": x}, t, s - t, **given)[0]["xz"]
            yield x

    return Sampler(
        name, schedule, sample, lambda n: trailing(schedule, n, end=0.02), order, noisy, exact=False
    )


def _levels(noise: Any, training: bool = False) -> Callable[[Any], Any]:
    return lambda t: noise.get_alpha_sigma(
        noise.get_log_snr(torch.as_tensor(t, dtype=torch.float64), training=training)
    )


def _diffusion() -> Formulas:
    """Schedules, conversions, losses and densities of `DiffusionModel`."""
    times = torch.linspace(0.01, 0.99, 50, dtype=torch.float64).tolist()
    found: Formulas = {}
    kinds: dict[str, dict[str, Any]] = {
        "cosine": {"noise_schedule": "cosine"},
        "EDM": {"noise_schedule": "edm"},
        "EDM, exploding": {
            "noise_schedule": "edm",
            "schedule_kwargs": {"variance_type": "exploding"},
        },
    }
    for said, options in kinds.items():
        noise = model("DiffusionModel", _nothing, **options).noise_schedule

        def at(t: Any, noise: Any = noise) -> Any:
            return noise.get_log_snr(torch.as_tensor(t, dtype=torch.float64), training=False)

        def drift(t: Any, noise: Any = noise, at: Any = at) -> Any:
            return noise.get_drift(at(t), x=torch.ones((), dtype=torch.float64))[0]

        def inverse(value: Any, noise: Any = noise) -> Any:
            return noise.get_t_from_log_snr(
                torch.as_tensor(value, dtype=torch.float64), training=False
            )

        schedule = partial(testing.assert_schedule, _levels(noise), times)
        found[f"NoiseSchedule({said})", "levels"] = schedule
        found[f"NoiseSchedule({said})", "inverse"] = partial(schedule, inverse=inverse)
        found[f"NoiseSchedule({said})", "schedule"] = partial(
            schedule, drift=drift, g2=lambda t, noise=noise, at=at: noise.get_drift(at(t))
        )
        found[f"DiffusionModel({said}).log_prob", "likelihood"] = partial(_density, options)
        found[f"DiffusionModel({said})", "start"] = partial(_start, options)
        found[f"DiffusionModel({said}, F)", "unit variance"] = partial(_unit, options)
        for kind, ours in (("velocity", "v"), ("noise", "eps"), ("score", "score")):
            maps = {f"x0_from_{ours}": partial(_convert, options, kind)}
            found[f"DiffusionModel({said}).convert({kind})", "prediction_maps"] = partial(
                testing.assert_prediction_maps, maps, _levels(noise), times[::3]
            )
    sigmoid = lambda step: _snr(step) * torch.sigmoid(2 - _snr(step).log())  # noqa: E731
    for said, kind, weight, options in (
        ("cosine", "eps", sigmoid, kinds["cosine"]),
        ("EDM", "eps", weights.edm(1.0), kinds["EDM"]),
        ("EDM, exploding", "eps", weights.edm(1.0), kinds["EDM, exploding"]),
        ("cosine, velocity", "v", None, kinds["cosine"]),
        ("EDM, exploding, velocity", "v", None, kinds["EDM, exploding"]),
    ):
        found[f"DiffusionModel({said}).loss", "loss"] = partial(_loss, kind, weight, options)
    return found


def _snr(step: Any) -> Any:
    return (step.alpha_t / step.sigma_t) ** 2


def _nothing(x: Tensor, time: Any) -> Tensor:
    return torch.zeros_like(x)


def _convert(options: dict[str, Any], kind: str, x_t: Tensor, given: Tensor, t: Tensor) -> Any:
    one = model("DiffusionModel", _nothing, **options)
    snr = one.noise_schedule.get_log_snr(t[:, None], training=False)
    return one.convert_prediction_to_x(
        given, x_t, *one.noise_schedule.get_alpha_sigma(snr), snr, kind
    )


def _loss(kind: str, weight: Any, options: dict[str, Any]) -> None:
    """A loss at the times and with the noise that it draws; the network predicts x0."""
    random = part("networks") and import_module("keras").random
    type_ = {"eps": "noise", "v": "velocity"}[kind]
    one = model("DiffusionModel", _nothing, prediction_type="x", loss_type=type_, **options)
    noise, snr = one.noise_schedule, one.noise_schedule.get_log_snr

    def loss(network: Denoiser, x0: Tensor, t: Tensor, z: Tensor) -> Any:
        vars(one).update(subnet=lambda given, **_: network(*given[:2]))
        given = patch.object(noise, "get_log_snr", lambda _, training: snr(t, training=training))
        with given, patch.object(random, "normal", return_value=z):
            return one.compute_metrics(x0, stage="validation")["loss"]

    if weight is None:  # 1 on v, but for the weights of the schedule
        base = noise.get_weights_for_snr
        weight = lambda step: weights.x0_weight("v")(step) * base(_snr(step).log())  # noqa: E731
    times = torch.linspace(0.1, 0.9, 9, dtype=torch.float64).tolist()
    levels = _levels(noise, training=True)
    options = {"weight": weight, "told": "nothing", "dtype": torch.float32}  # a scaled log-SNR
    testing.assert_loss(loss, levels, times, predicts="x0", **options)


def _density(options: dict[str, Any]) -> None:
    """The log-density by its default integrator; times here are log-SNRs."""
    one = model("DiffusionModel", _nothing, prediction_type="x", **options)
    noise = one.noise_schedule

    def log_density(network: Denoiser, x: Tensor) -> Any:
        def subnet(x_t: Tensor, scaled: Tensor) -> Tensor:
            span = noise.log_snr_max - noise.log_snr_min
            return network(x_t, (scaled[:, 0] + 1) / 2 * span + noise.log_snr_min)

        one = model("DiffusionModel", subnet, prediction_type="x", **options)
        one.base_distribution.build((None, 4))
        return one._forward(x, density=True, method="rk45", steps=60)[1]

    def levels(snr: Any) -> Any:
        return noise.get_alpha_sigma(torch.as_tensor(snr, dtype=torch.float64))

    ends = [float(noise.get_log_snr(torch.tensor(t), training=False)) for t in (0.0, 1.0)]
    testing.assert_likelihood(
        log_density,
        levels,
        *ends,
        prior=float(levels(ends[1])[1]),
        predicts="x0",
        tolerance=0.009,
        dtype=torch.float32,
    )


def _start(options: dict[str, Any]) -> None:
    """Sampling begins with noise of the deviation of its first time."""
    seen: list[Tensor] = []

    def network(x: Tensor, time: Any) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    one = model("DiffusionModel", network, prediction_type="x", **options)
    one._inverse(torch.ones(1, 4), method="euler", steps=1)
    close(seen[0][0, 0], _levels(one.noise_schedule)(1.0)[1])


def _unit(options: dict[str, Any]) -> None:
    """What F stands for has variance 1 on data of variance 1 (arXiv:2206.00364, eq. 7)."""
    t = torch.tensor([0.5], dtype=torch.float64)
    one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    alpha, sigma = _levels(model("DiffusionModel", _nothing, **options).noise_schedule)(t)
    skip, out = _convert(options, "F", one, zero, t), _convert(options, "F", zero, one, t)
    close((((1 - skip * alpha) / out) ** 2 + (skip * sigma / out) ** 2)[0, 0], 1.0)


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Formulas, and integrators."""
    yield from formulas_of("bayesflow", "defaults", _diffusion() | consistency())
    yield from subjects_of("bayesflow", sampler, SAMPLERS[:1] if quick else SAMPLERS)


UNTRIED = {
    "method='glass'": "an inner flow of its own, whose law no exact value is known for",
    "method='langevin', corrector_steps": "step sizes of each sample, which keep no distribution",
    "steps='adaptive'": "accepts by an error estimate: no order",
    "optimal_transport": "pairs samples: no noise level",
    "compositional_score(use_jac=True)": "checked by hand on normals, where it is exact",
    "CouplingFlow, point networks": "no diffusion",
}
"""What the library exports and `subjects` leaves out: why."""
