"""Each experiment on a model of random weights: the wiring, the schema, the numbers it reports."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.autoencoder import run as autoencoder
from experiments.cfg import run as cfg
from experiments.common.model import distance, shows
from experiments.common.model_options import PROMPT, Model
from experiments.common.sampling_options import Sampling
from experiments.families import run as families
from experiments.forward import run as forward
from experiments.strength import PROMPT as REDRAWN
from experiments.strength import run as strength
from experiments.timing import run as timing
from sd.pipeline import TextToImage
from tests.support.result_schema import check

FEW = Sampling(steps=2)


def test_cfg(pipeline: TextToImage) -> None:
    config = cfg.Config(
        scales=(0.0, 2.0),
        count=2,
        swept=1,
        shown=2,
        diversity_prompts=2,
        diversity_seeds=2,
        sampling=FEW,
    )
    result = cfg.run(config, pipeline)
    check(result, "cfg")
    assert [point["w"] for point in result.data["sweep"]] == [0.0, 1.0, 2.0]
    assert [len(p["right"]["seen"]) for p in result.data["sweep"]] == [1, 2, 2]
    # w = 0 ignores the prompt, so the two prompts' pictures, of the same seeds, are the same.
    first, second = result.data["sweep"][0]["diversity"]
    assert first == pytest.approx(second)  # and it is drawn once
    assert result.data["sweep"][1]["diversity"][0] != result.data["sweep"][1]["diversity"][1]


def test_guidance_off_is_a_scale_of_one(pipeline: TextToImage) -> None:
    config = cfg.Config(shown=1, sampling=FEW)
    from tqdm import tqdm

    pair = cfg._pair(config, pipeline, tqdm(disable=True))
    (one,) = pipeline(PROMPT, guidance_scale=1.0, steps=2, progress=False)
    assert distance(pair[False][0], one) == 0
    assert distance(pair[True][0], one) > 0


def test_strength(pipeline: TextToImage, tmp_path: Path) -> None:
    from PIL import Image

    given = tmp_path / "given.png"
    Image.new("LA", (37, 90), (90, 200)).save(given)
    for image in (None, given):
        config = strength.Config(image=image, strengths=(1, 0.2, 0.5, 0.7), seeds=2, sampling=FEW)
        result = strength.run(config, pipeline)
        check(result, "strength")
        assert result.data["strengths"] == [0.2, 0.5, 0.7, 1]
        assert result.data["alpha"] == sorted(result.data["alpha"], reverse=True)
        assert result.data["alpha"][-1] == pytest.approx(0.0683, abs=5e-5)
        assert len(result.data["distances"]) == 4


def test_slope_is_the_least_squares_one() -> None:
    import numpy as np

    strengths, distances = [0.2, 0.5, 1.0], [[1.0, 2.0], [4.0, 3.0], [5.0, 9.0]]
    wanted = np.polyfit(strengths, np.array(distances), 1)[0].mean()
    assert strength._row(strengths, distances).measured == pytest.approx(wanted)


def test_timing(pipeline: TextToImage) -> None:
    config = timing.Config(repeats=3, warmup=1, model=Model(device="cpu"), sampling=FEW)
    result = timing.run(config, pipeline)
    check(result, "timing")
    for one in result.data["milliseconds"]:
        assert one.image[0] > one.decode[0] > 0
        assert one.memory > 0
    assert {"processor", "cores", "torch", "threads"} <= set(result.data["machine"])
    (half,) = result.data["drift"]
    assert (half.label, half.reference, half.t) == ("cpu, bfloat16", "cpu, float32", (500, 0))
    assert 0 < half.relative[-1] < 0.1  # bfloat16 rounds to 1/256
    assert {row.name: row.measured for row in result.rows}["timing-drift-cpu-bfloat16"] == (
        half.relative[-1]
    )
    # Timing other precisions leaves the model it was given as it was.
    assert next(pipeline.unet.parameters()).dtype == torch.float32


def test_forward_finds_the_closed_form() -> None:
    result = forward.run(forward.Config(samples=200, times=(0, 5, 200), frames=2))
    check(result, "forward")
    assert result.rows[0].verdict == "holds"


def test_forward_notices_a_wrong_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """sqrt(beta) taken for beta in the single step: the law after 200 steps is another."""
    from diffusion_math import gaussian
    from experiments.common import chains

    right = gaussian.forward_step

    def wrong(schedule, x, t):  # type: ignore[no-untyped-def]
        step = right(schedule, x, t)
        return replace(step, variance=step.variance.sqrt())

    monkeypatch.setattr(chains, "forward_step", wrong)
    result = forward.run(forward.Config(samples=100, times=(0, 200), frames=2))
    assert result.rows[0].verdict == "does not hold"


def test_autoencoder(pipeline: TextToImage) -> None:
    result = autoencoder.run(autoencoder.Config(count=20), pipeline)
    check(result, "autoencoder")
    assert len(result.data["psnr_db"]) == 20
    assert result.rows[0].verdict == "does not hold"  # random weights reconstruct nothing


def test_reader_has_no_verdict_outside_the_grammar() -> None:
    picture = strength.rendered()
    assert shows(picture, PROMPT) is True
    assert shows(picture, REDRAWN) is False
    assert shows(picture, "a cat") is None


def test_families() -> None:
    config = families.Config(density="two_moons", steps=20, samples=200, parameters=800)
    result = families.run(config)
    check(result, "families")
    assert result.rows[0].verdict == "too few samples"  # twenty updates decide nothing
    assert set(result.data["parameters"]) == {"VAE", "GAN", "diffusion", "autoencoder"}
    assert max(result.data["parameters"].values()) <= 800
    again = families.run(config)
    assert [row.measured for row in again.rows] == [row.measured for row in result.rows]
