"""A solver of one's own in the pipeline: a function of the schedule that gives a step."""

import warnings

import numpy as np
import pytest

import diffusion_math as dm
from sd.pipeline import TextToImage

PROMPT = "a red circle"


@pytest.fixture(scope="module")
def pipeline() -> TextToImage:
    return TextToImage.load("shapes", device="cpu")


def pixels(pipeline: TextToImage, solver: object, **call: object) -> np.ndarray:
    (image,) = pipeline(PROMPT, solver=solver, steps=2, progress=False, **call)
    return np.asarray(image)


def test_a_function_and_its_name_draw_the_same_image(pipeline: TextToImage) -> None:
    assert (pixels(pipeline, dm.ddim) == pixels(pipeline, "ddim")).all()
    assert (pixels(pipeline, dm.SOLVERS["ddim"]) == pixels(pipeline, "ddim")).all()


def test_a_solver_written_here_draws(pipeline: TextToImage) -> None:
    seen = []

    def mine(schedule: dm.Schedule) -> dm.Step:
        step = dm.ddim(schedule)

        def stepping(denoise, state, t, s, noise):  # type: ignore[no-untyped-def]
            seen.append(float(t))
            return step(denoise, state, t, s, noise)

        return stepping

    assert (pixels(pipeline, mine) == pixels(pipeline, "ddim")).all()
    assert len(seen) == 2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("wrong", ["dpm++", 3, ("ddim",), dm.SOLVERS, dm.ddim(dm.VPLinear())])
def test_what_is_no_solver_is_refused(pipeline: TextToImage, wrong: object) -> None:
    with pytest.raises(ValueError, match=r"solver: wanted one of ddpm.*or a function of a sched"):
        pixels(pipeline, wrong)


def test_what_gives_no_step_is_refused_before_any_work(
    pipeline: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TextToImage, "encode_prompts", lambda *_: pytest.fail("work"))
    with pytest.raises(ValueError, match="solver: wanted a function that returns a step, got int"):
        pixels(pipeline, lambda schedule: 3)


def test_an_interval_without_effect_is_known_of_named_solvers(pipeline: TextToImage) -> None:
    """Between two nodes' noise levels: a solver of one evaluation a step never is there."""
    times = dm.GRIDS["trailing"](pipeline.schedule, 2)
    alpha, sigma = pipeline.schedule(times[:-1])
    high, low = (sigma / alpha).tolist()
    between = (low * 1.1, high * 0.9)
    with pytest.warns(UserWarning, match="guidance_interval: no step"):
        pixels(pipeline, "ddim", guidance_interval=between)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels(pipeline, "heun", guidance_interval=between)
        pixels(pipeline, lambda schedule: dm.heun(schedule), guidance_interval=between)
