"""`of` on an object with a network of its own: its loss is driven, or the reason is listed."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_math import testing
from diffusion_math.testing import of
from tests.support.diffusions import BETAS, Buffers

pytestmark = pytest.mark.usefixtures("unchecked")  # many calls; shapes have tests of their own


class Owner(Buffers):
    """A loss of its own network, which it calls `attribute`, with a log beside it."""

    def __init__(self, attribute: str = "model", factor: float = 1.0, weight: float = 1.0) -> None:
        super().__init__()
        self.attribute, self.factor = attribute, factor
        setattr(self, attribute, nn.Linear(2, 2))
        self.register_buffer("loss_weight", torch.full((len(BETAS),), weight))

    def p_losses(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Any:
        noise = torch.randn_like(x_start) if noise is None else noise
        output = getattr(self, self.attribute)(self.q_sample(x_start, t, noise), t, None)
        loss = (self.factor * self.predict_v(x_start, t, noise) - output).square().mean()
        return loss, {"loss": float(loss)}


def loss_of(thing: Any) -> testing.FormulaCheck:
    (loss,) = (check for check in of(thing) if check.name == "p_losses")
    return loss


@pytest.mark.parametrize("attribute", ["model", "denoise_fn"])
def test_a_loss_of_the_object_s_own_network_is_driven(attribute: str) -> None:
    thing = Owner(attribute)
    before = getattr(thing, attribute)
    loss_of(thing)()
    assert getattr(thing, attribute) is before
    with pytest.raises(AssertionError, match=r"p_losses: wrong\n.*target"):
        loss_of(Owner(attribute, factor=2.0))()


def test_a_loss_of_its_own_network_that_is_not_driven_says_why() -> None:
    weighted, conditioned, offset, several = Owner(weight=0.5), Owner(), Owner(), Owner()
    conditioned.self_condition, offset.offset_noise_strength = True, 0.1
    several.net = nn.Identity()
    assert loss_of(weighted).reason == "its loss_weight is not 1: `assert_loss` takes its weight"
    assert loss_of(conditioned).reason == "its self_condition is True"
    assert loss_of(offset).reason == "its offset_noise_strength is 0.1"
    assert loss_of(several).reason == "its network may be any of model, net"
    for kind, reason in (("l1", "its loss_type is l1"), ("l2", "")):
        other = Owner()
        other.loss_type = kind
        assert loss_of(other).reason == reason


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (lambda x, t, noise, label: x, "its parameter label is not known"),
        (lambda x, noise: x, "it has no parameter for t among x, noise"),
        (lambda: 0, "it has no parameter for x0 among none"),
        (lambda x, t, noise, label=None: x, ""),
        (lambda x, t, /, noise: x, ""),
        (lambda x, t, noise, *more, **others: x, ""),
    ],
)
def test_parameters_are_known_by_name(method: Callable[..., Any], reason: str) -> None:
    thing = SimpleNamespace(betas=BETAS, q_sample=method)
    (check,) = (check for check in of(thing) if check.name == "q_sample")
    assert check.reason == reason
