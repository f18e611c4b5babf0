"""What a step costs a device: passes over the data, and no wait for a number or copy of one.

On the meta device, which holds no numbers, a step that needs the value of an entry raises.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_math.denoiser import from_eps
from diffusion_math.sample import trajectory
from diffusion_math.schedule import Discrete, RectifiedFlow, Schedule
from diffusion_math.solvers.registry import SOLVERS

X = torch.empty(2, 4, 3, 3, device="meta")
SCHEDULES: dict[str, tuple[Schedule, list[float]]] = {
    "Discrete": (Discrete.scaled_linear(), [900, 800, 700, 600, 500, 400]),
    "RectifiedFlow": (RectifiedFlow(), [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]),
}
TERMS = {
    # x_s = a x_t + b x0 + c z
    "ddim": 2, "euler": 2, "ddpm": 3, "ddpm_large": 3, "euler_ancestral": 3,
    # Euler's x_s; then x_s and its x0, x_t and its x0
    "heun": 2 + 4, "flow_heun": 2 + 4, "edm_churn": 2 + 2 + 4, "langevin_corrected": 2 + 3,
    # each stage of x, its x0 and those of stages before it; with eps, the stage's x too
    "dpm2": 2 + 3, "dpm2_ancestral": 2 + 4, "dpm_solver_3s": 2 + 4 + 4, "dpmpp_2s": 2 + 2,
    "dpmpp_2s_ancestral": 2 + 3, "dpmpp_3s": 2 + 3 + 3,
    # eps of x and x0; then x and each eps
    "lms": 2 + 5, "plms": 2 + 5, "pndm": 2 + 5, "deis": 2 + 4, "dpm_solver_2m": 2 + 3,
    # x, each x0, z
    "dpmpp_2m": 3, "dpmpp_3m": 4, "dpmpp_2m_sde": 4, "dpmpp_3m_sde": 5, "unipc": 4,
    "dpmpp_sde": 3 + 4, "sde_heun": 3 + 4,
}  # fmt: skip
"""Tensors that each sum of a step is over, in a step with a full history."""


class Operations(TorchDispatchMode):
    """Writes down each operation whose result lies on the meta device, with its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, torch.Size]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.device.type == "meta":
            self.found.append((func.overloadpacket.__name__, result.shape))
        return result


def given(*_: object) -> Tensor:
    """A new tensor like X that costs no operation on one."""
    return torch.empty_like(X)


def operations(
    name: str, schedule: Schedule, nodes: list[float], denoise: Callable[..., Tensor] = given
) -> list[tuple[str, torch.Size]]:
    """Those of the last step between the nodes."""
    grid = torch.tensor(nodes, dtype=torch.float64)
    states = trajectory(SOLVERS[name](schedule), denoise, X, grid, given)
    for _ in nodes[:-1]:
        next(states)
    with Operations() as seen:
        end = next(states)
    assert end.x.device.type == "meta" and end.x.shape == X.shape
    return [one for one in seen.found if one[0] != "empty_like"]


def test_every_solver_is_counted() -> None:
    """Except for the adaptive one, whose step's length is a function of x."""
    assert SOLVERS.keys() - TERMS.keys() == {"adaptive"}


@pytest.mark.parametrize("where", SCHEDULES)
@pytest.mark.parametrize("name", TERMS)
def test_a_step_passes_over_the_data_once_for_each_term(name: str, where: str) -> None:
    found = operations(name, *SCHEDULES[where])
    assert sum(shape == X.shape for _, shape in found) == TERMS[name], found


@pytest.mark.parametrize("name", TERMS)
def test_no_number_is_copied_to_the_device(name: str) -> None:
    """Coefficients go there as arguments of kernels; into s = 0 too, and with a network's time."""
    schedule, nodes = SCHEDULES["Discrete"]
    denoise = from_eps(given, schedule)
    for end in (nodes, [*nodes, 0.0]):
        kinds = [kind for kind, _ in operations(name, schedule, end, denoise)]
        assert {"_to_copy", "copy_"}.isdisjoint(kinds), kinds
