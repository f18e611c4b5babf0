"""bionemo-moco's interpolants: DDPM of indices, VDM of times, flow matching; tokens beside."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusion_math import testing
from diffusion_math.denoiser import Denoiser
from diffusion_math.grid import trailing
from diffusion_math.noise import Noise
from diffusion_math.prediction import flow_from_x0
from diffusion_math.schedule import RectifiedFlow, VPLinear
from diffusion_math.testing.draws import Draws
from diffusion_math.testing.sampler import Sampler
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers.bionemo_ddpm import Formulas, Weights, ddpm, made, moments, shared
from experiments.audit.peers.bionemo_times import of_times
from experiments.audit.peers.bionemo_tokens import close, of_tokens, part
from experiments.audit.subject import Subject, subjects_of

SAMPLERS: list[tuple[str, int, bool, dict[str, Any]]] = [
    ("VDM.step", 1, True, {}),
    ("VDM.step_ddim", 1, False, {}),
    ("VDM.step_ddim", 1, True, {"eta": 1.0}),
    ("VDM.step_ode", 1, False, {}),
    ("VDM.step_hybrid_sde", 1, True, {}),
    ("VDM.step_hybrid_sde", 1, True, {"equilibrium_rate": 1.0}),
    ("ContinuousFlowMatcher.step", 1, False, {}),
    ("ContinuousFlowMatcher.step_score_stochastic", 1, True, {"gt_mode": "1mt"}),
]
"""Each: its order (the weak order where it draws noise), whether it is noisy, options."""


def vdm(kind: str = "data") -> Any:
    """The library's `VDM` on the schedule whose beta is 20 t."""
    noise = part("schedules.noise.continuous_snr_transforms")
    schedule = noise.LinearSNRTransform(min_value=0.0)
    return made("VDM", noise_schedule=schedule, prediction_type=kind)


def sampler(name: str, order: int, noisy: bool, **options: Any) -> Sampler:
    """A method of one step, repeated down any grid."""
    kind, method = name.split(".")
    flow = kind == "ContinuousFlowMatcher"
    one = made(kind, prediction_type="velocity") if flow else vdm()
    schedule = RectifiedFlow() if flow else VPLinear(1e-12, 20.0)
    step = partial(getattr(one, method), **options)

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> Iterator[Tensor]:
        for t, s in pairwise(grid):
            given, dt = denoise(x, t), t - s
            with Draws(noise(x, t, s) if noisy else torch.zeros_like(x)).everywhere():
                if flow:
                    given = -flow_from_x0(schedule, x, given, t)
                    x = step(given, x, dt.expand(len(x)), (1 - t).expand(len(x)))
                else:
                    x = step(given, t.expand(len(x)), x, dt)
            yield x

    exact = method in ("step", "step_ddim")
    return Sampler(
        name, schedule, sample, lambda n: trailing(schedule, n, end=LAST), order, noisy, exact=exact
    )


LAST = 0.02
"""The last time of the grids here: some steps have no value at t = 0."""


def _vdm() -> Formulas:
    """`VDM` and its schedules, in float64."""
    snr = part("schedules.noise.continuous_snr_transforms")
    times, f64 = torch.linspace(0.02, 1.0, 50, dtype=torch.float64).tolist(), torch.float64
    levels = _levels(vdm().noise_schedule)
    plain: Weights = {"ones": ("x0", "x0", {}), "data_to_noise": ("x0", "simple", {})}
    found = shared("VDM", vdm, plain, levels, times, f64)
    pairs = [(times[k], times[j]) for k, j in ((1, 0), (9, 3), (30, 29), (49, 48), (30, 9))]
    for name, method in {
        "step": vdm().step,
        "step_ddim(eta=1)": partial(vdm().step_ddim, eta=1.0),
    }.items():
        found[f"VDM.{name}", "posterior"] = partial(
            testing.assert_posterior,
            moments(lambda x0, t, x, s, method=method: method(x0, t, x, t - s)),
            levels,
            times,
            spread="deviation",
            pairs=pairs,
        )
    for kind in ("CosineSNRTransform", "LinearSNRTransform", "LinearLogInterpolatedSNRTransform"):
        one = getattr(snr, kind)()

        def rate(which: int, one: Any = one) -> Callable[[Any], Any]:
            return lambda t: one.calculate_general_sde_terms(
                torch.tensor([t], dtype=torch.float64)
            )[which]

        found[kind, "schedule"] = partial(
            testing.assert_schedule,
            _levels(one),
            times[:-1],
            path="variance-preserving",
            drift=rate(0),
            g2=rate(1),
        )

    def cosine() -> None:
        """alpha_t = cos((t + s) / (1 + s) pi / 2) (arXiv:2102.09672, eq. 17)."""
        t = torch.tensor(times, dtype=torch.float64)
        phase = (t + 0.008) / 1.008 * math.pi / 2
        both = torch.stack(_levels(snr.CosineSNRTransform())(t))
        close(both, torch.stack((phase.cos(), phase.sin())), 1e-6)

    found["CosineSNRTransform", "levels"] = cosine

    def straight(_: str) -> Any:
        return made("VDM", noise_schedule=snr.LinearLogInterpolatedSNRTransform(0.0, slope))

    slope = 20.0  # of the log-SNR
    weights: Weights = {
        "variational_objective_discrete": ("eps", _snr(math.expm1(slope / 10)), {"dt": 0.1}),
        "variational_objective_continuous_noise": ("eps", _snr(slope / 2), {}),
        "variational_objective_continuous_data": ("x0", _snr(slope / 2), {}),
    }
    levels, later = _levels(straight("").noise_schedule), times[5:]
    losses = shared("VDM", straight, weights, levels, later, f64)
    return found | {key: run for key, run in losses.items() if key[1] == "loss"}


def _levels(noise: Any) -> Callable[[Any], Any]:
    return lambda t: noise.log_snr_to_alphas_sigmas(
        noise.calculate_log_snr(torch.as_tensor(t, dtype=torch.float64))
    )


def _snr(factor: float) -> Callable[[Any], Tensor]:
    """VDM's weights (arXiv:2107.00630, eq. 14 and 18) on x0, where the log-SNR is linear in t."""
    return lambda step: factor * (step.alpha_t / step.sigma_t) ** 2


def _flow() -> Formulas:
    """`ContinuousFlowMatcher`; its time is that of data: x_t = t x0 + (1 - t) noise."""
    times = torch.linspace(0.98, 0.02, 25, dtype=torch.float64).tolist()
    one, data = (
        made("ContinuousFlowMatcher", prediction_type=kind, eps=0.0)
        for kind in ("velocity", "data")
    )

    def levels(t: Any) -> tuple[Any, Any]:
        return t, 1 - t

    def loss(predicts: str) -> Callable[..., Any]:
        def of(network: Denoiser, x0: Tensor, t: Tensor, noise: Tensor) -> Any:
            x, it = one.interpolate(x0, t, noise), data if predicts == "x0" else one
            target = it.calculate_target(x0, noise)
            kind = "data" if predicts == "x0" else "velocity"
            given = network(x, t) if predicts == "x0" else -network(x, t)  # x0 - noise
            return it.loss(given, target, t, x, target_type=kind)

        return of

    check, name = testing.assert_loss, "ContinuousFlowMatcher"
    return {
        (f"{name}.interpolate", "forward"): lambda: testing.assert_forward(
            lambda x0, t, z: one.interpolate(x0, t, z), levels, times
        ),
        (f"{name}.conversions", "prediction_maps"): lambda: testing.assert_prediction_maps(
            {
                "x0_from_velocity": lambda x, v, t: one.process_data_prediction(v, x, t),
                "score_from_velocity": lambda x, v, t: one.vf_to_score(x, v, t),
                "velocity_from_x0_and_eps": lambda x0, z, t: one.calculate_target(x0, z),
            },
            levels,
            times,
        ),
        (f"{name}.loss(velocity)", "loss"): lambda: check(
            loss("flow"), levels, times, predicts="flow"
        ),
        (f"{name}.loss(data)", "loss"): lambda: check(
            loss("x0"), levels, times, predicts="x0", weight=lambda step: 1 / step.sigma_t**2
        ),
    }


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Formulas, and samplers at their defaults."""
    found = (ddpm() | _vdm() | _flow() | of_tokens() | of_times()).items()
    yield from formulas_of("bionemo-moco", "defaults", dict(found))
    yield from subjects_of("bionemo-moco", sampler, SAMPLERS[:1] if quick else SAMPLERS)


UNTRIED = {
    "LinearHarmonicPrior, OTSampler, KabschAugmentation": "draw or align points: no noise level",
    "MDLM.step_confidence, step_self_path_planning, DiscreteFlowMatcher.step_purity": (
        "heuristics that keep no distribution"
    ),
    "DiscreteMaskedPrior, DiscreteUniformPrior, DiscreteCustomPrior": "draw tokens",
}
"""What the library exports and `subjects` leaves out: why."""
