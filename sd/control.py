"""A ControlNet with its map, scale and share of the steps, and the residuals of several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffusion_math.checks import Number, require
from diffusion_math.denoiser import network_time
from diffusion_math.schedule import Schedule
from sd.config import ModelConfig
from sd.files.image_tensor import to_unit
from sd.networks.attention import Conditioning
from sd.networks.controlnet import ControlNet

__all__ = ["Control", "Residuals", "require_fit"]


@final
@dataclass(frozen=True, eq=False)
class Control:
    """A condition over the pixels.

    Attributes:
        network: the ControlNet, as of `sd.checkpoint.load_controlnet`, with the device and dtype of
            the pipeline.
        image: the map, of the size of the images (see `sd.control_map`).
        scale: the factor of the residuals, above 0.
        start, end: it acts in step i of N where start <= i / N and (i + 1) / N <= end, i counted
            from 0; 0 <= start < end <= 1. An evaluation between two nodes of the grid counts to
            the step that holds it, one at a node to the step that starts there.

    Raises:
        ValueError: a number is out of range.
    """

    network: ControlNet
    image: Image.Image
    scale: Number = 1.0
    start: Number = 0.0
    end: Number = 1.0

    def __post_init__(self) -> None:
        valid = 0 < self.scale < math.inf
        require(valid, "Control.scale", "a finite number above 0", self.scale)
        span = f"{self.start} and {self.end}"
        valid = 0 <= self.start < self.end <= 1
        require(valid, "Control.start, end", "0 <= start < end <= 1", span)

    def weights(self, steps: int) -> list[float]:
        """The factor of the residuals in each of that many steps."""
        inside = (self.start <= i / steps and (i + 1) / steps <= self.end for i in range(steps))
        return [float(self.scale) * one for one in inside]


def require_fit(
    controls: Sequence[Control],
    config: ModelConfig,
    size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Raise ValueError for a ControlNet of another U-Net, device, dtype, or a map of another size.

    size: (width, height) of the images.
    """
    several = isinstance(controls, Sequence) and all(isinstance(one, Control) for one in controls)
    require(several, "controls", "a sequence of Control", type(controls).__name__)
    for control in controls:
        weight = control.network.conv_in.weight
        own, there = (
            f"{weight.dtype} on {weight.device.type}",
            f"{dtype} on {device.type}",
        )
        require(own == there, "controls", f"a network of {there}, as the pipeline's", own)
        control.network.settings.require_fit(config)
        wanted, got = (f"{width} x {height} pixels" for width, height in (size, control.image.size))
        require(control.image.size == size, "control.image", f"{wanted}, as the images", got)


@final
class Residuals:
    """The sum of the scaled residuals of some ControlNets, as a function of x_t and the time.

        r_i(x_t, t) = sum_c w_c(t) r_(c,i)(x_t, t, context)

    Here w_c is the scale of control c in the steps in which it acts, and 0 in the others.

    Args:
        controls: at least one.
        schedule: of the sampling.
        times: the grid, from the start to the end.
        dtype: the dtype of x_t in the solver.
    """

    @torch.no_grad()
    def __init__(
        self,
        controls: Sequence[Control],
        schedule: Schedule,
        times: Float[Tensor, " nodes"],
        dtype: torch.dtype,
    ) -> None:
        starts = times[:-1]
        # In the dtype in which the network reads its time, so that nodes compare as equal.
        self._starts = network_time(
            schedule, torch.empty(len(starts), dtype=dtype, device="cpu"), starts
        )
        each = [one.weights(len(starts)) for one in controls]
        self._weights = torch.tensor(each, dtype=torch.float64, device="cpu")
        self._networks = [one.network for one in controls]
        self._features = []
        for control in controls:
            weight = control.network.conv_in.weight
            hint = to_unit([control.image]).to(weight.device, weight.dtype)
            self._features.append(control.network.controlnet_cond_embedding(hint))

    def __call__(
        self,
        x: Float[Tensor, "batch channel height width"],
        time: Float[Tensor, " batch"],
        context: Tensor | Conditioning,
    ) -> list[Tensor] | None:
        """The residuals at network times `time`, or None where no control acts."""
        step = (self._starts >= time.cpu()[:, None]).sum(1).sub(1).clamp(min=0)
        total: list[Tensor] | None = None
        for network, features, weights in zip(
            self._networks, self._features, self._weights[:, step], strict=True
        ):
            if weights.any():
                factor = weights.to(x)[:, None, None, None]
                found = [factor * one for one in network(x, time, context, features)]
                pairs = None if total is None else zip(total, found, strict=True)
                total = found if pairs is None else [a + b for a, b in pairs]
        return total
