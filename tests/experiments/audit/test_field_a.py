"""MONAI, NVIDIA PhysicsNeMo and diffusers' training utilities: what is sound, and each finding."""

from functools import cache

import pytest

pytestmark = [pytest.mark.usefixtures("unchecked"), pytest.mark.filterwarnings("ignore")]

LIKELIHOOD = "DiffusionInferer.get_likelihood"
MONAI = {
    "DDPMScheduler._get_variance, learned_range": "0.5 differs at 2 of 1000 indices",
    "DDPMScheduler.add_noise, after a call in float16": "got 0, expected 0.0100008",
    "RFlowScheduler.get_velocity": "raised AttributeError",
    "RFlowScheduler.set_timesteps, transform_scale": "differs by 171",
    f"{LIKELIHOOD}, fixed_large": "the part of the variances is left out",
    f"{LIKELIHOOD}, scheduler=": "got 0.815702, expected 0.340624",
    f"{LIKELIHOOD}, concat": "raised RuntimeError: The size of tensor a (8)",
    f"{LIKELIHOOD}, clip_sample_min": "differs by 4953",
    f"{LIKELIHOOD}, the first term": "got 7.15256e-07, expected 3.32131",
    f"{LIKELIHOOD}, the last term, in [0, 1]": "got -14.5812, expected -1.21168",
}
"""What a row of each finding says."""


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
    pytest.importorskip("monai")
    import torch
    from monai.networks.schedulers import PNDMScheduler

    scheduler, x = PNDMScheduler(), torch.full((1, 1), 1.7)
    for t in scheduler.timesteps:
        x, _ = scheduler.step(torch.ones(1, 1), t, x)
    assert float(x) == pytest.approx(1.7, abs=0.03)
