"""A ControlNet at full size beside diffusers': every residual and a whole run, 256 x 256."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from sd.checkpoint import load_controlnet
from sd.config import V15, ControlNetConfig
from sd.control import Control
from tests.support import control_run
from tests.support.control_run import Given, apart
from tests.support.controlnets import peer_of
from tests.support.full_size import large, whole
from tests.support.tensors import far, normal

pytestmark = [pytest.mark.slow, pytest.mark.full_size]
SIDE = 256
CONFIG = ControlNetConfig(V15.unet)
GIVEN = Given(7, control_run.hint(SIDE, 4), 0.8, 0.0, 0.75)
RESIDUALS = 1e-4  # a thousand roundings (6e-8) of float32 through a hundred layers
TOLERANCE = 1e-3  # of the largest latent; float32's rounding, which guidance multiplies by 7.5


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Control, nn.Module]:
    """Ours, read from the folder that the peer wrote, and the peer; no convolution is zero."""
    folder = tmp_path_factory.mktemp("control")
    peer = large(lambda: peer_of(CONFIG), GIVEN.seed)
    peer.save_pretrained(folder)
    network = load_controlnet(folder)
    return Control(network, GIVEN.image, GIVEN.scale, GIVEN.start, GIVEN.end), peer


@torch.no_grad()
def test_every_residual_is_diffusers_at_full_size(pair: tuple[Control, nn.Module]) -> None:
    control, peer = pair
    network = control.network
    assert network.settings == CONFIG
    assert sum(one.numel() for one in network.parameters()) == 361_279_120
    x, t = normal(1, 4, SIDE // 8, SIDE // 8, seed=4), torch.tensor([601.0])
    context, hint = normal(1, 77, 768, seed=5), normal(1, 3, SIDE, SIDE, seed=6).sigmoid()
    down, middle = peer(x, t, context, hint, return_dict=False)
    found = network(x, t, context, network.controlnet_cond_embedding(hint))
    assert len(found) == 13
    for one, wanted in zip(found, [*down, middle], strict=True):
        assert far(one, wanted) < RESIDUALS
        assert float(wanted.abs().max()) > 0.1


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_run_is_diffusers_at_full_size(pair: tuple[Control, nn.Module], tmp_path: Path) -> None:
    control, peer = pair
    networks, pipeline = whole(replace(V15, image_size=SIDE), tmp_path)
    unet, vae = networks["unet"], networks["vae"]
    wanted = control_run.theirs(pipeline, unet, vae, [peer], [GIVEN], SIDE)
    found = control_run.ours(pipeline, [control], SIDE)
    assert apart(found, wanted) < TOLERANCE, apart(found, wanted)
    assert apart(control_run.ours(pipeline, [], SIDE), wanted) > 3 * TOLERANCE
