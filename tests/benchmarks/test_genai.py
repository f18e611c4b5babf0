"""OpenVINO GenAI's U-Net, read from the files that the benchmark writes, is ours."""

from pathlib import Path

import pytest
import torch

from benchmarks.genai import genai_unet
from sd.pipeline import TextToImage


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the tracer's
@torch.no_grad()
def test_genai_computes_our_unet(tmp_path: Path) -> None:
    pytest.importorskip("openvino_genai")
    pipeline = TextToImage.load("shapes", device="cpu")
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 24, 96)
    given = x, torch.full((2,), 500.0), context
    wanted = pipeline.unet(*given)
    found = genai_unet(pipeline.unet, pipeline.config, given, tmp_path, "f32")(*given)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()
