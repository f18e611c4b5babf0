"""`generate --control`: the map acts, the PNG repeats it, and what does not fit is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.__main__ import main
from experiments.generate.png_metadata import KEY
from sd import control_map, weights
from sd.config import ControlNetConfig, UNetConfig
from sd.files.image_file import open_image
from sd.networks.controlnet import ControlNet
from sd.shapes.data import described
from tests.support.chance import pinned
from tests.support.small_models import scramble

HINTS = (4, 4, 4, 4)


@pytest.fixture(scope="module")
def files(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A ControlNet of the tiny model, one of another width, and images."""
    folder = tmp_path_factory.mktemp("control")
    unet = weights.read_config(tiny / "unet.safetensors", UNetConfig)
    for name, own in (("net", unet), ("other", replace(unet, context_width=32))):
        config = ControlNetConfig(own, hint_channels=HINTS)
        made = ControlNet(config)
        scramble(made, 3)
        weights.save_network(folder / f"{name}.safetensors", made, config)
    for name, side in (("map", 64), ("small", 32)):
        coarse = torch.rand(4, 4, 3, generator=pinned(5)).mul(255).byte().numpy()
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.NEAREST)
        image.save(folder / f"{name}.png")
    (folder / "text.png").write_text("no image")
    scene, _ = described(0, 1)
    control_map.of_scene(scene).save(folder / "classes.png")
    control_map.of_scene(scene).resize((64, 64), Image.Resampling.BILINEAR, (0, 0, 63, 63)).save(
        folder / "mixed.png"
    )
    return {
        "model": str(tiny),
        **{
            one.stem: str(one) for one in folder.iterdir() if one.suffix in (".png", ".safetensors")
        },
        "missing": str(folder / "missing.png"),
    }


@pytest.fixture
def go(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `generate` on the tiny model with some words; its code and its error stream."""

    def run(line: str, out: str = "out") -> tuple[int, str]:
        words = line.format(**files).split()
        code = main(["generate", "--out", str(tmp_path / out), *words])
        return code, capsys.readouterr().err

    return run


MODEL = "--model {model} --device cpu --steps 3"
CONTROL = f"{MODEL} --control {{net}} --control-image {{map}}"
SHAPES = "--device cpu --steps 2 --control shapes --control-image"


def image(folder: Path) -> Image.Image:
    (path,) = folder.glob("*.png")
    return open_image(path)


def kept(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(image(folder).info[KEY])
    return found


def test_the_map_acts_and_the_png_repeats_it(
    go: Any, files: dict[str, str], tmp_path: Path
) -> None:
    assert go(CONTROL, "with")[0] == go(MODEL, "without")[0] == 0
    assert go(f"{CONTROL} --control-scale 0.5", "half")[0] == 0
    pixels = {name: np.asarray(image(tmp_path / name)) for name in ("with", "without", "half")}
    assert (pixels["with"] != pixels["without"]).any() and (pixels["with"] != pixels["half"]).any()
    (control,) = kept(tmp_path / "with")["controls"]
    assert control["control"] == files["net"]
    assert (control["scale"], control["start"], control["end"]) == (1.0, 0.0, 1.0)
    assert "controls" not in kept(tmp_path / "without")

    (png,) = (tmp_path / "with").glob("*.png")
    code, line = go(f"--like {png}", "again")
    assert code == 2 and "--like-files" in line and files["net"] in line
    code, line = go(f"--like {png} --like-files --model {{model}}", "again")
    assert code == 0, line
    assert (np.asarray(image(tmp_path / "again")) == pixels["with"]).all()
    assert kept(tmp_path / "again")["controls"] == [control]


def test_the_embedded_controlnet_is_repeated_without_its_file(
    go: Any, files: dict[str, str], tmp_path: Path
) -> None:
    """A map near the colors of the classes is one of them."""
    classes = np.asarray(open_image(Path(files["classes"])))
    near = Image.fromarray(np.where(classes > 0, classes - 9, classes + 9).astype(np.uint8))
    near.save(tmp_path / "near.png")
    for name, path in (("exact", files["classes"]), ("near", str(tmp_path / "near.png"))):
        assert go(f"{SHAPES} {path}", name)[0] == 0
    (png,) = (tmp_path / "near").glob("*.png")
    code, line = go(f"--like {png}", "again")
    assert code == 0, line
    pixels = [np.asarray(image(tmp_path / name)) for name in ("exact", "near", "again")]
    assert (pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all()
    assert kept(tmp_path / "near")["controls"][0]["control"] == "shapes"


def test_several_controls_with_shares_and_edges(go: Any, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    two = f"{MODEL} --control {{net}} {{net}} --control-image {{map}} {{small}}"
    code, line = go(f"{two} --control-map given canny --control-end 0.7 1 --control-start 0 0.3")
    assert code == 0, line
    first, second = kept(tmp_path / "out")["controls"]
    assert first["weights"] == second["weights"] and first["image"] != second["image"]
    assert [(one["start"], one["end"], one["scale"]) for one in (first, second)] == [
        (0.0, 0.7, 1.0),
        (0.3, 1.0, 1.0),
    ]


def test_a_folder_with_other_controls_is_refused(go: Any, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n", encoding="utf-8")
    prompts = f"{CONTROL} --prompts {tmp_path / 'prompts.txt'}"
    assert go(prompts)[0] == go(prompts)[0] == 0
    code, line = go(f"{prompts} --control-scale 0.9")
    assert code == 2 and "was made with other controls" in line


REFUSED = {
    f"{MODEL} --control {{net}}": "--control-image: wanted 1, one for each --control, got none",
    f"{MODEL} --control-image {{map}}": "--control-image: has no effect without --control",
    f"{MODEL} --control-scale 0.5": "--control-scale: has no effect without --control",
    f"{CONTROL} {{map}}": "--control-image: wanted 1, one for each --control, got",
    f"{CONTROL} --control-scale 1 2": "--control-scale: wanted 1, one for each --control, got 1.0",
    f"{CONTROL} --control-scale 0": "--control-scale: wanted a number above 0",
    f"{CONTROL} --control-start 0.5 --control-end 0.5": "--control-end: wanted an end above its",
    f"{CONTROL} --control-map depth": "--control-map",
    f"{CONTROL} --engine openvino": "--engine: wanted eager with --control, got 'openvino'",
    f"{CONTROL} --engine openvino-int8": "--engine: wanted eager with --control, got 'openvino-i",
    f"{MODEL} --control {{net}} --control-image {{small}}": "--control-image: ",
    f"{MODEL} --control {{net}} --control-image {{missing}}": "--control-image: ",
    f"{MODEL} --control {{net}} --control-image {{text}}": "--control-image ",
    f"{MODEL} --control {{other}} --control-image {{map}}": "wanted context_width 16, as the U-Net,"
    " got context_width 32",
    f"{MODEL} --control {{map}} --control-image {{map}}": "{map}",
    f"{MODEL} --control {{missing}} --control-image {{map}}": "{missing}",
    f"{SHAPES} {{mixed}}": "--control-image: {mixed}: wanted colors of classes (background (0, 0, ",
    f"{SHAPES} {{classes}} --control-map canny": "--control-map: wanted given with --control "
    "shapes, whose map has classes, got canny",
    f"{MODEL} --control shapes --control-image {{classes}}": "--control: shapes does not fit: ",
    f"{CONTROL} --width 128": "wanted a map of 128 x 64 pixels, as the images, got a map",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(
    line: str, go: Any, files: dict[str, str], tmp_path: Path
) -> None:
    code, said = go(line)
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    assert REFUSED[line].format(**files) in said
    assert not list(tmp_path.glob("out/*.png"))


def test_a_control_that_acts_in_no_step_is_told(go: Any) -> None:
    code, line = go(f"{CONTROL} --control-start 0.4 --control-end 0.6")
    assert code == 0 and "controls 1 of 1: no effect" in line
