"""What stable-diffusion.cpp, if installed, is asked for: our threads, dtype and settings."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.cpp import cpp_image


def test_it_is_asked_for_the_same_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    class Drawer:
        def __init__(self, **given: Any) -> None:
            asked.update(given)

        def generate_image(self, prompt: str, **given: Any) -> list[Image.Image]:
            asked.update(given, prompt=prompt)
            return [Image.new("RGB", (given["width"], given["height"]), (1, 2, 3))]

    module = SimpleNamespace(StableDiffusion=Drawer)
    monkeypatch.setitem(sys.modules, "stable_diffusion_cpp", module)
    found = cpp_image(tmp_path, "a word", steps=4, scale=7.5, side=64)()
    assert found.tolist() == [[1, 1], [2, 2], [3, 3]]
    assert asked["model_path"] == str(tmp_path) and asked["wtype"] == "f32"
    assert asked["n_threads"] == torch.get_num_threads()
    assert (asked["prompt"], asked["sample_steps"], asked["cfg_scale"]) == ("a word", 4, 7.5)
    assert (asked["width"], asked["height"]) == (64, 64)
    assert (asked["sample_method"], asked["seed"]) == ("euler", 0)  # one call of the network a step
