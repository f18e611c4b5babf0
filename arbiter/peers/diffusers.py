"""diffusers' schedulers: every class, spacing, prediction and option that they offer."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, final

import torch

from arbiter.peers.scheduler import Driven, sampler, second
from arbiter.sampler import Sampler

__all__ = ["Case", "cases"]

TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""Stable Diffusion's."""
SPACINGS = ("leading", "linspace", "trailing")
SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")

LARGE = "the forward variance is not that of data without spread, nor meant to be"


@final
@dataclass(frozen=True)
class Case:
    """One scheduler at one setting.

    Attributes:
        kind: the class's name. config: what it is constructed with, besides the table.
        order: what its paper or its own words claim at this setting.
        limits: check -> why a failure of it is no defect.
        main: whether it is of the quick audit.
    """

    kind: str
    driven: Driven
    order: int
    config: dict[str, Any] = field(default_factory=dict)
    noisy: bool = False
    limits: dict[str, str] = field(default_factory=dict)
    main: bool = False
    table: bool = True

    @property
    def setting(self) -> str:
        """The options that differ from the defaults, as they are written."""
        options = {**self.config, **self.driven.settle, **self.driven.step}
        return ", ".join(f"{k}={v!r}" for k, v in options.items()) or "defaults"

    def sampler(self) -> Sampler:
        """The case as a `Sampler`."""
        import diffusers

        config = {**(TABLE if self.table else {}), **self.config}
        make = partial(getattr(diffusers, self.kind), **config)
        return sampler(self.kind, make, self.driven, self.order, self.noisy)


def groups(scheduler: Any) -> list[int]:
    """DPM-Solver's single steps: the last call of each group."""
    orders = scheduler.order_list
    calls = len(scheduler.timesteps)
    return [k for k in range(calls) if k + 1 == calls or orders[k + 1] == 1]


def after_repeat(scheduler: Any) -> list[int]:
    """PLMS takes its first step twice."""
    calls = len(scheduler.timesteps)
    return list(range(1, calls)) or [0]


def after_runge_kutta(scheduler: Any) -> list[int]:
    """PNDM's first three steps take four calls each."""
    calls = len(scheduler.timesteps)
    return [3, 7, 11, *range(12, calls)]


TIMES, LEVELS, RATIO = Driven(by_sigmas=False), Driven(), Driven("ve")
PAIRS = Driven("ve", second)


def cases(quick: bool) -> Iterator[Case]:
    """All cases; `quick`: each class and algorithm at its main setting."""
    for case in _all():
        if case.main or not quick:
            yield case


def _all() -> Iterator[Case]:
    yield from _by_times()
    yield from _by_ratio()
    yield from _multistep()
    yield from _singlestep()
    yield from _of_edm()
    yield from _of_flow()


def _by_times() -> Iterator[Case]:
    """Those whose times are their levels."""
    bare = {"clip_sample": False}
    for kind in ("DDPMScheduler", "DDPMParallelScheduler"):
        for spacing in SPACINGS:
            main = spacing == "leading" and kind == "DDPMScheduler"
            config = {**bare, "timestep_spacing": spacing}
            yield Case(kind, TIMES, 1, config, noisy=True, main=main)
        for variance in ("fixed_small_log", "fixed_large", "fixed_large_log"):
            wide = "large" in variance
            limits = dict.fromkeys(("levels", "image-to-image"), LARGE) if wide else {}
            yield Case(kind, TIMES, 1, {**bare, "variance_type": variance}, True, limits)
    for kind in ("DDIMScheduler", "DDIMParallelScheduler"):
        for spacing in SPACINGS:
            for one in (True, False):
                config = {**bare, "timestep_spacing": spacing, "set_alpha_to_one": one}
                main = one and kind == "DDIMScheduler" and spacing != "linspace"
                yield Case(kind, TIMES, 1, config, main=main)
            noisy = replace(TIMES, step={"eta": 1.0})
            config = {**bare, "timestep_spacing": spacing}
            yield Case(kind, noisy, 1, config, noisy=True)
        yield Case(kind, TIMES, 1, {**bare, "timestep_spacing": "leading", "steps_offset": 1})
    for spacing in SPACINGS:
        for skip in (True, False):
            reached = after_repeat if skip else after_runge_kutta
            config = {"timestep_spacing": spacing, "skip_prk_steps": skip}
            driven = replace(TIMES, reached=reached)
            yield Case("PNDMScheduler", driven, 2, config, main=skip and spacing == "leading")


def _by_ratio() -> Iterator[Case]:
    """Those whose sample is x / alpha."""
    plain: tuple[tuple[str, Driven, int, bool], ...] = (
        ("EulerDiscreteScheduler", RATIO, 1, False),
        ("EulerAncestralDiscreteScheduler", RATIO, 1, True),
        ("HeunDiscreteScheduler", PAIRS, 2, False),
        ("KDPM2DiscreteScheduler", PAIRS, 2, False),
        ("KDPM2AncestralDiscreteScheduler", PAIRS, 2, True),
        ("LMSDiscreteScheduler", RATIO, 4, False),
        ("DPMSolverSDEScheduler", PAIRS, 2, True),
    )
    for kind, driven, order, noisy in plain:
        for spacing in SPACINGS:
            config: dict[str, Any] = {"timestep_spacing": spacing}
            yield Case(kind, driven, order, config, noisy, main=spacing == "linspace")
        if kind != "EulerAncestralDiscreteScheduler":
            for sigmas in SIGMAS:
                yield Case(kind, driven, order, {sigmas: True}, noisy)
    euler: tuple[dict[str, Any], ...] = (
        {"final_sigmas_type": "sigma_min"},
        {"interpolation_type": "log_linear"},
        {"timestep_spacing": "leading", "steps_offset": 1},
    )
    for config in euler:
        yield Case("EulerDiscreteScheduler", RATIO, 1, config)
    churned = replace(RATIO, step={"s_churn": 10.0})
    yield Case("EulerDiscreteScheduler", churned, 1, {}, noisy=True)


def _multistep() -> Iterator[Case]:
    solver = "DPMSolverMultistepScheduler"
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"):
        noisy = algorithm.startswith("sde")
        for order in (1, 2, 3):
            config: dict[str, Any] = {"algorithm_type": algorithm, "solver_order": order}
            if algorithm in ("dpmsolver", "sde-dpmsolver"):
                config["final_sigmas_type"] = "sigma_min"
            claimed = min(order, 2) if noisy else order
            yield Case(solver, LEVELS, claimed, config, noisy, main=order > 1)
        heun = {**config, "solver_order": 2, "solver_type": "heun"}
        yield Case(solver, LEVELS, 2, heun, noisy)
    options: list[dict[str, Any]] = [{"timestep_spacing": spacing} for spacing in SPACINGS]
    options += [{sigmas: True} for sigmas in (*SIGMAS, "use_lu_lambdas")]
    options += [
        {"final_sigmas_type": "sigma_min"},
        {"euler_at_final": True},
        {"lower_order_final": False},
        {"prediction_type": "v_prediction"},
        {"prediction_type": "sample"},
    ]
    for config in options:
        yield Case(solver, LEVELS, 2, config)
    for kind in ("DEISMultistepScheduler", "UniPCMultistepScheduler"):
        for order in (1, 2, 3):
            yield Case(kind, LEVELS, order, {"solver_order": order}, main=order > 1)
        more = list(options[:6])
        if kind.startswith("UniPC"):
            more += [{"solver_type": "bh1"}, {"predict_x0": False}]
            more += [{"disable_corrector": [0, 1, 2]}, {"final_sigmas_type": "sigma_min"}]
        for config in more:
            yield Case(kind, LEVELS, 2, config)
    for predictor, corrector in ((1, 1), (2, 2), (3, 3), (3, 0)):
        config = {"predictor_order": predictor, "corrector_order": corrector}
        yield Case("SASolverScheduler", LEVELS, 1, config, noisy=True, main=corrector == 2)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    straight = Driven("flow")
    for kind in (solver, "DEISMultistepScheduler", "UniPCMultistepScheduler"):
        yield Case(kind, straight, 2, flow)
        yield Case(kind, straight, 2, {**flow, "flow_shift": 3.0}, main=kind == solver)


def _singlestep() -> Iterator[Case]:
    kind, driven = "DPMSolverSinglestepScheduler", replace(LEVELS, reached=groups)
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++"):
        noisy = algorithm.startswith("sde")
        for order in (1, 2, 3):
            config: dict[str, Any] = {"algorithm_type": algorithm, "solver_order": order}
            config |= {"final_sigmas_type": "sigma_min"} if algorithm == "dpmsolver" else {}
            claimed = 1 if noisy else order
            yield Case(kind, driven, claimed, config, noisy, main=order > 1 and not noisy)
        config = {**config, "solver_order": 2, "solver_type": "heun"}
        yield Case(kind, driven, 1 if noisy else 2, config, noisy)
    for sigmas in SIGMAS:
        yield Case(kind, driven, 2, {sigmas: True})
    yield Case(kind, driven, 2, {"lower_order_final": True})


def _of_edm() -> Iterator[Case]:
    edm = Driven("edm")
    for spread in ("karras", "exponential"):
        config: dict[str, Any] = {"sigma_schedule": spread}
        yield Case("EDMEulerScheduler", edm, 1, config, main=spread == "karras", table=False)
        for order in (1, 2, 3):
            config = {"sigma_schedule": spread, "solver_order": order}
            main = spread == "karras" and order > 1
            yield Case("EDMDPMSolverMultistepScheduler", edm, order, config, main=main, table=False)
    config = {"algorithm_type": "sde-dpmsolver++"}
    yield Case("EDMDPMSolverMultistepScheduler", edm, 2, config, noisy=True, table=False)
    cosine = Driven("edm", level=lambda told: torch.tan(math.pi / 2 * told))
    for order in (1, 2):
        config = {"solver_order": order}
        kind = "CosineDPMSolverMultistepScheduler"
        yield Case(kind, cosine, order, config, noisy=True, main=order == 2, table=False)


def _of_flow() -> Iterator[Case]:
    straight = Driven("flow")
    euler = "FlowMatchEulerDiscreteScheduler"
    options: list[dict[str, Any]] = [{}, {"shift": 3.0}, *({sigmas: True} for sigmas in SIGMAS)]
    for config in options:
        yield Case(euler, straight, 1, config, main=not config, table=False)
    dynamic = replace(straight, settle={"mu": 1.15})
    yield Case(euler, dynamic, 1, {"use_dynamic_shifting": True}, table=False)
    config = {"stochastic_sampling": True}
    yield Case(euler, straight, 1, config, noisy=True, table=False)
    for shift in (1.0, 3.0):
        heun = Driven("flow", second)
        kind, config = "FlowMatchHeunDiscreteScheduler", {"shift": shift}
        yield Case(kind, heun, 2, config, main=shift == 1.0, table=False)
