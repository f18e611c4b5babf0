"""The pipeline with the exact oracle where its U-Net stands: every answer is known.

The data are pictures of 2 x 2 pixels, a mixture of a "red" and a "blue" Gaussian; the VAE is the
identity. The stand-in for the U-Net reads its label off the prompt's tokens and predicts the exact
noise, so that what the pipeline makes of it can be compared with the mathematics.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffusion_math.noise import start_noise
from sd.files.image_tensor import to_tensor
from sd.pipeline import TextToImage
from tests.support.measuring import Measured
from tests.support.oracle_pipeline import BLUE, LABELS, RED, WHOLE, Oracle, exact_path, model
from tests.support.pixel_pipeline import EVENT, SCHEDULE, photo, sampled


@pytest.mark.claim("C32", "sd.pipeline.TextToImage")
@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun"])
def test_a_picture_is_the_end_of_the_exact_flow(measured: Measured, solver: str) -> None:
    """One Gaussian: the flow has a closed form, the steps' error is of order 2, and the last step
    is the exact posterior mean. A U-Net whose clock is off by one is noticed."""

    def error(unet: Oracle, steps: int) -> float:
        states = sampled(model(unet), "red", solver=solver, steps=steps, do_cfg=False, seed=3)
        x_T, before, end = states[0], states[-2], states[-1]
        assert torch.equal(x_T.x, start_noise([3], EVENT, torch.float64)) and x_T.t == 1000
        assert before.t == 1000 // steps and end.t == 0
        if unet.late == 0:
            last = LABELS[RED].posterior_mean(SCHEDULE, before.x, before.t)
            torch.testing.assert_close(end.x, last, rtol=1e-9, atol=1e-9)
        (late,) = (state for state in states if state.t == 100)
        wanted = LABELS[RED].probability_flow(SCHEDULE, x_T.x, 1000, 100)
        return float((late.x - wanted).abs().max())

    coarse, fine = error(Oracle(), 50), error(Oracle(), 100)
    assert coarse < 5e-3
    measured(fine / coarse, 1 / 3, "error at twice the steps over the error: 1/4 at order 2")
    assert error(Oracle(late=1), 100) > 3 * fine


@pytest.mark.parametrize(("w", "negative"), [(3.0, ""), (2.0, "blue")])
def test_guidance_follows_the_exact_guided_field(w: float, negative: str) -> None:
    pipeline = model(Oracle())
    options = {"guidance_scale": w, "negative_prompt": negative, "steps": 50, "seed": 1}
    states = sampled(pipeline, "red", **options)
    (late,) = (state for state in states if state.t == 100)
    against = BLUE if negative else None
    path = exact_path(states[0].x, 1000, 100, w, RED, against)
    error = (late.x - path).abs().max()
    assert error < 0.01
    wrong = exact_path(states[0].x, 1000, 100, w + 1, RED, against)  # the paper's count of w
    assert (late.x - wrong).abs().max() > 5 * error


@pytest.mark.claim("C27", "sd.pipeline.TextToImage.denoiser")
@settings(max_examples=20)
@given(
    w=st.sampled_from([0.0, 0.3, 1.0, 1.5, 3.0, 7.5, 100.0]),
    t=st.integers(1, 1000),
    each=st.booleans(),
    prediction=st.sampled_from(["epsilon", "v_prediction", "sample"]),
)
def test_the_denoiser_is_the_exact_guided_one_in_one_pass(
    measured: Measured, w: float, t: int, each: bool, prediction: str
) -> None:
    unet = Oracle(prediction)
    pipeline = model(unet)
    positive = pipeline.encode_prompts(["red", "a blue circle", "star"])
    denoise = pipeline.denoiser((pipeline.encode_prompts([""]), positive), w)
    x = torch.randn(3, *EVENT, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
    time = torch.tensor([t, 1, 1000] if each else t, dtype=torch.float64)
    x0_u = WHOLE.posterior_mean(SCHEDULE, x, time)
    x0_c = torch.cat(
        [
            LABELS[label].posterior_mean(SCHEDULE, x[i : i + 1], time[i] if each else time)
            for i, label in enumerate((RED, BLUE, None))
        ]
    )
    # Out of eps, rounding grows as 1 / alpha <= 15, and as w.
    wanted = x0_u + w * (x0_c - x0_u)
    off = ((denoise(x, time) - wanted).abs() / (0.1 * (1 + w) + wanted.abs())).max().item()
    measured(off, 1e-12, "error of x0_hat as the prompt's tokens say: rounding over alpha_t")
    assert unet.rows == [3 if w in (0.0, 1.0) else 6]


@pytest.mark.parametrize(("solver", "extra"), [("euler", 0), ("heun", 1)])
def test_outside_of_the_interval_the_unconditional_half_is_not_computed(
    solver: str, extra: int
) -> None:
    """Rows of the U-Net: 2 a picture at levels inside, 1 outside; heun sees each node twice."""
    unet = Oracle()
    options = {"steps": 10, "solver": solver, "grid": "karras", "seed": [1, 2, 3]}
    states = sampled(model(unet), "red", guidance_interval=(0.3, 3.0), **options)
    times = torch.stack([state.t for state in states[:-1]])
    alpha, sigma = SCHEDULE(times)
    inside = (sigma / alpha >= 0.3) & (sigma / alpha <= 3)
    each = [6 if one else 3 for one in inside.tolist()]
    assert {*each} == {3, 6} and each[0] == each[-1] == 3
    assert unet.rows == [each[0], *(rows for rows in each[1:] for _ in range(1 + extra))]


def test_an_interval_of_all_levels_is_guidance_and_of_none_is_no_guidance() -> None:
    pipeline = model(Oracle())

    def end(**options: object) -> Tensor:
        return sampled(pipeline, "red", steps=6, **options)[-1].x

    assert torch.equal(end(guidance_interval=(0, np.inf)), end())
    with pytest.warns(UserWarning, match=r"no step has a noise level in \(50, 100\)"):
        beyond = end(guidance_interval=(50, 100))
    assert torch.equal(beyond, end(do_cfg=False))
    with pytest.warns(UserWarning, match="guidance_interval: no effect at guidance_scale=1"):
        without = end(guidance_interval=(0.3, 3), guidance_scale=1)
    assert torch.equal(without, end(do_cfg=False))
    limited = end(guidance_interval=(0.3, 3))
    assert not torch.allclose(limited, end(), atol=1e-3)
    assert not torch.allclose(limited, end(do_cfg=False), atol=1e-3)


def test_do_cfg_false_is_scale_one_and_the_default_is_the_models_own() -> None:
    pipeline = model(Oracle())

    def end(**options: object) -> Tensor:
        return sampled(pipeline, "red", steps=5, **options)[-1].x

    assert torch.equal(end(do_cfg=False), end(guidance_scale=1))
    with pytest.warns(UserWarning, match="guidance_scale: no effect with do_cfg=False"):
        off = end(do_cfg=False, guidance_scale=9.0)
    assert torch.equal(off, end(guidance_scale=1))
    assert torch.equal(end(), end(guidance_scale=3.0))
    assert not torch.equal(end(), end(solver="euler"))
    pipeline = replace(pipeline, config=replace(pipeline.config, solver="euler"))
    assert torch.equal(end(), end(solver="euler"))
    assert not torch.allclose(end(), end(do_cfg=False), atol=1e-3)
    assert not torch.allclose(end(negative_prompt="blue"), end(), atol=1e-3)
    with pytest.warns(UserWarning, match="negative_prompt: no effect with do_cfg=False"):
        off = end(negative_prompt="blue", do_cfg=False)
    assert torch.equal(off, end(do_cfg=False))


def test_at_strength_one_a_fifteenth_of_the_picture_is_left() -> None:
    """SD's table does not end in pure noise: alpha_T = 0.068, and the start says so."""
    pipeline = model(Oracle())
    starts = [sampled(pipeline, "red", image=photo(i), strength=1, steps=1)[0].x for i in (1, 2)]
    latents = to_tensor([photo(1), photo(2)]).double()
    left = (starts[0] - starts[1]) / (latents[:1] - latents[1:])
    assert torch.allclose(left, torch.tensor(0.0683).double(), atol=5e-5)


def test_strength_to_zero_gives_the_reconstruction() -> None:
    pipeline = model(Oracle())
    (same,) = pipeline("red", image=photo(1), strength=1e-4, progress=False)
    assert same.tobytes() == photo(1).tobytes()
    latent = to_tensor([photo(1)]).double()
    for level in (1, 2, 4):
        options = {"image": photo(1), "strength": level / 1000, "do_cfg": False}
        states = sampled(pipeline, "red", **options)
        sigma = SCHEDULE(level)[1]
        # Off by the noise (12 normals below 5) and by the oracle's pull, sigma^2 / variance (0.05).
        assert (states[-1].x - latent).abs().max() < 5 * sigma + 2 * sigma**2 / 0.05


@pytest.mark.parametrize("solver", ["ddpm", "dpmpp_2m"])
def test_a_picture_depends_on_its_own_prompt_and_seed_only(solver: str) -> None:
    pipeline = model(Oracle())
    prompts, seeds = ["red", "blue", "circle"], [4, 9, 4]

    def end(prompt: str | list[str], seed: int | list[int]) -> Tensor:
        return sampled(pipeline, prompt, seed=seed, solver=solver, steps=8)[-1].x

    together = end(prompts, seeds)
    for i in range(3):
        torch.testing.assert_close(end(prompts[i], seeds[i])[0], together[i], rtol=0, atol=1e-12)
    torch.testing.assert_close(end("red", [4, 9])[0], together[0], rtol=0, atol=1e-12)
    assert not torch.allclose(end("red", [4, 9])[1], together[0], atol=1e-3)
    assert torch.equal(end(prompts, 5), end(prompts, [5, 6, 7]))
    assert torch.equal(end(prompts, 5), end(prompts, 5))


def test_pictures_decoded_some_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three latents of 64 pixels, two at once and then one."""
    model = TextToImage.load("shapes", device="cpu")
    z = start_noise([0, 1, 2], model.config.latent_shape)
    whole = to_tensor(model.decode(z))
    monkeypatch.setattr("sd.pipeline._AT_ONCE", 2 * 64)
    parts = to_tensor(model.decode(z))
    assert parts.shape == whole.shape
    assert (parts - whole).abs().max() <= 2 / 255 + 1e-6  # a level, where rounding crosses a half
    assert (whole[1:] - whole[:-1]).abs().max() > 0.1
