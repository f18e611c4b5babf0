"""Checks of anybody's diffusion code against exact values: formulas, losses, kernels, samplers.

    from diffusion_math.testing import assert_forward
    assert_forward(my_q_sample, my_levels, range(1000))

`my_q_sample(x0, t, noise)` is code under test, `my_levels(t) -> (alpha, sigma)` says what its times
mean. An assertion that fails says what differs, where, and which known mistake explains it at every
index. See docs/check-your-code.md, and docs/audit-your-sampler.md for samplers:

    from diffusion_math.testing import Sampler, audit
    print(audit(Sampler("mine", schedule, sample, grid, order=2)))
"""

from diffusion_math.testing import problems
from diffusion_math.testing.assertions import weights
from diffusion_math.testing.assertions.average import assert_average
from diffusion_math.testing.assertions.bound import assert_bound, assert_prior_term
from diffusion_math.testing.assertions.decoder import assert_decoder
from diffusion_math.testing.assertions.forward import assert_forward
from diffusion_math.testing.assertions.guidance import assert_guidance
from diffusion_math.testing.assertions.guided import assert_guided
from diffusion_math.testing.assertions.img2img_start import assert_img2img_start
from diffusion_math.testing.assertions.invariant import assert_invariant
from diffusion_math.testing.assertions.inversion import assert_inversion
from diffusion_math.testing.assertions.learned_variance import assert_learned_variance
from diffusion_math.testing.assertions.likelihood import assert_likelihood
from diffusion_math.testing.assertions.loss import assert_loss
from diffusion_math.testing.assertions.posterior import assert_posterior
from diffusion_math.testing.assertions.prediction_maps import assert_prediction_maps
from diffusion_math.testing.assertions.schedule import assert_schedule
from diffusion_math.testing.assertions.schedule_table import assert_table
from diffusion_math.testing.assertions.stationary import assert_stationary
from diffusion_math.testing.assertions.transition import assert_transition
from diffusion_math.testing.draws import Draws, drawn
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.coarse import UncheckedWarning
from diffusion_math.testing.mistakes.diagnosis import Difference, MistakeError
from diffusion_math.testing.moments import exact_moments
from diffusion_math.testing.objects.checks import (
    FormulaCheck,
    FormulaChecks,
    assert_diffusion,
    of,
)
from diffusion_math.testing.order import flow_order, strong_order, weak_order
from diffusion_math.testing.report import Check, Report
from diffusion_math.testing.sampler import Sampler, UnsupportedError, of_step, ours
from diffusion_math.testing.verdicts import Origin, assert_order, assert_sound, audit

__all__ = [
    "Check",
    "Difference",
    "Draws",
    "FormulaCheck",
    "FormulaChecks",
    "Mistake",
    "MistakeError",
    "Origin",
    "Report",
    "Sampler",
    "UncheckedWarning",
    "UnsupportedError",
    "assert_average",
    "assert_bound",
    "assert_decoder",
    "assert_diffusion",
    "assert_forward",
    "assert_guidance",
    "assert_guided",
    "assert_img2img_start",
    "assert_invariant",
    "assert_inversion",
    "assert_learned_variance",
    "assert_likelihood",
    "assert_loss",
    "assert_order",
    "assert_posterior",
    "assert_prediction_maps",
    "assert_prior_term",
    "assert_schedule",
    "assert_sound",
    "assert_stationary",
    "assert_table",
    "assert_transition",
    "audit",
    "drawn",
    "exact_moments",
    "flow_order",
    "of",
    "of_step",
    "ours",
    "problems",
    "strong_order",
    "weak_order",
    "weights",
]
