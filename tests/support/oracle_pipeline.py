"""The pipeline with the exact oracle where its U-Net stands.

The data are pictures of 2 x 2 pixels, a mixture of a "red" and a "blue" Gaussian. The stand-in for
the U-Net reads its label off the prompt's tokens and predicts the exact noise.
"""

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from diffusion_math import prediction as predict
from diffusion_math.densities.mixture import GaussianMixture
from sd.pipeline import TextToImage
from sd.shapes.caption import VOCABULARY
from tests.support import pixel_pipeline
from tests.support.pixel_pipeline import EVENT, SCHEDULE

RED, BLUE = (1 + VOCABULARY.index(word) for word in ("red", "blue"))


def mixture() -> GaussianMixture:
    """Two diagonal Gaussians, near enough that their fields mix over most of the walk."""
    generator = torch.Generator().manual_seed(5)
    means = 0.5 * torch.randn(2, *EVENT, generator=generator, dtype=torch.float64)
    variances = 0.05 + 0.2 * torch.rand(2, *EVENT, generator=generator, dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.3, 0.7]).double().log(), means, variances)


def component(k: int) -> GaussianMixture:
    return GaussianMixture(torch.zeros(1), WHOLE.means[k : k + 1], WHOLE.covariances[k : k + 1])


WHOLE = mixture()
LABELS = {RED: component(0), BLUE: component(1), None: WHOLE}


class Oracle(nn.Module):
    """The U-Net's signature around the exact answer; `late` shifts its clock, to be wrong."""

    def __init__(self, prediction: str = "epsilon", late: int = 0) -> None:
        super().__init__()
        self.prediction, self.late = prediction, late
        self.rows: list[int] = []

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        self.rows.append(len(x))
        answers = []
        for row, time, tokens in zip(x, t, context[..., 0], strict=True):
            named = [word for word in (RED, BLUE) if bool((tokens == word).any())]
            level = (time + 1 + self.late).clamp(max=1000)
            known = LABELS[named[0] if named else None]
            x0 = known.posterior_mean(SCHEDULE, row[None], level)
            kinds = {"epsilon": predict.eps_from_x0, "v_prediction": predict.v_from_x0}
            to = kinds.get(self.prediction)
            answers.append(x0 if to is None else to(SCHEDULE, row[None], x0, level))
        return torch.cat(answers)


def model(unet: Oracle) -> TextToImage:
    options = {"prediction": unet.prediction, "guidance_scale": 3.0, "long_prompt": "chunk"}
    return pixel_pipeline.model(unet, **options)


def exact_path(
    x: Tensor, start: int, end: int, w: float, positive: int, negative: int | None
) -> Tensor:
    """The guided probability flow from x at `start`, by an adaptive integrator to 1e-6.

    dy / d log r = r eps with y = x / alpha, r = sigma / alpha, eps of x0_u + w (x0_c - x0_u).
    """

    def slope(log_r: float, y: np.ndarray) -> np.ndarray:
        t = SCHEDULE.time(-2 * log_r)
        alpha, sigma = SCHEDULE(t)
        x_t = alpha * torch.from_numpy(y).reshape(x.shape)
        x0_c = LABELS[positive].posterior_mean(SCHEDULE, x_t, t)
        x0_u = LABELS[negative].posterior_mean(SCHEDULE, x_t, t)
        eps = (x_t - alpha * (x0_u + w * (x0_c - x0_u))) / sigma
        return (sigma / alpha * eps).flatten().numpy()

    first, last = (-float(SCHEDULE.log_snr(t)) / 2 for t in (start, end))
    y = (x / SCHEDULE(start)[0]).flatten().numpy()
    found = solve_ivp(slope, (first, last), y, "DOP853", [last], rtol=1e-6, atol=1e-6)
    return SCHEDULE(end)[0] * torch.from_numpy(found.y[:, -1]).reshape(x.shape)
