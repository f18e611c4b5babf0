"""Findings in bionemo-moco, deepinv, keras-hub and bayesflow, and what is sound there."""

import pytest

from experiments.audit.peers import bionemo_moco


def rows(subjects):
    """(what is exported, the check) -> the verdict and what was measured, of formulas alone."""
    found = [row for one in subjects if not hasattr(one, "sampler") for row in one.audit().rows]
    return {(row.sampler, row.check): row for row in found}


def defects(found):
    return {key for key, row in found.items() if row.verdict == "defect"}


SHIFTED = "is its right value of index t - 1"
BIONEMO = {
    ("DDPM.step", "posterior"): SHIFTED,
    ("DDPM.log_var", "table"): SHIFTED,
    ("DiscreteCosineNoiseSchedule", "table"): "got 0.999, expected 0.999959",
    ("CosineSNRTransform", "schedule"): "backward through the graph a second time",
    ("LinearSNRTransform", "schedule"): "backward through the graph a second time",
    ("LinearLogInterpolatedSNRTransform", "schedule"): "backward through the graph a second time",
    ("VDM.loss(variational_objective_discrete)", "loss"): "got 0.864665, expected 6.38906",
    ("D3PM.loss(vb_scale=1)", "bound"): "got [1.045",
    ("MDLM.step(temperature=0.5)", "rate"): "got [0.3135",
    ("MDLM.calculate_score", "score"): "got [7.40",
    ("MDLM.get_num_steps_confidence", "count"): "got 3 steps of 3 tokens",
    ("MDLM.step_confidence(num_steps=1)", "runs"): "ZeroDivisionError",
    ("DiscreteLinearInferenceSchedule(dilation=1)", "number of steps"): "got [20.0]",
    ("LogInferenceSchedule(dilation=1)", "number of steps"): "got [20.0]",
    ("PowerInferenceSchedule(min_t=0.1)", "range"): "got [0.01",
    ("UniformTimeDistribution(max_t=0.5)", "range"): "expected up to 0.5",
    ("SymmetricUniformTimeDistribution(max_t=0.5)", "range"): "expected up to 0.5",
    ("BetaTimeDistribution(max_t=0.5)", "range"): "expected up to 0.5",
    ("LogitNormalTimeDistribution(max_t=0.5)", "range"): "expected up to 0.5",
    ("EntropicInferenceSchedule", "grid"): "got [0.98",
}
"""What is wrong: what the row says."""


def test_bionemo_moco():
    pytest.importorskip("bionemo.moco.interpolants")
    found = rows(bionemo_moco.subjects(quick=False))
    assert defects(found) == BIONEMO.keys()
    for key, words in BIONEMO.items():
        assert words in f"{found[key].shown}; {found[key].note}", key
    assert found["DDPM.step_noise", "posterior"].verdict == "sound"
