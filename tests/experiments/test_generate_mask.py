"""`generate --mask`: the hole is repainted, its settings are kept, what is wrong is named."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main
from experiments.generate import png_metadata
from sd.pipeline import TextToImage

SIDE = 64
WHITE = np.zeros((SIDE, SIDE), dtype=bool)
WHITE[10:40, 20:50] = True


def picture(seed: int = 0, width: int = SIDE) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """`generate` after image.png in mask.png; its code and its lines of stderr."""
    picture().save(tmp_path / "image.png")
    Image.fromarray(WHITE).save(tmp_path / "mask.png")

    def run(
        *more: str, image: str = "image.png", mask: str = "mask.png", prompts: str = ""
    ) -> tuple[int, str]:
        flags = ["--prompts", prompts] if prompts else ["--prompt", "a red ring"]
        flags += ["--image", str(tmp_path / image)] if image else []
        flags += ["--mask", str(tmp_path / mask), "--weights", str(tiny), "--steps", "2"]
        capsys.readouterr()
        code = main(["generate", *flags, "--out", str(tmp_path / "out"), *more])
        return code, capsys.readouterr().err

    return run


def test_the_hole_alone_changes_and_the_image_is_repeated(command: Command, tmp_path: Path) -> None:
    assert command("--seed", "3") == (0, "")
    (drawn,) = (tmp_path / "out").glob("*.png")
    found, image = np.asarray(Image.open(drawn)), np.asarray(picture())
    assert np.array_equal(found[~WHITE], image[~WHITE])
    assert (found[WHITE] != image[WHITE]).mean() > 0.9
    kept = png_metadata.read(drawn)
    assert kept["call"]["strength"] == 1.0
    assert np.array_equal(np.asarray(png_metadata.opened(kept["mask"]))[..., 0] == 255, WHITE)
    again = tmp_path / "again"
    assert main(["generate", "--like", str(drawn), "--like-files", "--out", str(again)]) == 0
    assert (again / drawn.name).read_bytes() == drawn.read_bytes()


def test_it_is_the_pipeline_s_at_another_size_and_strength(
    command: Command, tmp_path: Path, pipeline: TextToImage
) -> None:
    sizes = ("--height", "32", "--width", "48", "--strength", "0.5")
    assert command(*sizes, "--seed", "3") == (0, "")
    (drawn,) = (tmp_path / "out").glob("*.png")
    (wanted,) = pipeline(
        "a red ring", image=picture(), mask=Image.fromarray(WHITE), height=32, width=48,
        strength=0.5, seed=3, steps=2, progress=False,
    )  # fmt: skip
    assert np.array_equal(np.asarray(Image.open(drawn)), np.asarray(wanted))


def test_a_resumed_command_needs_the_same_mask(command: Command, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red ring\n")
    listed = {"prompts": str(tmp_path / "prompts.txt")}
    assert command(**listed) == (0, "")
    assert command(**listed) == (0, "")
    Image.fromarray(~WHITE).save(tmp_path / "mask.png")
    code, error = command(**listed)
    assert code == 2 and "00001.png was made with other mask; take another folder" in error


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextToImage, "load", lambda *a, **k: pytest.fail("a model is loaded"))


BAD = {
    "no image": ({"image": ""}, "--mask: has no effect without --image; leave it out, got"),
    "no mask": ({"mask": "nowhere.png"}, "--mask: {}/nowhere.png is missing"),
    "a folder": ({"mask": "."}, "--mask: wanted a file, got the folder {}"),
    "a text": ({"mask": "text"}, "error: mask {}/text is no image in a format of PNG, JPEG"),
    "another size": (
        {"image": "wide.png"},
        "--mask: wanted the image's size, 80 x 64, got 64 x 64",
    ),
    "black": ({"mask": "black.png"}, "--mask: wanted white pixels, to be repainted: of bright"),
}


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("case", BAD)
def test_bad_masks_get_one_line_before_any_work(
    case: str, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("white")
    picture(width=80).save(tmp_path / "wide.png")
    Image.fromarray(WHITE & ~WHITE).save(tmp_path / "black.png")
    options, words = BAD[case]
    code, error = command(**options)
    assert code == 2 and error.count("\n") == 1
    assert words.format(tmp_path) in error
    assert not (tmp_path / "out").exists()


def test_a_white_mask_is_warned_of_once(command: Command, tmp_path: Path) -> None:
    Image.fromarray(WHITE | True).save(tmp_path / "white.png")
    code, error = command(mask="white.png")
    assert code == 0
    assert error == "warning: --mask: all white, so that no pixel of the image is kept\n"


@pytest.mark.parametrize("case", ["no image", "another size", "black", "no image in it"])
@pytest.mark.usefixtures("unloaded")
def test_a_bad_mask_in_a_png_is_named(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = {"another size": WHITE[:5], "black": WHITE & ~WHITE}
    image = None if case == "no image" else png_metadata.embedded(picture())
    mask = png_metadata.embedded(Image.fromarray(masks.get(case, WHITE)))
    settings = {**KEPT, "image": image, "mask": "AAAA" if case == "no image in it" else mask}
    path = tmp_path / "given.png"
    path.write_bytes(png_metadata.png(picture(), "a red ring", settings))
    assert main(["generate", "--like", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --like: ") and error.count("\n") == 1 and "mask" in error


KEPT = {
    "batch": [["a red ring", 3]],
    "index": 0,
    "call": {
        "negative_prompt": "", "steps": 2, "solver": "ddpm", "grid": "trailing",
        "guidance_scale": 2.0,
    },
    "model": {"weights": "shapes"},
    "made_with": {"device": "cpu", "torch": "x", "threads": 1, "weights": "x"},
}  # fmt: skip


def test_a_png_of_before_masks_is_read() -> None:
    kept = json.loads(json.dumps({**KEPT, "image": None}))
    assert png_metadata.checked(kept).mask is None
    assert png_metadata.differing({**kept, "mask": None}, kept) == []
    buffer = io.BytesIO(png_metadata.png(picture(), "a red ring", kept))
    assert json.loads(Image.open(buffer).info[png_metadata.KEY]) == kept
