"""Image-to-image with the exact oracle where the U-Net stands: the end is known (C33)."""

import pytest

from diffusion_math.solvers.step import State
from tests.support.measuring import Measured
from tests.support.oracle_pipeline import BLUE, RED, Oracle, exact_path, model
from tests.support.pixel_pipeline import photo, sampled


@pytest.mark.claim("C33", "sd.pipeline.TextToImage")
@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun"])
def test_c33_an_image_is_redrawn_under_the_prompt(measured: Measured, solver: str) -> None:
    """From q(x_t | x_0) of the image at t = strength T, the guided flow of the prompt leads on: it
    is integrated, and the steps' error is of order 2. Another prompt ends elsewhere, and so does
    one of which the network knows no word."""
    strength, first, w = 0.6, 600, 3.0

    def states(prompt: str, steps: int) -> list[State]:
        options = {"image": photo(1), "strength": strength, "steps": steps, "solver": solver}
        return sampled(model(Oracle()), prompt, guidance_scale=w, seed=3, **options)

    def error(steps: int, prompt: str = "red", label: int | None = RED) -> float:
        found = states(prompt, steps)
        assert found[0].t == first and found[-1].t == 0
        (late,) = (state for state in found if state.t == 100)
        wanted = exact_path(found[0].x, first, 100, w, label, None)
        return float((late.x - wanted).abs().max())

    coarse, fine = error(50), error(100)
    assert coarse < 2e-2
    measured(fine / coarse, 1 / 3, "error at twice the steps over the error: 1/4 at order 2")
    assert error(100, "blue", BLUE) < coarse
    assert error(100, "blue", RED) > 10 * fine and error(100, "circle", RED) > 10 * fine
