"""MONAI, NVIDIA PhysicsNeMo and diffusers' training utilities: what is sound, and each finding."""

from functools import cache
from importlib.util import find_spec

import pytest

pytestmark = [pytest.mark.usefixtures("unchecked"), pytest.mark.filterwarnings("ignore")]

LIKELIHOOD = "DiffusionInferer.get_likelihood"
MONAI = {
    "DDPMScheduler._get_variance, learned_range": "beta and beta~ is arithmetic, not geometric",
    "DDPMScheduler.add_noise, after a call in float16": "got 0, expected 0.0100008",
    "RFlowScheduler.get_velocity": "raised AttributeError",
    "RFlowScheduler.set_timesteps, transform_scale": "differs by 171",
    f"{LIKELIHOOD}, fixed_large": "the part of the variances is left out",
    f"{LIKELIHOOD}, scheduler=": "got 0.815702, expected 0.340624",
    f"{LIKELIHOOD}, learned_range": "raised RuntimeError: Boolean value of Tensor",
    f"{LIKELIHOOD}, concat": "raised RuntimeError: The size of tensor a (8)",
    f"{LIKELIHOOD}, clip_sample_min": "differs by 4953",
    f"{LIKELIHOOD}, the first term": "got 7.15256e-07, expected 3.32131",
    f"{LIKELIHOOD}, the last term, its variance": "differs by 25.73",
    f"{LIKELIHOOD}, the last term, in [0, 1]": "got -14.5812, expected -1.21168",
}
"""What a row of each finding says."""


ONE_STEP = "timesteps(1): [nan, 0.0]"
PHYSICSNEMO = {
    "EDMPreconditioner with StudentTEDMNoiseScheduler": "got 1.11801, expected 0.999984",
    "VEPreconditioner with VENoiseScheduler": "got 10000, expected 1",
    "VEPreconditioner with VENoiseScheduler, c_noise": "differs by 4.605",
    "VPPreconditioner with VPNoiseScheduler": "got 0.00657138, expected 0.999968",
    "EDMNoiseScheduler.timesteps, one step": ONE_STEP,
    "EDMLogUniformNoiseScheduler.timesteps, one step": ONE_STEP,
    "VENoiseScheduler.timesteps, one step": ONE_STEP,
    "VPNoiseScheduler.timesteps, one step": ONE_STEP,
    "IDDPMNoiseScheduler.timesteps, one step": "ZeroDivisionError",
    "sample, heun, bfloat16": "is given bfloat16, float32",
    "sample, edm_stochastic_euler, bfloat16": "is given float32",
    "sample, edm_stochastic_heun, bfloat16": "is given float32",
}


@cache
def rows(module):
    """The rows of each formula of a library, by name."""
    from importlib import import_module

    from experiments.audit.formula import Formula

    subjects = import_module(f"experiments.audit.peers.{module}").subjects(quick=True)
    return [row for one in subjects if isinstance(one, Formula) for row in one.audit().rows]


def check(module, findings, limits=()):
    found = rows(module)
    assert {row.sampler for row in found if row.verdict == "defect"} == set(findings)
    assert {row.sampler for row in found if row.verdict == "limit"} == set(limits)
    for row in found:
        if row.verdict == "defect":
            assert findings[row.sampler] in f"{row.shown}; {row.note}"


def physicsnemo():
    """Skips where it is not installed; its own import wants what is not audited."""
    if find_spec("physicsnemo") is None:
        pytest.skip("physicsnemo is not installed")


def test_the_formulas_of_monai():
    pytest.importorskip("monai")
    check("monai", MONAI, ["DDPMScheduler._get_variance, fixed_large"])


@pytest.mark.parametrize(
    ("kind", "order", "noisy", "options", "worst"),
    [
        ("RFlowScheduler", 1, False, {}, 0),
        ("DDPMScheduler", 1, True, {}, 90),
        ("DDIMScheduler", 1, False, {}, 90),
        ("PNDMScheduler", 2, False, {"skip_prk_steps": True, "set_alpha_to_one": True}, 1),
        ("PNDMScheduler", 2, False, {"set_alpha_to_one": True}, 0.9),
    ],
)
def test_the_samplers_of_monai(kind, order, noisy, options, worst):
    pytest.importorskip("monai")
    from diffusion_math.testing.conformance import levels
    from experiments.audit.peers.monai import sampler

    found = levels(sampler(kind, order, noisy, **options), (2, 10)).worst
    assert found > worst if worst else found < 1e-6


def test_pndm_of_monai_stands_still_at_its_own_number_of_steps():
    """It divides by the number of calls, 9 more than the steps: after 3 of 1000 each is 0 long."""
    schedulers = pytest.importorskip("monai.networks.schedulers")
    import torch

    scheduler, x = schedulers.PNDMScheduler(), torch.full((1, 1), 1.7)
    for t in scheduler.timesteps:
        x, _ = scheduler.step(torch.ones(1, 1), t, x)
    assert float(x) == pytest.approx(1.7, abs=0.03)


def test_the_formulas_of_physicsnemo():
    physicsnemo()
    check("nvidia_physicsnemo", PHYSICSNEMO)


CHURN = {"S_churn": 10.0}
LEVELS = {**CHURN, "churn": ("sigma", "sigma_inv")}
DOCUMENTED = {**CHURN, "churn": ("sigma", "sigma_inv", "diffusion")}


@pytest.mark.parametrize(
    ("solver", "noisy", "options", "order"),
    [
        ("heun", False, {"alpha": 0.5}, 2),
        ("heun", False, {"scheduler": "VP"}, 2),
        ("edm_stochastic_heun", True, CHURN, 2),
        ("edm_stochastic_heun", True, {"scheduler": "VE", **LEVELS}, 2),
        ("edm_stochastic_euler", True, {"scheduler": "VE", **DOCUMENTED}, 1),
        ("edm_stochastic_heun", True, {"scheduler": "VE", **DOCUMENTED}, 0),
        ("edm_stochastic_heun", True, {"scheduler": "VP", "S_max": 0.5, **DOCUMENTED}, 0),
    ],
)
def test_the_solvers_of_physicsnemo(solver, noisy, options, order):
    """The noise of the Heun solver, given g^2, is not that of the level; VP's x is not scaled."""
    physicsnemo()
    from diffusion_math.testing.order import flow_order, weak_order
    from experiments.audit.peers.nvidia_physicsnemo import sampler

    own = sampler(solver, order or 1, noisy, **options)
    found = (weak_order if noisy else flow_order)(own, (32, 64, 128)).order
    assert abs(found - order) < 0.35


def test_churn_beyond_the_largest_level_of_vp_is_not_a_number():
    """As the documentation's own example has it: sigma (1 + gamma) > 1 has no time."""
    physicsnemo()
    import torch

    from experiments.audit.peers.physicsnemo_parts import library, scheduler

    own = scheduler("VPNoiseScheduler")
    churn = {"sigma_fn": own.sigma, "sigma_inv_fn": own.sigma_inv, "diffusion_fn": own.diffusion}
    solver = library().EDMStochasticHeunSolver(lambda x, t: x, S_churn=40, num_steps=10, **churn)
    one = torch.ones(1, 1)
    assert solver.step(one, torch.tensor([1.0]), torch.tensor([0.5])).isnan().all()
    assert solver.step(one, torch.tensor([0.2]), torch.tensor([0.1])).isfinite().all()


def test_diffusers_training_utilities_are_sound():
    pytest.importorskip("diffusers")
    found = rows("diffusers_training")
    assert {row.verdict for row in found} == {"sound"}
    assert len(found) == 23
