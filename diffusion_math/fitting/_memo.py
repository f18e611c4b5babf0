"""A denoiser that caches its first output."""

from torch import Tensor

from diffusion_math.denoiser import Denoiser


class Once:
    """A denoiser that caches its first output for a second evaluation at the same input."""

    def __init__(self, denoise: Denoiser) -> None:
        self.denoise = denoise
        self.first: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        if self.first is None:
            self.first = x_t, t, self.denoise(x_t, t)
        x, time, answer = self.first
        return answer if x is x_t and time == t else self.denoise(x_t, t)
