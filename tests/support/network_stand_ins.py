"""Stand-ins for trained networks: what they answer is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from diffusion_math.gaussian import marginal
from diffusion_math.schedule import Discrete
from sd.config import SHAPES_CONFIG
from sd.pipeline import TextToImage
from sd.shapes.caption import parse
from sd.shapes.data import FRESH, example
from sd.shapes.scene import HELD_OUT

SCHEDULE = Discrete.scaled_linear(1000)
COUNT = 6


class Knowing(nn.Module):
    """Knows x_0 up to an error, and says it as eps, v or x_0; keeps the times it was fed."""

    def __init__(self, prediction: str, x0: Tensor, error: float = 0.0, off: int = 1) -> None:
        super().__init__()
        self.prediction, self.off, self.times = prediction, off, []
        self.x0 = x0 + error

    def forward(self, x_t: Tensor, time: Tensor, context: Tensor) -> Tensor:
        self.times.append(time)
        q = marginal(SCHEDULE, self.x0, (time + self.off).double().clamp(1, 1000))
        eps = (x_t - q.mean) / q.variance.sqrt()
        alpha = (1.0 - q.variance).sqrt()
        v = alpha * eps - q.variance.sqrt() * self.x0
        return {"epsilon": eps, "v_prediction": v, "sample": self.x0}[self.prediction]


class Drawing(TextToImage):
    """Stands for the model: draws prompts rightly if they are seen or held-out, guided or not."""

    config = SHAPES_CONFIG

    def __init__(self, seen: bool, held_out: bool, guided: bool | None = None) -> None:
        self.right = {False: seen, True: held_out}
        self.guided = guided
        self.seeds: list[int] = []
        whole = [example(FRESH, i, held) for held in (False, True) for i in range(COUNT)]
        self.images = {one.caption: one.image for one in whole}

    def __call__(self, some: Sequence[str], seed: list[int], do_cfg: bool, progress: bool) -> Any:
        self.seeds += seed
        blank = np.zeros((64, 64, 3), np.uint8)
        return [self.images[one] if self.knows(one, do_cfg) else blank for one in some]

    def knows(self, prompt: str, do_cfg: bool) -> bool:
        asked = parse(prompt)
        assert asked is not None
        held_out = any((thing.color, thing.shape) in HELD_OUT for thing in asked.things)
        return self.right[held_out] and self.guided in (None, do_cfg)
