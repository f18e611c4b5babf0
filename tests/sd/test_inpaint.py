"""Inpainting, with the exact mixture where the U-Net stands; masks that fit, and that do not."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from diffusion_math import prediction as predict
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.grid import GRIDS
from diffusion_math.noise import from_seeds, start_noise
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.solvers.step import State
from sd.files.image_tensor import to_tensor
from sd.inpaint import Inpainting
from sd.pipeline import TextToImage
from tests.support import pixel_pipeline
from tests.support.measuring import Measured
from tests.support.oracle_pipeline import WHOLE, Oracle
from tests.support.oracle_pipeline import model as plain_model
from tests.support.pixel_pipeline import EVENT, SCHEDULE, Nothing, photo, sampled

WHITE = np.array([[False, True], [False, True]])
"""The right column is repainted."""


def mask(white: np.ndarray = WHITE) -> Image.Image:
    return Image.fromarray(white)


def reading(unet: nn.Module) -> TextToImage:
    """An inpainting model."""
    return pixel_pipeline.model(unet, inputs=7, guidance_scale=1.0)


def conditional(x0: Tensor, white: np.ndarray) -> GaussianMixture:
    """p(x_unknown | x_known) of the whole mixture, whose components have no correlations.

    A component's weight is multiplied by its density at the known entries.
    """
    known = torch.from_numpy(~white).expand(EVENT)
    means, variances = WHOLE.means, WHOLE.covariances
    off = (x0 - means).square() / variances + variances.log()
    weights = WHOLE.log_weights - off[:, known].sum(1) / 2
    return GaussianMixture(weights, means[:, ~known], variances[:, ~known])


class Reader(nn.Module):
    """The noise in x_t where the mask is white, given the known pixels in the last channels."""

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        x_t, white, known = x.split([3, 1, 3], dim=1)
        assert bool((white[:, 0] == white[0, 0]).all()) and set(white.unique().tolist()) <= {0, 1}
        hole = white[0, 0].bool()
        assert bool((known[..., hole] == 0).all())
        law = conditional(known[0], hole.numpy())
        x0, inside = known.clone(), hole.expand(EVENT)
        x0[:, inside] = law.posterior_mean(SCHEDULE, x_t[:, inside], t[0] + 1)
        return predict.eps_from_x0(SCHEDULE, x_t, x0, t[0] + 1)


def exact_flow(law: GaussianMixture, x: Tensor, start: int, end: int) -> Tensor:
    """The probability flow of a mixture, by an adaptive integrator to 1e-6."""

    def slope(log_r: float, y: np.ndarray) -> np.ndarray:
        t = SCHEDULE.time(-2 * log_r)
        alpha, sigma = SCHEDULE(t)
        x_t = alpha * torch.from_numpy(y)[None]
        eps = predict.eps_from_x0(SCHEDULE, x_t, law.posterior_mean(SCHEDULE, x_t, t), t)
        return (sigma / alpha * eps)[0].numpy()

    first, last = (-float(SCHEDULE.log_snr(t)) / 2 for t in (start, end))
    y = (x / SCHEDULE(start)[0]).numpy()
    found = solve_ivp(slope, (first, last), y, "DOP853", [last], rtol=1e-6, atol=1e-6)
    return SCHEDULE(end)[0] * torch.from_numpy(found.y[:, -1])


@pytest.mark.claim("C27", "sd.inpaint.Inpainting.channels")
@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun"])
def test_c27_a_map_and_the_known_pixels_are_a_condition(measured: Measured, solver: str) -> None:
    """A U-Net that reads them is given the exact conditional: sampling follows its flow."""
    image = photo(4)
    law = conditional(to_tensor([image])[0].double(), WHITE)
    inside = torch.from_numpy(WHITE).expand(EVENT)
    start = start_noise([3], EVENT, torch.float64)[0]
    wanted = exact_flow(law, start[inside], 1000, 100)

    def error(steps: int) -> float:
        options = {"image": image, "mask": mask(), "steps": steps, "solver": solver, "seed": 3}
        states = sampled(reading(Reader()), "red", **options)
        (late,) = (state for state in states if state.t == 100)
        assert torch.equal(states[0].x[0], start)
        return float((late.x[0, inside] - wanted).abs().max())

    coarse, fine = error(20), error(40)
    assert coarse < 1e-2
    measured(fine / coarse, 1 / 3, "error at twice the steps over the error: 1/4 at order 2")


@pytest.mark.parametrize("strength", [None, 0.6])
@pytest.mark.parametrize("solver", ["dpmpp_2m", "ddpm"])
def test_known_entries_are_drawn_anew_at_each_level(solver: str, strength: float | None) -> None:
    """They are alpha_t x_0 + sigma_t z. The others take the solver's step from there."""
    image, seeds = photo(4), [5, 8]
    states = sampled(
        plain_model(Oracle()), "circle", image=image, mask=mask(), solver=solver, seed=seeds,
        steps=6, strength=strength,
    )  # fmt: skip
    known, x0 = torch.from_numpy(~WHITE).expand(EVENT), to_tensor([image]).double()
    noise, start = from_seeds(seeds), start_noise(seeds, EVENT, torch.float64)
    assert states[0].t == (1000 if strength is None else 600)
    step = SOLVERS[solver](SCHEDULE)
    denoise = plain_model(Oracle()).denoiser(contexts("circle"), 3.0)
    state = State(states[0].x, states[0].t)
    for k, found in enumerate(states):
        alpha, sigma = SCHEDULE(found.t)
        z = start if k == 0 else noise(found.x, torch.tensor(0.0), found.t)
        wanted = alpha * x0 + sigma * z
        assert (found.x - wanted)[:, known].abs().max() < 1e-12
        if k:
            state = step(denoise, state, state.t, found.t, noise)
            assert (found.x - state.x)[:, ~known].abs().max() < 1e-9
            state = State(found.x, found.t, state.history)
        elif strength is None:
            assert torch.equal(found.x[:, ~known], start[:, ~known])
        else:
            assert (found.x - wanted)[:, ~known].abs().max() < 1e-12


def contexts(prompt: str) -> tuple[Tensor, Tensor]:
    """Of a guided batch of two."""
    pipeline = plain_model(Oracle())
    return pipeline.encode_prompts([""]), pipeline.encode_prompts([prompt] * 2)


def test_entries_that_do_not_depend_on_the_known_ones_are_sampled_as_without_a_mask() -> None:
    """One Gaussian without correlations, so that p(x_unknown | x_known) is p(x_unknown)."""
    pipeline, options = plain_model(Oracle()), {"do_cfg": False, "seed": [1, 2], "steps": 10}
    free = sampled(pipeline, "red", **options)[-1].x
    held = sampled(pipeline, "red", image=photo(4), mask=mask(), **options)[-1].x
    inside = torch.from_numpy(WHITE)
    torch.testing.assert_close(held[..., inside], free[..., inside], rtol=0, atol=1e-12)
    assert (held - free)[..., ~inside].abs().max() > 0.1


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("grid", [*GRIDS, "times"])
def test_at_strength_one_the_hole_is_not_seen(reads: bool, grid: str) -> None:
    """Images that differ in the white pixels alone give one result; below 1 they do not.

    The VAE is the identity here: any other encodes known latents beside the white pixels.
    """
    pipeline = reading(Reader()) if reads else plain_model(Oracle())
    first = np.asarray(photo(4)).copy()
    second = np.where(WHITE[..., None], 255 - first, first)
    times = torch.tensor([1000.0, 500.0, 0.0], dtype=torch.float64)

    def end(pixels: np.ndarray, **options: Any) -> Tensor:
        image = Image.fromarray(pixels)
        return sampled(pipeline, "red", image=image, mask=mask(), seed=1, **options)[-1].x

    options = {"grid": times} if grid == "times" else {"grid": grid, "steps": 3}
    assert torch.equal(end(first, **options), end(second, **options))
    less = {"grid": times[1:]} if grid == "times" else {**options, "strength": 0.5}
    assert not torch.allclose(end(first, **less), end(second, **less), atol=1e-3)


@pytest.mark.parametrize("reads", [False, True])
def test_known_pixels_are_pasted_back(reads: bool) -> None:
    """Also where the VAE would change them."""
    pipeline = reading(Reader()) if reads else plain_model(Oracle())

    class Grey(pixel_pipeline.Identity):
        def decode(self, z: Tensor) -> Tensor:
            return torch.zeros_like(z)

    parts = [getattr(pipeline, name) for name in ("tokenizer", "text_encoder")]
    grey = TextToImage(
        pipeline.config, *parts, Grey(), pipeline.unet, pipeline.device, pipeline.dtype
    )
    drawn = grey("red", image=photo(4), mask=mask(), seed=[1, 2], steps=2, progress=False)
    for one in drawn:
        wanted = np.where(WHITE[..., None], 128, np.asarray(photo(4)))
        assert np.array_equal(np.asarray(one), wanted)


def test_a_white_mask_keeps_nothing() -> None:
    pipeline = plain_model(Oracle())
    with pytest.warns(UserWarning, match="^mask: all white, so that no pixel of the image is"):
        states = sampled(pipeline, "red", image=photo(4), mask=mask(WHITE | True), steps=5)
    assert torch.equal(states[-1].x, sampled(pipeline, "red", steps=5)[-1].x)


@given(st.integers(0, 2**16 - 1), st.sampled_from([1, 2, 4]))
def test_a_latent_is_known_if_all_its_pixels_are(bits: int, factor: int) -> None:
    """The mask that an inpainting model reads is the first pixel of each."""
    white = np.array([bool(bits >> k & 1) for k in range(16)]).reshape(4, 4)
    hole = Inpainting(photo(1, 4), torch.from_numpy(white), factor)
    side = 4 // factor
    latent = torch.full((3, side, side), 7.0)
    zeros = torch.zeros(1, 3, side, side)
    found, _ = hole.held(
        SCHEDULE, latent, zeros, torch.tensor(0.0), zeros, SOLVERS["ddim"](SCHEDULE)
    )
    beside = hole.channels(lambda x: x[..., ::factor, ::factor])
    for i in range(side):
        for j in range(side):
            block = white[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
            assert bool((found[0, :, i, j] == (0.0 if block.any() else 7.0)).all())
            assert beside[0, 0, i, j] == float(block[0, 0])
    kept = to_tensor([photo(1, 4)]) * torch.from_numpy(~white)
    assert torch.equal(beside[:, 1:], kept[..., ::factor, ::factor])


KINDS = {
    "bits": Image.fromarray(WHITE),
    "grey": Image.fromarray(np.where(WHITE, 128, 127).astype(np.uint8)),
    "colours": Image.fromarray(np.where(WHITE[..., None], 255, (90, 0, 0)).astype(np.uint8)),
    "transparent": Image.fromarray(
        np.where(WHITE[..., None], (0, 0, 0, 0), (0, 0, 0, 255)).astype(np.uint8)
    ),
    "16 bits": Image.fromarray(np.where(WHITE, 40_000, 20_000).astype(np.uint16)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_a_mask(kind: str) -> None:
    found = Inpainting.wanted(plain_model(Oracle()).config, photo(1), KINDS[kind], 2, 2)
    assert found is not None and np.array_equal(found.white.numpy(), WHITE)


def test_image_and_mask_are_fitted_alike() -> None:
    """Of 4 x 6 pixels, the middle 4 x 4 are scaled to 2 x 2: the white edges are cut off."""
    white = np.zeros((4, 6), dtype=bool)
    white[:, :1], white[:2, 3:5] = True, True
    config = plain_model(Oracle()).config
    image = Image.fromarray(np.repeat(white[..., None] * np.uint8(255), 3, 2))
    found = Inpainting.wanted(config, image, mask(white), 2, 2)
    assert found is not None
    assert found.white.tolist() == [[False, True], [False, False]]
    assert (np.asarray(found.image)[..., 0] > 127).tolist() == found.white.tolist()
    with pytest.raises(ValueError, match=r"^mask, fitted to 2 x 2: wanted white pixels"):
        Inpainting.wanted(config, image, mask(np.eye(4, 6, dtype=bool) & (white[:1] > 0)), 2, 2)


BAD: list[tuple[bool, dict[str, Any], str]] = [
    (False, {"mask": mask()}, "mask: wanted an image with it, got none"),
    (False, {"image": photo(1), "mask": mask(WHITE[:1])}, "size, 2 x 2, got 2 x 1"),
    (False, {"image": photo(1, 5), "mask": mask()}, "mask: wanted the image's size, 5 x 5, got 2"),
    (False, {"image": photo(1), "mask": mask(~WHITE & WHITE)}, "128 or more, got at most 0"),
    (True, {}, r"mask: wanted an image and a mask for this inpainting model \(7 input channels\)"),
    (True, {"image": photo(1)}, "mask: wanted an image and a mask .* got none"),
]


@pytest.mark.parametrize(("reads", "options", "message"), BAD)
def test_bad_masks_are_named_before_any_work(
    reads: bool, options: dict[str, Any], message: str
) -> None:
    class Never(Nothing):
        def forward(self, *_: Any) -> Tensor:
            raise RuntimeError("there is work")

    pipeline = reading(Never()) if reads else pixel_pipeline.model(Never())
    with pytest.raises(ValueError, match=message) as caught:
        pipeline("red", progress=False, **options)
    assert "\n" not in str(caught.value)


def test_a_denoiser_of_an_inpainting_model_needs_its_channels() -> None:
    pair = contexts("red")
    with pytest.raises(ValueError, match=r"^beside: wanted the mask and the known pixels"):
        reading(Reader()).denoiser(pair, 2)
    with pytest.raises(ValueError, match=r"^beside: wanted the mask and the known pixels"):
        plain_model(Oracle()).denoiser(pair, 2, beside=torch.zeros(1, 4, 2, 2))
