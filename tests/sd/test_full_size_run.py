"""Whole runs at full size beside diffusers': from text, after an image, in a hole, 512 x 512."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.full_size import FULL, V15_INPAINTING, whole
from tests.support.whole_run import OTHER, Run, apart

diffusers = pytest.importorskip("diffusers")

pytestmark = [pytest.mark.slow, pytest.mark.full_size]
SIDE = 512
WAYS = {
    "v1.5": (("ddim", False), ("dpmpp_2m", True)),
    "v2.1": (("dpmpp_2m", False), ("ddim", True)),
}
"""Solver, and whether a picture is redrawn: each once for each model, all four pairs in all."""
TOLERANCE = 1e-3  # of the largest latent; float32's rounding, which guidance multiplies by 7.5


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", FULL)
def test_a_picture_is_diffusers_at_full_size(name: str, tmp_path: Path) -> None:
    config = replace(FULL[name], image_size=SIDE)
    networks, pipeline = whole(config, tmp_path)
    assert pipeline.config.prediction == config.prediction
    runs = [Run(solver, redraws, SIDE) for solver, redraws in WAYS[name]]
    for run in runs:
        wanted = run.theirs(pipeline, networks["unet"], networks["vae"])
        found = run.ours(pipeline)
        assert apart(found, wanted) < TOLERANCE, (run, apart(found, wanted))
    other = runs[-1].ours(pipeline, OTHER)
    assert apart(other, wanted) > 3 * TOLERANCE, apart(other, wanted)
    assert torch.isfinite(found).all()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_an_inpainting_is_diffusers_at_full_size(tmp_path: Path) -> None:
    """v1.5 inpainting over 4 steps, for a mask whose edges cut through the latents."""
    networks, pipeline = whole(V15_INPAINTING, tmp_path)
    assert sum(p.numel() for p in pipeline.unet.parameters()) == 859_535_364
    run = Run("ddim", True, SIDE, strength=1.0, hole=3)
    wanted = run.theirs(pipeline, networks["unet"], networks["vae"])
    found = run.ours(pipeline)
    assert apart(found, wanted) < TOLERANCE, apart(found, wanted)
    other = replace(run, hole=67).ours(pipeline)
    assert apart(other, wanted) > 3 * TOLERANCE, apart(other, wanted)
    assert torch.isfinite(found).all()
