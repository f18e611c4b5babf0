"""Each experiment on a model of random weights: the wiring, the schema, the numbers it reports."""

import json
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
from experiments.report import run as report
from experiments.strength import PROMPT as REDRAWN
from experiments.strength import run as strength
from experiments.timing import run as timing
from sd.pipeline import TextToImage
from tests.experiments.schema import check

FEW = Sampling(steps=2)


def test_cfg(pipeline: TextToImage) -> None:
    config = cfg.Config(
        scales=(0.0, 2.0), count=2, shown=2, diversity_prompts=2, diversity_seeds=2, sampling=FEW
    )
    result = cfg.run(config, pipeline)
    check(result, "cfg")
    assert [point["w"] for point in result.data["sweep"]] == [0.0, 1.0, 2.0]
    # w = 0 ignores the prompt, so the two prompts' pictures, of the same seeds, are the same.
    first, second = result.data["sweep"][0]["diversity"]
    assert first == pytest.approx(second)
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
        assert one.picture[0] > one.decode[0] > 0
        assert one.memory > 0
    assert {"processor", "cores", "torch", "threads"} <= set(result.data["machine"])
    (half,) = result.data["apart"]
    assert (half.label, half.reference, half.t) == ("cpu, bfloat16", "cpu, float32", (500, 0))
    assert 0 < half.relative[-1] < 0.1  # bfloat16 rounds to 1/256
    assert {row.name: row.measured for row in result.rows}["timing-apart-cpu-bfloat16"] == (
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

    right = gaussian.forward_step

    def wrong(schedule, x, t):  # type: ignore[no-untyped-def]
        step = right(schedule, x, t)
        return replace(step, variance=step.variance.sqrt())

    monkeypatch.setattr(forward, "forward_step", wrong)
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


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")  # shapes have tests of their own
def test_report(tiny: Path, pipeline: TextToImage, tmp_path: Path) -> None:
    model = Model(weights=tiny)
    config = report.Config(quick=True, out=tmp_path, model=model, sampling=FEW)
    made = report.run(config, pipeline)
    written = report.write(made, tmp_path)
    assert [path.name for path in written] == ["report.html", "report.md", "report.json"]
    rows = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert isinstance(rows, list)
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    assert {"cfg", "strength", "timing", "forward", "families", "autoencoder"} <= set(names)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.count(report.LECTURE_PROMPT) == 1
    assert "loss 0.25" in text  # the figures in the weights' metadata
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for figure in (one for result in made.results for one in result.figures):
        assert f"({figure.name})" in text
        assert (tmp_path / figure.name).is_file()
    assert page.count("<img ") == text.count("![")
    assert 'src="data:' in page
    assert 'src="http' not in page


def test_the_report_says_how_often_the_weights_were_right() -> None:
    (table,) = report._judged(
        {
            "unet": {
                "figures": '{"judged": 200, "seen_guided": 0.955, "seen_unguided": 0.5, '
                '"held_out_guided": 0.0, "held_out_unguided": 1.0}'
            }
        }
    )
    # Wilson's interval of 191 of 200.
    assert table.rows[0][1:] == ("95.5% [91.7%, 97.6%]", "50.0% [43.1%, 56.9%]")
    assert table.rows[1][1:] == ("0.0% [0.0%, 1.9%]", "100.0% [98.1%, 100.0%]")
    assert report._judged({}) == ()
    assert report._judged({"unet": {"figures": '{"loss": 0.1}'}}) == ()


def test_families() -> None:
    config = families.Config(density="two_moons", steps=20, samples=200, parameters=800)
    result = families.run(config)
    check(result, "families")
    # Twenty updates of tiny networks draw nothing like the data, and the verdict says so.
    assert result.rows[0].verdict == "does not hold"
    assert set(result.data["parameters"]) == {"VAE", "GAN", "diffusion", "autoencoder"}
    assert max(result.data["parameters"].values()) <= 800
    again = families.run(config)
    assert [row.measured for row in again.rows] == [row.measured for row in result.rows]
