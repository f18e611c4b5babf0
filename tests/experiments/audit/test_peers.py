"""Other libraries' schedulers, driven as pipelines drive them."""

import pytest
import torch

from diffusion_math.schedule import Discrete
from diffusion_math.testing.conformance import grid_faults, levels
from diffusion_math.testing.order import flow_order, running_order, start_order, weak_order
from diffusion_math.testing.sampler import UnsupportedError
from experiments.audit.peers import prediction_types
from experiments.audit.peers.brownian import Increments
from experiments.audit.peers.diffusers import cases
from experiments.audit.peers.diffusers_case import Case, groups
from experiments.audit.peers.diffusers_untried import UNTRIED
from experiments.audit.peers.ours_in_diffusers import cases as our_cases
from experiments.audit.peers.prediction_types import disagreement
from experiments.audit.peers.scheduler_driver import (
    METHODS,
    Driven,
    announced,
    left,
    method_error,
    second,
)

pytestmark = [
    pytest.mark.usefixtures("unchecked"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of numpy, in diffusers
]

SHORT = (10, 20, 40)
EULER = Case("EulerDiscreteScheduler", Driven("ve"), 1)
HEUN = Case("HeunDiscreteScheduler", Driven("ve", second), 2)
DDIM = {"clip_sample": False}


def ddim(**config):
    return Case("DDIMScheduler", Driven(by_sigmas=False), 1, {**DDIM, **config})


@pytest.mark.parametrize(
    "case",
    [
        EULER,
        HEUN,
        ddim(timestep_spacing="leading"),
        Case("DPMSolverMultistepScheduler", Driven(), 2),
        Case("FlowMatchEulerDiscreteScheduler", Driven("flow"), 1, table=False),
        Case("EDMEulerScheduler", Driven("edm"), 1, table=False),
        Case("DPMSolverSinglestepScheduler", Driven(reached=groups), 2),
    ],
    ids=lambda case: case.kind,
)
def test_sound_schedulers_have_their_order_and_levels(case):
    sampler = case.sampler()
    ladder = (24, 48, 96) if case.driven.reached is groups else SHORT
    assert abs(flow_order(sampler, ladder).order - case.order) < 0.3
    assert levels(sampler, (3, 10)).worst < 1e-2
    assert levels(sampler, (10,), 0.5).worst < 1e-2


@pytest.mark.parametrize(
    "case",
    [c for c in our_cases() if c.main and c.config["solver"] in ("pndm", "heun", "dpmpp_3m")],
    ids=lambda case: case.config["solver"],
)
def test_our_scheduler_is_sound(case):
    sampler = case.sampler()
    assert flow_order(sampler, SHORT).order > case.order - 0.3
    assert levels(sampler, (3, 10)).worst < 1e-2
    assert levels(sampler, (10,), 0.5).worst < 1e-2
    assert announced(case.make(), case.driven, 20) < 1e-2
    assert method_error(case.make(), case.driven, 20, "add_noise") < 1e-2


@pytest.mark.parametrize("solver", ["dpmpp_sde", "edm_churn"])
def test_our_scheduler_has_its_noise(solver):
    [case] = [c for c in our_cases() if c.main and c.config["solver"] == solver]
    assert weak_order(case.sampler(), SHORT).order > 1.7
    assert levels(case.sampler(), (5,)).worst < 1e-2


def test_ancestral_noise_is_seen():
    case = Case("EulerAncestralDiscreteScheduler", Driven("ve"), 1, noisy=True)
    assert weak_order(case.sampler(), SHORT).order == pytest.approx(1, abs=0.3)
    assert levels(case.sampler(), (5,)).worst < 1e-2


def test_a_previous_time_that_is_guessed_is_found():
    """DDIM's linspace: levels are off by many times their spread."""
    assert levels(ddim(timestep_spacing="linspace").sampler(), (2, 7)).worst > 1


def test_a_lost_factor_is_found():
    config = {"sigma_schedule": "karras", "solver_order": 3}
    case = Case("EDMDPMSolverMultistepScheduler", Driven("edm"), 3, config, table=False)
    assert running_order(case.sampler(), (10, 20, 40, 80)).trend < 2.5


def test_what_the_network_is_told_is_compared_with_the_level():
    euler = EULER.make()
    assert announced(euler, EULER.driven, 20) < 1e-2
    rounded = Case("DPMSolverMultistepScheduler", Driven(), 2, {"use_karras_sigmas": True})
    assert 0.1 < announced(rounded.make(), rounded.driven, 20) <= 0.5
    cut = Case("DPMSolverMultistepScheduler", Driven(), 2, {"use_exponential_sigmas": True})
    assert announced(cut.make(), cut.driven, 20) > 0.5


def test_a_walk_that_ends_early_is_found():
    """DEIS repeats its last level: with a flow's levels that is one n-th of the way from data."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    for kind, sigmas, where in (
        ("DEISMultistepScheduler", flow, 50),
        ("DPMSolverMultistepScheduler", flow, 0),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}, 1),
    ):
        case = Case(kind, Driven("flow" if sigmas is flow else "vp"), 2, sigmas)
        assert left(case.make(), case.driven, 20) == pytest.approx(where, abs=0.1)


def test_noise_after_the_network_is_found():
    """Churn that the network does not see stays, most of all at the end."""
    churned = Driven("edm", step={"s_churn": 10.0})
    for driven, wrong in ((churned, True), (Driven("edm"), False)):
        sampler = Case("EDMEulerScheduler", driven, 1, noisy=wrong, table=False).sampler()
        assert (levels(sampler, (7,)).worst > 1) == wrong


STRAIGHT = Driven("flow")
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
SOUND_METHODS = [
    (ddim(timestep_spacing="leading"), "add_noise", (False, True)),
    (ddim(timestep_spacing="leading"), "get_velocity", (False, True)),
    (EULER, "add_noise", (False, True)),
    (HEUN, "add_noise", (False, True)),
    (Case("EDMEulerScheduler", Driven("edm"), 1, table=False), "add_noise", (False, True)),
    (Case("PNDMScheduler", Driven(by_sigmas=False), 2), "add_noise", (False, True)),
    (Case("SASolverScheduler", Driven(), 1), "add_noise", (False, True)),
    (Case("DPMSolverMultistepScheduler", Driven(), 2), "add_noise", (False,)),
    (Case("DPMSolverMultistepScheduler", STRAIGHT, 2, FLOW), "add_noise", (False,)),
    (
        Case("FlowMatchEulerDiscreteScheduler", STRAIGHT, 1, {"shift": 3.0}, table=False),
        "scale_noise",
        (False, True),
    ),
    (
        Case("FlowMatchHeunDiscreteScheduler", Driven("flow", second), 2, table=False),
        "scale_noise",
        (False,),
    ),
]


@pytest.mark.parametrize(("case", "method", "whens"), SOUND_METHODS)
def test_methods_are_compared_with_their_formulas_in_every_space(case, method, whens, monkeypatch):
    made = case.make()
    for training in whens:
        assert method_error(made, case.driven, 20, method, training) < 1e-4
    kept = getattr(type(made), method)
    monkeypatch.setattr(type(made), method, lambda *given: 1.01 * kept(*given))
    for training in whens:
        assert method_error(made, case.driven, 20, method, training) > 5e-3


WRONG_METHODS = [
    (EULER, "get_velocity", False, 0.5),
    (EULER, "get_velocity", True, 0.6),
    (Case("DPMSolverMultistepScheduler", Driven(), 2), "add_noise", True, 7),
    (Case("DEISMultistepScheduler", Driven(), 2), "add_noise", True, 7),
    (Case("UniPCMultistepScheduler", Driven(), 2), "add_noise", True, 7),
    (Case("DPMSolverSinglestepScheduler", Driven(), 2), "add_noise", True, 7),
    (Case("SASolverScheduler", STRAIGHT, 1, FLOW), "add_noise", False, 4),
    (
        Case("FlowMatchHeunDiscreteScheduler", Driven("flow", second), 2, table=False),
        "scale_noise",
        True,
        30,
    ),
]


@pytest.mark.parametrize(("case", "method", "training", "least"), WRONG_METHODS)
def test_wrong_methods_are_found(case, method, training, least):
    assert method_error(case.make(), case.driven, 20, method, training) > least
    check = f"{method}, in training" if training else method
    [row] = [row for row in case.subject().also() if row.check == check]
    assert row.verdict == "defect" and row.value > least


def test_euler_gives_the_velocity_of_the_mirrored_time():
    """Before steps are set; and sigmas of the same order have the noise of the mirrored time."""
    euler, solver = EULER.make(), WRONG_METHODS[2][0].make()
    times, x0, eps = euler.timesteps, torch.full((1000, 1), 0.7), torch.full((1000, 1), -1.3)
    abar = euler.alphas_cumprod[:, None]  # in the order of the mirrored times
    torch.testing.assert_close(
        euler.get_velocity(x0, eps, times), abar**0.5 * eps - (1 - abar) ** 0.5 * x0
    )
    torch.testing.assert_close(
        solver.add_noise(x0, eps, times), abar**0.5 * x0 + (1 - abar) ** 0.5 * eps
    )


@pytest.mark.parametrize(("late", "kept"), [(True, 0.118), (False, 1.0)])
def test_the_inverse_of_ddim_tells_the_network_where_it_goes(late, kept):
    """On one point the noise shrinks, unless the network is told the time of its input."""
    import diffusers

    table = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    inverse = diffusers.DDIMInverseScheduler(**table, clip_sample=False)
    inverse.set_timesteps(10)
    schedule = Discrete.scaled_linear()
    alpha, sigma = schedule(torch.tensor([1.0, 901.0], dtype=torch.float64))
    x = alpha[0] * 0.7 + sigma[0] * torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for t in inverse.timesteps[1:].tolist():
        a, s = schedule(torch.tensor((t if late else t - 100) + 1.0, dtype=torch.float64))
        x = inverse.step((x - a * 0.7) / s, t, x).prev_sample
    assert float(x[1] - x[0]) / sigma[1] == pytest.approx(kept, abs=1e-3)


def test_times_of_training_are_needed_to_look_at_them():
    [onward] = of_kind("MiniMaxH3Scheduler")
    karras = Case("HeunDiscreteScheduler", Driven("ve", second), 2, {"use_karras_sigmas": True})
    flow = Case("DPMSolverMultistepScheduler", STRAIGHT, 2, FLOW)
    for case in (onward, karras, flow):
        method = next(one for one in METHODS if hasattr(case.make(), one))
        with pytest.raises(UnsupportedError, match="has no times before its steps are set"):
            method_error(case.make(), case.driven, 20, method, training=True)
        checks = [row.check for row in case.subject().also()]
        assert method in checks and f"{method}, in training" not in checks


def test_predictions_lead_to_one_end_or_are_refused(monkeypatch):
    """PNDM extrapolates v as it comes, where DDIM converts it first; PNDM refuses x0."""
    case = ddim(timestep_spacing="leading")
    assert 0 < disagreement(case.make(), case.driven, 20) < 1e-4
    [pndm] = [c for c in cases() if c.setting.endswith("steps=True, steps_offset=1")]
    assert disagreement(pndm.make(), pndm.driven, 20) > 0.1
    monkeypatch.setattr(prediction_types, "KINDS", ("epsilon", "sample"))
    with pytest.raises(UnsupportedError, match="takes one prediction type only"):
        disagreement(pndm.make(), pndm.driven, 20)
    monkeypatch.undo()
    heun = Case("FlowMatchHeunDiscreteScheduler", Driven("flow", second), 2, table=False)
    edm = Case("EDMEulerScheduler", Driven("edm"), 1, table=False)
    checks = [[row.check for row in case.subject().also()] for case in (pndm, edm, heun)]
    assert ["predictions" in some for some in checks] == [True, True, False]


def test_cases_are_told_apart_by_their_settings():
    every = [(case.kind, case.setting) for case in cases()]
    assert len(every) == len(set(every)) > 100
    assert all(case.driven.reached is not None for case in cases())


def of_kind(kind):
    return [case for case in cases() if case.kind == kind]


def test_every_scheduler_that_diffusers_exports_is_tried_or_named():
    import diffusers

    exported = {n for n in dir(diffusers) if n.endswith("Scheduler")}
    tried = {case.kind for case in cases()}
    assert tried | set(UNTRIED) == exported and not tried & set(UNTRIED)
    assert all(UNTRIED.values())


def test_what_a_pipeline_hands_on_is_handed_on():
    """unCLIP is told where its step goes, CogVideoX's solver what it predicted before."""
    [told] = of_kind("UnCLIPScheduler")
    assert levels(told.sampler(), (3, 10)).worst < 0.05  # four digits of its least variance
    assert weak_order(told.sampler(), SHORT).order == pytest.approx(1, abs=0.3)
    assert levels(told.sampler(), (1,)).words.startswith("ZeroDivisionError")
    [multistep] = [c for c in of_kind("CogVideoXDPMScheduler") if "leading" in c.setting]
    assert levels(multistep.sampler(), (3, 10)).worst < 1e-9
    assert weak_order(multistep.sampler(), (20, 40, 80)).order > 1.5


def test_times_that_rise_towards_the_data_are_turned_round():
    [case] = of_kind("MiniMaxH3Scheduler")
    assert levels(case.sampler(), (3, 10)).worst < 1e-9
    assert levels(case.sampler(), (10,), 0.5).worst < 1e-9
    assert announced(case.make(), case.driven, 20) < 1e-4


def test_a_prediction_lost_at_pure_noise_is_found():
    """IPNDM divides eps - eps by alpha = 0 where it begins: the data's mean is taken for 0."""
    [case] = of_kind("IPNDMScheduler")
    assert levels(case.sampler(), (1,)).worst > 10
    assert levels(case.sampler(), (20,), 0.75).worst < 1e-3
    ladder = (5, 10, 20, 40)
    assert start_order(case.sampler(), ladder).order < 0.5
    assert running_order(case.sampler(), ladder).order > 3


def test_a_step_too_many_is_found():
    """Trailing times by a float's stride end at -1 for 62 numbers of steps up to 1000."""
    found = grid_faults(ddim(timestep_spacing="trailing").sampler(), range(1, 1001))
    assert (found.worst, found.steps) == (62, 61) and found.words.startswith("62 steps")
    assert grid_faults(ddim(timestep_spacing="leading").sampler(), range(1, 1001)).worst == 0
    offset = ddim(timestep_spacing="leading", steps_offset=1)
    assert grid_faults(offset.sampler(), range(900, 1001)).steps == 1000
    assert offset.subject().sweep == tuple(range(1, 1001))


def test_a_subject_can_be_made_again():
    from experiments.audit.peers.diffusers import subjects

    first = next(subjects(quick=True))
    names: dict[str, object] = {}
    exec(first.again, names)
    again = names["subject"]
    assert again.sampler.name == first.sampler.name
    assert again.who == first.who and len(first.again.splitlines()) <= 12


def test_increments_of_one_path_add_up():
    """W(4, 2) and W(4, 1) of one path: their covariance is the shared length."""
    draws = iter(torch.eye(2, dtype=torch.float64))
    path = Increments(lambda: next(draws))
    early, whole = path(4.0, 2.0), path(4.0, 1.0)
    assert early @ early == pytest.approx(1) and whole @ whole == pytest.approx(1)
    assert (early @ whole) * (2 * 3) ** 0.5 == pytest.approx(2)


@pytest.mark.parametrize("name", ["k_diffusion", "azula", "smalldiffusion"])
def test_installed_libraries_walk(name):
    import importlib
    import importlib.util

    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    module = importlib.import_module(f"experiments.audit.peers.{name}")
    subject = next(module.subjects(quick=True))
    assert levels(subject.sampler, (5,)).worst < 1e-3
