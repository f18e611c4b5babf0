"""`python docs/animation.py`: the animation of the README, docs/images/noise-to-data.gif.

Both halves are `diffusion_math.trajectory` with the same solver and grid. On the left the denoiser
is the exact one of a mixture of Gaussians; on the right it is the guided U-Net of the embedded
model, and each state is decoded.
"""

import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

import diffusion_math as dm
from sd.pipeline import TextToImage

PROMPT = "a large red circle above a small blue ring on a black background"
STEPS, SIDE, EDGE = 25, 320, 30
TARGET = Path(__file__).parent / "images" / "noise-to-data.gif"


def points() -> list[Image.Image]:
    """Samples of eight Gaussians on a ring, at every node of the grid."""
    data, schedule = dm.DENSITIES["ring"](), dm.Discrete.scaled_linear()
    x = dm.start_noise(range(700), (2,), dtype=torch.float64)
    grid = dm.trailing(schedule, STEPS)
    frames = []
    for state in dm.trajectory(dm.dpmpp_2m(schedule), data.denoiser(schedule), x, grid):
        panel = Image.new("RGB", (SIDE, SIDE), "white")
        draw = ImageDraw.Draw(panel)
        for a, b in state.x.tolist():
            u, v = SIDE / 2 * (1 + a / 3.2), SIDE / 2 * (1 - b / 3.2)
            draw.ellipse((u - 2, v - 2, u + 2, v + 2), fill="#2a5a9c")
        frames.append(panel)
    return frames


def images() -> list[Image.Image]:
    """The latent of one image at every node of the same grid, decoded."""
    pipeline = TextToImage.load("shapes", device="cpu")
    states: list[dm.State] = []
    pipeline(PROMPT, seed=3, steps=STEPS, solver="dpmpp_2m", progress=False, watch=states.append)
    decoded = pipeline.decode(torch.cat([state.x for state in states]))
    return [one.resize((SIDE, SIDE), Image.Resampling.NEAREST) for one in decoded]


def frame(step: int, left: Image.Image, right: Image.Image) -> Image.Image:
    """Both panels under their titles, and how far the loop is."""
    whole = Image.new("RGB", (2 * SIDE + EDGE, SIDE + 2 * EDGE), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(15)
    draw.text((4, 6), "exact denoiser of eight Gaussians", "#222222", font)
    draw.text((SIDE + EDGE + 4, 6), "guided U-Net, each state decoded", "#222222", font)
    whole.paste(left, (0, EDGE))
    whole.paste(right, (SIDE + EDGE, EDGE))
    draw.rectangle((0, EDGE, SIDE - 1, EDGE + SIDE - 1), outline="#999999")
    wide = whole.width * step / STEPS
    draw.rectangle((0, EDGE + SIDE + 12, whole.width, EDGE + SIDE + 16), fill="#dddddd")
    draw.rectangle((0, EDGE + SIDE + 12, math.ceil(wide), EDGE + SIDE + 16), fill="#2a5a9c")
    return whole


def main() -> None:
    frames = [frame(*one) for one in zip(range(STEPS + 1), points(), images(), strict=True)]
    one = frames[-1].quantize(128)  # one palette: no flicker
    small = [each.quantize(palette=one, dither=Image.Dither.NONE) for each in frames]
    durations = [120] * STEPS + [2500]
    partial = TARGET.with_suffix(".tmp")
    small[0].save(
        partial, "GIF", save_all=True, append_images=small[1:], duration=durations, loop=0
    )
    partial.replace(TARGET)


if __name__ == "__main__":
    main()
