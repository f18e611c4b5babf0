"""The tab Image: x0_hat of each step, PNGs that `generate --like` repeats, bad values named."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from PIL import Image

from experiments.__main__ import main
from experiments.common.model_options import Model
from experiments.generate import png_metadata
from experiments.play import Config, image, image_tab
from experiments.play.image import Drawn, Preview, Settings
from experiments.play.jobs import Failure, live
from sd.pipeline import TextToImage


def reports(settings: Settings, tiny: Path, pipeline: TextToImage, every: int = 1) -> list[Any]:
    model = Model(weights=tiny, device="cpu")
    return list(live(lambda tell: image.sample(settings, model, pipeline, every, tell)))


def test_previews_are_the_denoiser_s_and_the_png_repeats(
    tiny: Path, pipeline: TextToImage, tmp_path: Path
) -> None:
    settings = Settings("a red ring", guidance_scale=3, seed=4, solver="ddim", steps=3)
    *previews, drawn = reports(settings, tiny, pipeline)
    assert [(one.side, one.step, one.time) for one in previews] == [
        ("on", 1, 1000.0), ("on", 2, 667.0), ("on", 3, 333.0),
    ]  # fmt: skip
    assert isinstance(drawn, Drawn)
    path = tmp_path / drawn.name
    path.write_bytes(drawn.png)
    # ddim's last step, to t = 0, ends on x0_hat: the last preview is the image.
    assert previews[-1].image.tobytes() == Image.open(path).tobytes()
    again = pipeline("a red ring", guidance_scale=3, seed=4, solver="ddim", steps=3, progress=False)
    assert again[0].tobytes() == Image.open(path).tobytes()
    kept = png_metadata.checked(png_metadata.read(path))
    assert (kept.call.solver, kept.call.steps, kept.call.guidance_scale) == ("ddim", 3, 3)
    code = main(["generate", "--like", str(path), "--like-files", "--out", str(tmp_path / "out")])
    assert code == 0
    assert Image.open(tmp_path / "out" / drawn.name).tobytes() == Image.open(path).tobytes()


def test_side_by_side_is_one_seed_with_guidance_and_without(
    tiny: Path, pipeline: TextToImage, tmp_path: Path
) -> None:
    settings = Settings("a red ring", "blue", 5, side_by_side=True, solver="ddim", steps=2)
    found = reports(settings, tiny, pipeline, every=2)
    assert [(type(one), one.side) for one in found] == [
        (Preview, "on"), (Drawn, "on"), (Preview, "off"), (Drawn, "off"),
    ]  # fmt: skip
    for drawn, guided in ((found[1], True), (found[3], False)):
        path = tmp_path / f"{guided}.png"
        path.write_bytes(drawn.png)
        kept = png_metadata.checked(png_metadata.read(path))
        assert kept.call.do_cfg is guided and kept.batch == (("a red ring", 0),)
        assert kept.call.negative_prompt == ("blue" if guided else "")
    assert found[1].png != found[3].png


@pytest.mark.parametrize(("steps", "strength"), [(None, 0.8), (6, 0.83), (4, 0.75)])
def test_the_strength_begins_at_a_node_of_a_distilled_model(
    pipeline: TextToImage, tmp_path: Path, steps: int | None, strength: float
) -> None:
    """The nearest to 0.8, which is the default of other models. gradio leaves loops open here."""
    config, gr = pipeline.config, MagicMock()
    if steps is not None:
        config = replace(config, distilled=True, sampling_steps=steps)
    image_tab.tab(gr, Config(), replace(pipeline, config=config), tmp_path)
    numbers = {one.kwargs.get("label"): one.args[0] for one in gr.Number.call_args_list}
    assert numbers["Strength, above 0 up to 1"] == strength


def test_it_starts_from_an_image(tiny: Path, pipeline: TextToImage, tmp_path: Path) -> None:
    path = tmp_path / "start.png"
    Image.new("RGB", (80, 40), "red").save(path)
    settings = Settings("a ring", solver="ddim", steps=4, image=path, strength=0.5)
    *previews, drawn = reports(settings, tiny, pipeline)
    assert [one.time for one in previews] == [500.0, 250.0]
    (tmp_path / "drawn.png").write_bytes(drawn.png)
    kept = png_metadata.checked(png_metadata.read(tmp_path / "drawn.png"))
    assert kept.call.strength == 0.5 and kept.image is not None


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no image", "image is no image in a format of PNG"), ("large", "image: wanted at most")],
)
def test_an_upload_that_cannot_be_used_is_one_message(
    content: bytes | str, said: str, tiny: Path, pipeline: TextToImage, tmp_path: Path
) -> None:
    path = tmp_path / "upload.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.new("1", (4097, 4096)).save(path)
    (failure,) = reports(Settings("a ring", image=path), tiny, pipeline)
    assert isinstance(failure, Failure) and failure.text.startswith(said)
    assert str(tmp_path) not in failure.text


def test_a_network_that_gives_nan_is_one_message(tiny: Path, pipeline: TextToImage) -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor, *_: Any) -> torch.Tensor:
            return torch.full_like(x, torch.nan)

    *_, failure = reports(Settings("a ring", steps=2), tiny, replace(pipeline, unet=Broken()))
    assert isinstance(failure, Failure) and "finite" in failure.text


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": " "}, "--prompt: wanted text of at least one word"),
    ({"prompt": "a" * 2001}, "prompt: wanted at most 2000 characters, got 2001"),
    ({"steps": 0}, "--steps: wanted a whole number from 1 to 200, got 0"),
    ({"steps": 2.5}, "--steps: wanted a whole number"),
    ({"steps": None}, "--steps: wanted a whole number"),
    ({"guidance_scale": -1.0}, "--guidance-scale: wanted a number from 0 to 100, got -1"),
    ({"guidance_scale": float("nan")}, "--guidance-scale: wanted"),
    ({"solver": "magic"}, "--solver: wanted one of ddim"),
    ({"strength": 0}, "--strength: wanted a number above 0, up to 1"),
    ({"seed": -1}, "--seed: wanted"),
    ({"side_by_side": True, "guidance_scale": 1}, "--guidance-scale: wanted another value than 1"),
]


@pytest.mark.parametrize(("given", "said"), BAD)
def test_bad_values_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"^{said}"):
        Settings(**{"prompt": "a ring", **given})


def test_a_setting_without_effect_is_refused(tiny: Path, pipeline: TextToImage) -> None:
    settings = Settings("a ring", "blue", guidance_scale=1)
    (failure,) = reports(settings, tiny, pipeline)
    assert failure.text.startswith("negative prompt: has no effect with guidance scale 1")
