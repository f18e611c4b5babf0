"""A ControlNet at full size beside diffusers': every residual and a whole run, 512 x 512."""

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sd.checkpoint import load_controlnet
from sd.config import V15, ControlNetConfig
from sd.control import Control
from tests.support import control_run
from tests.support.control_run import Given, apart
from tests.support.controlnets import peer_of
from tests.support.full_size import large, whole
from tests.support.tensors import far, normal

# One group: two of these models at a time do not fit into the memory of a small machine.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("full size")]
SIDE = 512
CONFIG = ControlNetConfig(V15.unet)
RESIDUALS = 1e-4  # a thousand roundings (6e-8) of float32 through a hundred layers
TOLERANCE = 1e-3  # of the largest latent; float32's rounding, which guidance multiplies by 7.5


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@torch.no_grad()
def test_residuals_and_a_run_are_diffusers_at_full_size(tmp_path: Path) -> None:
    given = Given(7, control_run.hint(SIDE, 4), 0.8, 0.0, 0.75)
    peer = large(lambda: peer_of(CONFIG), given.seed)
    peer.save_pretrained(tmp_path / "control")
    control = Control(
        load_controlnet(tmp_path / "control"), given.image, given.scale, given.start, given.end
    )
    assert control.network.settings == CONFIG
    assert sum(one.numel() for one in control.network.parameters()) == 361_279_120

    x, t = normal(1, 4, SIDE // 8, SIDE // 8, seed=4), torch.tensor([601.0])
    context, hint = normal(1, 77, 768, seed=5), normal(1, 3, SIDE, SIDE, seed=6).sigmoid()
    down, middle = peer(x, t, context, hint, return_dict=False)
    features = control.network.controlnet_cond_embedding(hint)
    residuals = control.network(x, t, context, features)
    off = [far(a, b) for a, b in zip(residuals, [*down, middle], strict=True)]
    assert len(off) == 13 and max(off) < RESIDUALS, off
    assert all(float(one.abs().max()) > 0.1 for one in residuals)
    del down, middle, residuals
    gc.collect()

    networks, pipeline = whole(replace(V15, image_size=SIDE), tmp_path / "model")
    wanted = control_run.theirs(pipeline, networks["unet"], networks["vae"], [peer], [given], SIDE)
    found = control_run.ours(pipeline, [control], SIDE)
    assert apart(found, wanted) < TOLERANCE
    assert apart(control_run.ours(pipeline, [], SIDE), wanted) > 3 * TOLERANCE
