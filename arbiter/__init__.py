"""The arbiter: what any sampler really does, measured against exact solutions.

    from arbiter import Sampler, audit
    print(audit(Sampler("mine", schedule, walk, grid, order=2)))

`walk(denoise, x, grid, noise)` gives the last state, or all. See docs/audit-your-sampler.md.
"""

from arbiter.audit import Who, assert_order, assert_sound, audit
from arbiter.report import Report, Row
from arbiter.sampler import Sampler, UnsupportedError, of_step, ours

__all__ = [
    "Report",
    "Row",
    "Sampler",
    "UnsupportedError",
    "Who",
    "assert_order",
    "assert_sound",
    "audit",
    "of_step",
    "ours",
]
