"""The predictions of a network: v, score, flow and velocity."""

from functools import partial

from torch import Tensor

from diffusion_math import testing

from .schedule import TIMES, at, levels
from .subject import Program, Subject


def prediction(kind: str, run: Program) -> None:
    def convert(x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return run(**at(t), x0=x0, eps=eps)[kind]

    testing.assert_prediction_maps({f"{kind}_from_x0_and_eps": convert}, levels, TIMES)


SUBJECTS = (
    Subject(
        "v-prediction",
        "assert_prediction_maps",
        "v of x_0 and eps, by",
        ("v = alpha * eps - sigma * x0",),
        (
            "v = sigma * x0 - alpha * eps",
            "v = alpha * eps + sigma * x0",
            "v = alpha * x0 - sigma * eps",
            "v = sigma * eps - alpha * x0",
            "v = eps - x0",
        ),
        partial(prediction, "v"),
    ),
    Subject(
        "Score",
        "assert_prediction_maps",
        "The score of x_t given x_0, by",
        ("score = -eps / sigma",),
        ("score = eps / sigma", "score = -eps", "score = -eps / sigma**2"),
        partial(prediction, "score"),
    ),
    Subject(
        "Flow",
        "assert_prediction_maps",
        "The flow, noise minus data, by",
        ("flow = eps - x0",),
        ("flow = x0 - eps",),
        partial(prediction, "flow"),
    ),
    Subject(
        "Velocity",
        "assert_prediction_maps",
        "The velocity, data minus noise, by",
        ("velocity = x0 - eps",),
        ("velocity = eps - x0",),
        partial(prediction, "velocity"),
    ),
)
