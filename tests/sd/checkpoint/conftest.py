"""What the tests of checkpoints share."""

from copy import deepcopy
from types import SimpleNamespace

import pytest


@pytest.fixture
def model() -> SimpleNamespace:
    """The small v1 in our networks, to be changed at will."""
    from tests.support import small_models

    return deepcopy(small_models.networks(small_models.V1))
