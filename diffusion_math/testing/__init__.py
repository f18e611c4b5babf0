"""Checks of any sampler against exact solutions: orders, output distribution, noise levels.

    from diffusion_math.testing import Sampler, audit
    print(audit(Sampler("mine", schedule, sample, grid, order=2)))

`sample(denoise, x, grid, noise)` gives the last state, or all. See docs/audit-your-sampler.md.
"""

from diffusion_math.testing import problems
from diffusion_math.testing.moments import exact_moments
from diffusion_math.testing.order import flow_order, strong_order, weak_order
from diffusion_math.testing.report import Check, Report
from diffusion_math.testing.sampler import Sampler, UnsupportedError, of_step, ours
from diffusion_math.testing.verdicts import Origin, assert_order, assert_sound, audit

__all__ = [
    "Check",
    "Origin",
    "Report",
    "Sampler",
    "UnsupportedError",
    "assert_order",
    "assert_sound",
    "audit",
    "exact_moments",
    "flow_order",
    "of_step",
    "ours",
    "problems",
    "strong_order",
    "weak_order",
]
