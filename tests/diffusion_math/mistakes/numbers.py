"""Mistakes of arithmetic, of edges and of defaults: what looks right in the middle of a range."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffusion_math import (
    _batching,
    checks,
    elbo,
    guidance_law,
    loss,
    metrics,
    noise,
    sample,
    schedule,
)
from diffusion_math.densities import banana_funnel, toy
from diffusion_math.fitting import published_grids, shortest_path, weights
from diffusion_math.solvers import adaptive, exponential, one_step
from tests.diffusion_math import (
    test_elbo_bins,
    test_guidance_law_jumps,
    test_loss_weights,
    test_schedule_tables,
)
from tests.diffusion_math.densities import test_banana_funnel, test_toy
from tests.diffusion_math.fitting import test_published_grids, test_shortest_path, test_weights_path
from tests.diffusion_math.mistakes.mistake import Mistake, edited, existing
from tests.diffusion_math.solvers import test_adaptive, test_registry

NARROW = 300 * torch.ones(1, 4, dtype=torch.float16)


def sums_past_a_narrow_dtypes_end(inner: Any) -> None:
    """4 x 300^2 = 360000, where float16 ends at 65504."""
    assert float(inner(NARROW, NARROW)) == 360_000


def refuses(call: Any) -> bool:
    try:
        call()
    except ValueError:
        return True
    return False


def requires_a_noise_source(trajectory: Any) -> None:
    """DDPM from 0.6 to 0.3, where it draws."""
    way, x = schedule.VPLinear(), torch.zeros(1, 2, dtype=torch.float64)
    grid = torch.tensor([0.6, 0.3], dtype=torch.float64)
    assert refuses(lambda: list(trajectory(one_step.ddpm(way), lambda x, t: x, x, grid)))


def measures_entries_by_themselves(symmetric: Any) -> None:
    """An asymmetry of 9e-11 beside variances of 1e-10."""
    C = torch.tensor([[1e-10, 9e-11], [0.0, 1e-10]], dtype=torch.float64)
    assert refuses(lambda: symmetric("C", C))


def by_tolerance(argument: str, matrices: torch.Tensor) -> None:
    if not torch.allclose(matrices, matrices.mT):
        raise ValueError(f"{argument}: wanted a symmetric matrix")


def resolves_a_sharp_bend(halvings: Any) -> None:
    """banana(10, 1.2, 0.01) half way, by Gauss and Legendre's rule."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(banana_funnel.Ribbon, "_halvings", halvings)
        data, way = banana_funnel.banana(10, 1.2, 0.01), schedule.RectifiedFlow()
        x = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
        wanted, _ = test_banana_funnel.by_gauss(data, way, x[0], 0.5)
        assert abs(data.log_density(way, x, 0.5).item() - wanted) < 1e-10


def keeps_small_distances_far_out(distances: Any) -> None:
    """Points 3 and 4 apart, 1e8 from the origin."""
    x = torch.full((30, 2), 1e8, dtype=torch.float64)
    y = x + torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert bool((distances(x, y) == 5).all())


def with_log_phi(log_phi: Any) -> Any:
    """`quantized_log_probability` of another log Phi."""

    def probability(p: Any, x0: torch.Tensor) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(elbo, "_log_phi", log_phi)
            return elbo.quantized_log_probability(p, x0)

    return probability


def expanded(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist")


NUMBERS = [
    Mistake(
        "the cosine table without its cap",
        "betas clipped at 0.999 whatever was asked for.",
        "openai/improved-diffusion, `max_beta`; Nichol & Dhariwal (arXiv:2102.09672), section 3.2",
        existing(
            test_schedule_tables.test_the_cosine_table_is_capped_where_it_is_told,
            "Discrete",
            lambda cosine: SimpleNamespace(cosine=cosine),
            largest=0.5,
        ),
        schedule.Discrete.cosine,
        lambda steps, largest: schedule.Discrete.cosine(steps),
    ),
    Mistake(
        "a refused step's slope",
        "First same as last, also where the last was refused.",
        "Hairer, Norsett & Wanner 1993, section II.4: the step is repeated from where it began",
        existing(test_adaptive.test_after_a_refusal_the_slope_is_still_the_start_s, "_solve"),
        adaptive._solve,
        edited(adaptive._solve, "torch.where(taken, fourth, first)", "fourth"),
    ),
    Mistake(
        "a stencil off its centre",
        "Three nodes on one side and one on the other, of the same order.",
        "Hairer, Norsett & Wanner 1993, section II.6, on interpolation between steps",
        existing(
            test_weights_path.test_the_four_nodes_are_the_nearest_on_either_side,
            "FinePath",
            lambda at: lambda *path: SimpleNamespace(at=partial(at, weights.FinePath(*path))),
        ),
        weights.FinePath.at,
        edited(weights.FinePath.at, "above - CUBIC // 2", "above - 1"),
    ),
    Mistake(
        "another eta in a registered solver",
        "eta = 1/2 under the name of the reverse SDE: of the same order, to the same law.",
        "k-diffusion, `sample_dpmpp_3m_sde`: eta = 1 by default",
        existing(
            test_registry.test_a_sampler_of_the_reverse_sde_forgets_as_it_does,
            "SOLVERS",
            lambda make: {"dpmpp_3m_sde": partial(make, order=3, eta=1.0)},
            name="dpmpp_3m_sde",
            schedule=schedule.VPLinear(),
        ),
        exponential.multistep,
        lambda way, order, eta: exponential.multistep(way, order, eta=0.5 * eta),
    ),
    Mistake(
        "zeros for the noise that nobody gave",
        "A solver that draws goes on with zeros where no source is given.",
        "the default of an argument that only some solvers read",
        requires_a_noise_source,
        sample.trajectory,
        lambda step, denoise, x, grid: sample.trajectory(step, denoise, x, grid, noise.zeros),
    ),
    Mistake(
        "strata of another range",
        "Times up to T where uniform ones end at t_max: the same where t_max is T.",
        "VDM (arXiv:2107.00630), appendix, written for T = 1",
        existing(
            test_loss_weights.test_stratified_times_cover_every_schedule_s_range,
            "stratified_times",
            schedule=schedule.VPCosine(),
        ),
        loss.stratified_times,
        lambda way, generator, batch: (
            way.t_min + (loss.stratified_times(way, generator, batch) - way.t_min) / way.t_max
        ),
    ),
    Mistake(
        "sums in the event's own dtype",
        "A float16 latent's squares, summed in float16.",
        "huggingface/diffusers#13425",
        sums_past_a_narrow_dtypes_end,
        _batching.inner,
        lambda a, b: (a * b).sum(1),
    ),
    Mistake(
        "distances from expanded squares",
        "|x|^2 - 2 x y + |y|^2, as torch.cdist has it above 25 points.",
        "torch.cdist, `compute_mode`",
        keeps_small_distances_far_out,
        metrics.pairwise_distances,
        expanded,
    ),
    Mistake(
        "an absolute tolerance",
        "allclose, whose 1e-8 takes every matrix of small entries for symmetric.",
        "torch.allclose, `atol`",
        measures_entries_by_themselves,
        checks.symmetric,
        by_tolerance,
    ),
    Mistake(
        "a fixed step over a bend",
        "0.15 deviations whatever the curve does between two nodes.",
        "Trefethen & Weideman 2014, SIAM Review 56(3): the trapezoid's error is the strip's",
        resolves_a_sharp_bend,
        banana_funnel.Ribbon._halvings,
        lambda self, joint_rows: joint_rows.new_zeros(len(joint_rows), dtype=torch.int64),
    ),
    Mistake(
        "published levels from the schedule's own end",
        "t_max for the first level, whatever level was published.",
        "Sabour et al. (arXiv:2404.14507): the released schedules begin at 14.6",
        existing(
            test_published_grids.test_the_first_level_is_the_published_one,
            "align_your_steps",
            schedule=schedule.VE(80.0),
        ),
        published_grids.align_your_steps,
        edited(published_grids.align_your_steps, "first > noisiest + 1e-9", "first > first"),
    ),
    Mistake(
        "reversed pieces between two jumps",
        "Gaps about jumps that are nearer to each other than the gaps are wide.",
        "an integrator told to start afresh at every jump",
        existing(
            test_guidance_law_jumps.test_pieces_rise_and_leave_out_the_jumps_alone,
            "guidance_law",
            lambda pieces: SimpleNamespace(_pieces=pieces),
            levels=[1.0, 1.0 + 1e-10],
        ),
        guidance_law._pieces,
        edited(guidance_law._pieces, "if s < t", "if True"),
    ),
    Mistake(
        "a slope by a difference of squares",
        "torch's log_ndtr: exp(-(log Phi + z^2 / 2)), whose two terms cancel far out.",
        "torch.special.log_ndtr's derivative",
        existing(
            test_elbo_bins.test_slopes_hold_to_the_end_of_the_range,
            "quantized_log_probability",
            with_log_phi,
            dtype=torch.float64,
            most=150,
        ),
        elbo._log_phi,
        torch.special.log_ndtr,
    ),
    Mistake(
        "a twist of the radius",
        "Arms that turn by twist r, not twist e^r.",
        "Johnson et al. (arXiv:1603.06277), the pinwheel data",
        existing(test_toy.test_the_pinwheel_is_its_formula, "pinwheel", twist=0.25),
        toy.pinwheel,
        edited(
            toy.pinwheel,
            "turns + twist * r.exp()",
            "turns + twist * r",
        ),
    ),
    Mistake(
        "the bound of products",
        "Differences of predictions by expanded squares.",
        "torch.cdist, `compute_mode`",
        existing(
            test_shortest_path.test_the_bound_of_predictions_that_hardly_differ,
            "kl_upper_bound",
            apart=1e-6,
        ),
        shortest_path.kl_upper_bound,
        edited(
            shortest_path.kl_upper_bound,
            "torch.stack([(means - at).square().sum(2).mean(0) for at in anchors])",
            "torch.cdist(means, means).square().mean(0)",
        ),
    ),
]
