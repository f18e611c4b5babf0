"""stable-diffusion.cpp, a peer that draws whole images: its networks can't be called alone."""

import importlib.util
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor


def installed() -> bool:
    """Whether its Python package is there, which is compiled where it is installed."""
    return importlib.util.find_spec("stable_diffusion_cpp") is not None


def name() -> str:
    """The peer with its version."""
    return f"stable-diffusion.cpp ({version('stable-diffusion-cpp-python')})"


def cpp_image(
    folder: Path, prompt: str, steps: int, scale: float, side: int
) -> Callable[[], Tensor]:
    """A function that draws one guided image in float32 and returns the extrema of its channels.

    Args:
        folder: a diffusers folder; its CLIP vocabulary is the package's own.
        side: of the image, in pixels.
    """
    from stable_diffusion_cpp import StableDiffusion

    threads = torch.get_num_threads()
    drawer = StableDiffusion(
        model_path=str(folder), n_threads=threads, wtype="f32", vae_decode_only=True, verbose=False
    )

    def draw() -> Tensor:
        (drawn,) = drawer.generate_image(
            prompt, cfg_scale=scale, sample_method="euler", sample_steps=steps, width=side,
            height=side, seed=0,
        )  # fmt: skip
        return torch.tensor(drawn.getextrema(), dtype=torch.float64)

    return draw
