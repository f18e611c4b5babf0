"""Findings in bionemo-moco, deepinv, keras-hub and bayesflow, and what is sound there."""

from importlib.util import find_spec

import pytest

from diffusion_math.testing.order import weak_order
from experiments.audit.formula import Formula
from experiments.audit.peers import bayesflow, bionemo_moco, deepinv, keras_hub


def wants(package):
    """Skip where it is not installed; importing Keras here would fix its backend."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def check(module, findings):
    """The rows of a module's formulas; those with a defect are the findings, in these words."""
    subjects = (one for one in module.subjects(quick=False) if isinstance(one, Formula))
    found = {(row.sampler, row.check): row for one in subjects for row in one.audit().rows}
    assert {key for key, row in found.items() if row.verdict == "defect"} == findings.keys()
    for key, words in findings.items():
        assert words in f"{found[key].shown}; {found[key].note}", key
    return found


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
    ("MDLM.calculate_score", "score"): "got [2.72",
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
    wants("bionemo")
    found = check(bionemo_moco, BIONEMO)
    assert found["DDPM.step_noise", "posterior"].verdict == "sound"


DEEPINV = {
    ("ScoreModelWrapper.score", "runs"): "TypeError",
    ("ScoreModelWrapper.score(epsilon)", "prediction_maps"): "is -sqrt(SNR)",
    ("ScoreModelWrapper.score(v_prediction)", "prediction_maps"): "is -1 / sqrt(1 - abar)",
    ("ScoreModelWrapper.score(sample)", "prediction_maps"): "is 1 / (its right value)",
    ("ScoreModelWrapper(100 times)", "index"): "got another index at 8 of 100",
    ("ScoreModelWrapper(trained on [0, 1])", "range"): "got [0.6499",
    ("DDRM, not measured", "forward"): "is its right value / sqrt(2)",
    ("DDRM, measured", "forward"): "is its right value / sqrt(2)",
    ("DiffPIR.forward", "proximal step"): "got gamma = 0.5 / rho",
    ("DPS", "step size"): "got 0.01 times the gradient",
    ("PosteriorDiffusion, uneven times", "last denoising"): "got sigma = 0.00116",
    ("BaseSampling", "mean"): "got 0.1",
    ("BaseSampling", "variance"): "got 0.1",
    ("BaseSampling", "chain"): "got 1",
}


def test_deepinv():
    wants("natsort")
    found = check(deepinv, DEEPINV)
    assert {key for key, row in found.items() if row.verdict == "limit"} == {
        ("SongDiffusionSDE(beta, xi)", "schedule"),
        ("DiffPIR, result", "last noise"),
    }


KERAS_HUB = {
    ("FlowMatchEulerDiscreteScheduler.set_sigmas(1)", "levels"): "got [nan, 0.0], expected [1, 0]",
    ("FlowMatchEulerDiscreteScheduler.call", "num_steps"): "got sigma 0.707, expected 0.894",
    ("ImageToImage.generate", "img2img_start"): "start at 0.8: the first call is told 9, wanted 10",
}


def test_keras_hub():
    wants("keras_hub")
    check(keras_hub, KERAS_HUB)


PAIRED = "most at a batch of 3"
BAYESFLOW = {
    ("NoiseSchedule(cosine)", "inverse"): "got 0.0103451, expected 0.01",
    ("NoiseSchedule(cosine)", "schedule"): "got -32.5674, expected -32.9214",
    ("NoiseSchedule(EDM, exploding)", "schedule"): "got 12.3052, expected 54712.4",
    ("DiffusionModel(EDM, exploding)", "start"): "got [1.0], expected 80",
    ("DiffusionModel(EDM, exploding).log_prob", "likelihood"): "got -24.7424",
    ("DiffusionModel(EDM, exploding).convert(velocity)", "prediction_maps"): "got 1, expected",
    ("DiffusionModel(cosine, F)", "unit variance"): "got [1.24999",
    ("DiffusionModel(EDM, F)", "unit variance"): "got [1.20",
    ("DiffusionModel(cosine).loss", "loss"): PAIRED,
    ("DiffusionModel(EDM).loss", "loss"): PAIRED,
    ("DiffusionModel(EDM, exploding).loss", "loss"): PAIRED,
    ("DiffusionModel(cosine, velocity).loss", "loss"): PAIRED,
    ("DiffusionModel(EDM, exploding, velocity).loss", "loss"): "target's coefficient of x0",
    ("FlowMatching(time_power_law_alpha=1)", "times"): "got a median of 0.25",
    ("StableConsistencyModel.sample", "levels"): "got [1.0, 1.0, 0.248",
    ("StableConsistencyModel(sigma=2).sample", "levels"): "got [2.0, 1.0, 0.248",
    ("StableConsistencyModel.loss", "tangent"): "got [0.0491",
    ("ConsistencyModel.loss", "distance"): "got [4.0], expected 2.0",
    ("sea_step, shark_step", "Levy area"): "got [0.00499",
}


def test_bayesflow():
    wants("bayesflow")
    check(bayesflow, BAYESFLOW)


def test_shark_of_bayesflow_converges_slower_than_heun():
    wants("bayesflow")
    assert weak_order(bayesflow.sampler("shark", 1, True), (8, 16, 32)).order < 1.7
    assert weak_order(bayesflow.sampler("two_step_adaptive", 1, True), (8, 16, 32)).order > 1.8
