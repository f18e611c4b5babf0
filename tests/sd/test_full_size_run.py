"""Whole runs at full size beside diffusers': text to image and image to image, 512 x 512."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sd.pipeline import TextToImage
from sd.text.tokenizer import word_level
from tests.support import small_models
from tests.support.full_size import FULL, written
from tests.support.whole_run import OTHER, Run, apart

diffusers = pytest.importorskip("diffusers")

# One group: two of these models at a time do not fit into the memory of a small machine.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("full size")]
SIDE = 512
WAYS = {
    "v1.5": (("ddim", False), ("dpmpp_2m", True)),
    "v2.1": (("ddim", True), ("dpmpp_2m", False)),
}
"""Solver, and whether a picture is redrawn: each once for each model, all four pairs in all."""
TOLERANCE = 1e-3  # of the largest latent; float32's rounding, which guidance multiplies by 7.5


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", FULL)
def test_a_picture_is_diffusers_at_full_size(name: str, tmp_path: Path) -> None:
    config = replace(FULL[name], image_size=SIDE)
    networks = {}
    for kind in small_models.KINDS:
        with written(kind, config, tmp_path) as model:
            networks[kind] = model
    small_models.write_rest(tmp_path, config)
    (tmp_path / "tokenizer").mkdir()
    words = word_level([f"word{i}" for i in range(config.text.vocab_size - 3)])
    words.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    pipeline = TextToImage.load(tmp_path, device="cpu")
    assert pipeline.config.prediction == config.prediction
    runs = [Run(solver, redraws, SIDE) for solver, redraws in WAYS[name]]
    for run in runs:
        wanted = run.theirs(pipeline, networks["unet"], networks["vae"])
        found = run.ours(pipeline)
        assert apart(found, wanted) < TOLERANCE, (run, apart(found, wanted))
    other = runs[-1].ours(pipeline, OTHER)
    assert apart(other, wanted) > 3 * TOLERANCE, apart(other, wanted)
    assert torch.isfinite(found).all()
