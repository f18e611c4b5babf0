"""The audit of flow-matching, torchcfm, torchebm, blackjax and sbi: what is sound, what is not."""

import importlib

import pytest

pytestmark = [
    pytest.mark.usefixtures("unchecked"),
    pytest.mark.filterwarnings("ignore"),  # of other libraries
]

FLOW_MATCHING = {
    ("ODESolver.compute_likelihood", "Hutchinson, float64"),
    ("ODESolver.compute_likelihood", "exact divergence, images"),
    ("RiemannianODESolver", "from the middle"),
    ("MixtureDiscreteEulerSolver", "intermediates, long steps"),
    ("MixtureDiscreteEulerSolver", "an end before 1"),
    ("MixtureDiscreteEulerSolver", "divergence-free term"),
}
TORCHEBM = {
    *(("compute_diffusion", path) for path in ("linear", "cosine", "vp")),
    ("ScoreMatching", "exact, images"),
    ("ScoreMatching", "approx"),
    ("SlicedScoreMatching", "sliced, images"),
    ("ContrastiveDivergence, new_sample_ratio", "defaults"),
    ("FlowSampler, reverse", "defaults"),
    ("FlowSampler, noise", "defaults"),
    *(("FlowSampler, sde", path) for path in ("linear", "cosine", "vp")),
}
KEPT = ["hmc", "nuts", "rmh", "irmh", "mhmc", "hmc, dense mass", "barker, dense mass"]
BLACKJAX = {
    ("barker, inverse_mass_matrix", "defaults"),
    ("orbital_hmc, weights", "defaults"),
}
SBI = {
    ("variance weight", "defaults"),
    ("LangevinCorrector", "defaults"),
}
"""What does not hold, by name and setting."""


def found(library, quick=True):
    """(name, setting) of the rows with a defect, and of all."""
    pytest.importorskip(library)
    subjects = importlib.import_module(f"experiments.audit.peers.{library}").subjects(quick)
    rows = [row for subject in subjects for row in subject.audit().rows]
    wrong = {(row.sampler, row.setting) for row in rows if row.verdict == "defect"}
    return wrong, {(row.sampler, row.setting) for row in rows}


def test_flow_matching():
    wrong, every = found("flow_matching")
    assert wrong == FLOW_MATCHING
    assert {
        ("ODESolver(euler)", "defaults"),
        ("ODESolver.compute_likelihood", "Hutchinson"),
    } < every


def test_flow_matchings_vp_scheduler_of_one_beta_has_no_inverse():
    pytest.importorskip("flow_matching")
    from experiments.audit.peers.flow_matching import _schedule

    with pytest.raises(AssertionError, match="the time is NaN"):
        _schedule("VPScheduler, one beta")
    _schedule("VPScheduler")


def test_torchcfm_is_sound():
    wrong, every = found("torchcfm")
    assert not wrong
    assert ("SchrodingerBridgeConditionalFlowMatcher.sample_xt", "defaults") in every


def test_torchebm():
    wrong, every = found("torchebm")
    assert wrong == TORCHEBM
    assert {
        ("HamiltonianMonteCarlo", "defaults"),
        ("HamiltonianMonteCarlo, mass", "defaults"),
        ("LangevinDynamics", "defaults"),
    } < every


def test_blackjax():
    wrong, every = found("blackjax")
    assert wrong == BLACKJAX
    kernels = ("mala", "normal_random_walk", "barker")
    assert {(name, "defaults") for name in kernels} < every


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_blackjaxs_kernels_keep_their_target(name):
    pytest.importorskip("blackjax")
    from experiments.audit.peers.blackjax import KERNELS, _invariant

    _invariant(KERNELS[name])


def test_sbi():
    wrong, every = found("sbi")
    assert wrong == SBI
    assert ("build_neural_ode", "defaults") in every


@pytest.mark.slow
def test_blackjaxs_barker_does_not_keep_its_target_by_a_metric_of_the_position():
    pytest.importorskip("blackjax")
    from experiments.audit.peers.blackjax import KERNELS, _invariant

    with pytest.raises(AssertionError, match="does not keep a normal"):
        _invariant(KERNELS["barker, metric of the position"])
