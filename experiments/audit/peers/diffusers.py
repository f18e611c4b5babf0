"""diffusers' schedulers: every class, spacing, prediction and option that they offer."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers.utils import logging

from experiments.audit.peers.diffusers_case import Case, groups
from experiments.audit.peers.scheduler_driver import Driven, second
from experiments.audit.subject import Subject

SPACINGS = ("leading", "linspace", "trailing")
SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")

BELOW = "no time of the network matches a stage below the least noise level of the schedule"
STRAY = "eps is not constant along the reverse SDE, so no level is exact by construction"
DISTILLED = "noise is renewed, all or a share, in every step, for networks that reach data in one"
GROUPS = "groups of three end elsewhere at every number of steps, and the last are shorter"
STAGES = "its second stage is wanted at 2/3 of the step, and times are whole numbers"
SHORTER = "n is documented as the number of levels, the last included: one more than of steps"
DIGITS = "four digits of the table's least variance are left in float32"
LARGE = "the forward variance is not that of data without spread, nor meant to be"


def the_step_before(scheduler: Any, call: int, before: Any) -> dict[str, Any]:
    """CogVideoX's pipeline hands on the last prediction of clean data, and its time."""
    first = before is None
    return {
        "old_pred_original_sample": None if first else before[1],
        "timestep_back": None if first else scheduler.timesteps[call - 1],
    }


def the_next_time(scheduler: Any, call: int, before: Any) -> dict[str, Any]:
    """unCLIP's pipeline tells where a step goes, but for the last."""
    times = scheduler.timesteps
    return {"prev_timestep": times[call + 1] if call + 1 < len(times) else None}


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
CHURN = {"s_churn": 10.0}


def cases() -> Iterator[Case]:
    """All cases."""
    yield from _by_times()
    yield from _by_ratio()
    yield from _multistep()
    yield from _singlestep()
    yield from _of_edm()
    yield from _of_flow()


def subjects(quick: bool) -> Iterator[Subject]:
    """All cases that can be made here; `quick`: each class and algorithm at its main setting.

    What diffusers notes on a setting each time it is made, it notes no longer in this process.
    """
    logging.set_verbosity_error()
    for case in cases():
        if case.main or not quick:
            with suppress(ImportError):  # an extra that this scheduler wants
                yield case.subject()


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
            config |= {"steps_offset": 1} if spacing == "leading" else {}
            yield Case("PNDMScheduler", driven, 2, config, main=skip and spacing == "leading")
            if spacing == "leading":
                yield Case("PNDMScheduler", driven, 2, config | {"prediction_type": "v_prediction"})
    for spacing in SPACINGS:
        config = {**bare, "timestep_spacing": spacing}
        yield Case("CogVideoXDDIMScheduler", TIMES, 1, config, main=spacing == "trailing")
        dpm = replace(TIMES, each=the_step_before)
        yield Case("CogVideoXDPMScheduler", dpm, 2, config, noisy=True, main=spacing == "trailing")
    told = replace(TIMES, each=the_next_time)
    limits = {"image-to-image": DIGITS}
    yield Case("UnCLIPScheduler", told, 1, bare, True, limits, main=True, table=False)
    yield Case("IPNDMScheduler", Driven("arc", by_sigmas=False), 4, main=True, table=False)
    limits = dict.fromkeys(("order", "order of a step", "weak order"), DISTILLED)
    few = partial(Case, order=1, config=bare, ladder=(6, 12, 24, 48))  # at most 50 are legal
    yield few("LCMScheduler", TIMES, noisy=True, limits=limits, main=True)
    yield few("TCDScheduler", replace(TIMES, step={"eta": 0.0}))
    yield few("TCDScheduler", TIMES, noisy=True, limits=limits, main=True)


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
            below = dict.fromkeys(("levels", "image-to-image"), BELOW)
            limits = below if kind == "KDPM2AncestralDiscreteScheduler" else {}
            for sigmas in SIGMAS:
                yield Case(kind, driven, order, {sigmas: True}, noisy, limits)
    euler: tuple[dict[str, Any], ...] = (
        {"final_sigmas_type": "sigma_min"},
        {"interpolation_type": "log_linear"},
        {"timestep_spacing": "leading", "steps_offset": 1},
    )
    for config in euler:
        yield Case("EulerDiscreteScheduler", RATIO, 1, config)
    yield Case("EulerDiscreteScheduler", replace(RATIO, step=CHURN), 1, {}, noisy=True)


def _multistep() -> Iterator[Case]:
    solver = "DPMSolverMultistepScheduler"
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"):
        noisy = algorithm.startswith("sde")
        stray = algorithm == "sde-dpmsolver"
        limits = dict.fromkeys(("levels", "image-to-image"), STRAY) if stray else {}
        for order in (1, 2, 3):
            config: dict[str, Any] = {"algorithm_type": algorithm, "solver_order": order}
            if algorithm in ("dpmsolver", "sde-dpmsolver"):
                config["final_sigmas_type"] = "sigma_min"
            claimed = min(order, 2) if noisy else order
            yield Case(solver, LEVELS, claimed, config, noisy, limits, main=order > 1)
        heun = {**config, "solver_order": 2, "solver_type": "heun"}
        yield Case(solver, LEVELS, 2, heun, noisy, limits)
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
    for predictor, corrector in ((1, 1), (2, 2), (3, 3)):
        config = {"predictor_order": predictor, "corrector_order": corrector}
        yield Case("SASolverScheduler", LEVELS, 1, config, noisy=True, main=corrector == 2)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    straight = Driven("flow")
    for sigmas in SIGMAS:
        yield Case("SASolverScheduler", LEVELS, 1, {sigmas: True}, noisy=True)
    yield Case("SASolverScheduler", straight, 1, flow, noisy=True)
    for kind in (solver, "DEISMultistepScheduler", "UniPCMultistepScheduler"):
        yield Case(kind, straight, 2, flow)
        yield Case(kind, straight, 2, {**flow, "flow_shift": 3.0}, main=kind == solver)


def _singlestep() -> Iterator[Case]:
    kind, driven = "DPMSolverSinglestepScheduler", replace(LEVELS, reached=groups)
    case = partial(Case, kind, driven, ladder=(12, 24, 48, 96))  # whole groups
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++"):
        noisy = algorithm.startswith("sde")
        for order in (1, 2, 3):
            config: dict[str, Any] = {"algorithm_type": algorithm, "solver_order": order}
            config |= {"final_sigmas_type": "sigma_min"} if algorithm == "dpmsolver" else {}
            claimed = 1 if noisy else order
            limits = {"order": GROUPS} if order == 3 else {}
            if order == 3 and algorithm == "dpmsolver":
                limits["order of a step"] = STAGES
            yield case(claimed, config, noisy, limits, order > 1 and not noisy)
        for order in (2, 3) if noisy else (2,):
            heun = {**config, "solver_order": order, "solver_type": "heun"}
            yield case(1 if noisy else order, heun, noisy)
    for sigmas in SIGMAS:
        yield case(2, {sigmas: True})
    yield case(2, {"lower_order_final": True})
    config = {"solver_order": 3, "solver_type": "heun"}
    yield case(3, config, limits={"order": GROUPS})


def _of_edm() -> Iterator[Case]:
    edm = Driven("edm")
    for spread in ("karras", "exponential"):
        config: dict[str, Any] = {"sigma_schedule": spread}
        yield Case("EDMEulerScheduler", edm, 1, config, main=spread == "karras", table=False)
        for order in (1, 2, 3):
            config = {"sigma_schedule": spread, "solver_order": order}
            main = spread == "karras" and order > 1
            yield Case("EDMDPMSolverMultistepScheduler", edm, order, config, main=main, table=False)
    yield Case("EDMEulerScheduler", replace(edm, step=CHURN), 1, {}, noisy=True, table=False)
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
    limits = {"weak order": DISTILLED}
    yield Case(euler, straight, 1, config, noisy=True, limits=limits, table=False)
    kind, heun = "FlowMatchHeunDiscreteScheduler", Driven("flow", second)
    for shift in (1.0, 3.0):
        config = {"shift": shift}
        yield Case(kind, heun, 2, config, main=shift == 1.0, table=False)
    yield Case(kind, replace(heun, step=CHURN), 2, {}, noisy=True, table=False)
    for eta, noisy in ((0.0, False), (1.0, True)):
        kind, config = "LTXEulerAncestralRFScheduler", {"eta": eta}
        yield Case(kind, straight, 1, config, noisy, main=noisy, table=False)
    yield Case("FlowMatchLCMScheduler", straight, 1, {}, True, limits, main=True, table=False)
    for shift in (1.0, 5.0):
        kind, config = "FlowMapEulerDiscreteScheduler", {"shift": shift}
        yield Case(kind, straight, 1, config, main=shift == 1.0, table=False)
    onward = Driven("flow", forward=True)
    limits, kind = {"grid": SHORTER}, "MiniMaxH3Scheduler"
    fine = (40, 80, 160, 320)  # its shift leaves few steps where the solution bends
    yield Case(kind, onward, 1, {}, False, limits, main=True, table=False, ladder=fine)
