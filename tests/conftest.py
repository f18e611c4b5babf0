"""Settings of the whole suite. Nothing here seeds, reads or restores a global random state.

Hypothesis profiles (`HYPOTHESIS_PROFILE=name`; without it `ci` where CI is set, else `default`):

- `default`: new examples on every run, so that the suite goes on searching; a failure prints the
  blob that repeats it.
- `ci`: examples are a function of the test, so that the verdict is a function of the commit.
- `thorough`: fifty times the examples, for an audit by hand.
"""

import os

from hypothesis import HealthCheck, settings

# A first call pays for torch's warm-up, a busy machine for the rest: time is no property here.
_SHARED = settings(
    deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.register_profile("default", _SHARED)
settings.register_profile("ci", _SHARED, derandomize=True, database=None)
settings.register_profile("thorough", _SHARED, max_examples=2500)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "default")
)
