"""The teacher of a distillation: its paths, which of them are kept, and where they begin."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_math.distillation import target
from diffusion_math.grid import trailing
from diffusion_math.noise import from_seeds, start_noise
from diffusion_math.sample import final
from diffusion_math.solvers import ddim, dpmpp_2m
from sd.pipeline import TextToImage
from sd.train import teacher
from sd.train.distillation import distilled
from sd.train.teacher import (
    SEED,
    Paths,
    Teaching,
    guided_path,
    step_times,
    student_state,
    taught,
)
from tests.support.tiny_training import CONFIG, other_student, small_distillation, tiny_model

PROMPTS = ["a red circle", "a blue square"]


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return tiny_model()


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_the_paths_are_those_of_the_guided_flow(
    eta: float, model: TextToImage, tmp_path: Path
) -> None:
    """Each step's begin and end lie on it; between two steps is the noise of `ddim(eta)`."""
    start, noise = start_noise([1, 2], CONFIG.latent_shape), from_seeds([1, 2])
    training = small_distillation(tmp_path, eta=eta)
    found = guided_path(training, model, PROMPTS, start, 2.0, noise)
    contexts = model.encode_prompts(["", *PROMPTS])
    denoise = model.denoiser((contexts[:1], contexts[1:]), 2.0)
    assert found.shape == (2, 3, 2, *CONFIG.latent_shape)
    assert torch.equal(found[:, 0, 0], start)
    times, nodes = step_times(training, model.schedule), trailing(model.schedule, 3)
    assert torch.equal(times[:, 0], nodes[:-1])
    with torch.no_grad():
        for number, (t, end) in enumerate(times):
            begin, ended = found[:, number].unbind(1)
            fine = torch.stack([t, (t + end) / 2, end])
            own = final(dpmpp_2m(model.schedule), denoise, begin, fine)
            torch.testing.assert_close(ended, own)
            s = nodes[number + 1]
            x0 = target(model.schedule, begin, ended, t, end)
            steps = ddim(model.schedule, eta)
            after = final(steps, lambda x, _, x0=x0: x0, begin, torch.stack([t, s]), noise)
            wanted = found[:, number + 1, 0] if number < 2 else ended
            torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-4)
    later = guided_path(training, model, PROMPTS, found[:, 2, 0], 2.0, noise, first=2)
    torch.testing.assert_close(later, found[:, 2:])


def kept_by(
    verdict: Callable[[float, str], bool], patch: pytest.MonkeyPatch, training: Teaching,
    model: TextToImage,
) -> tuple[Paths, list[float]]:  # fmt: skip
    """The paths that are kept if an image is right by its scale and prompt; the scales used."""
    scales: list[float] = []

    def paths(
        _: Any, __: Any, prompts: Sequence[str], start: Tensor, scale: float, *___: Any
    ) -> Tensor:
        scales.append(scale)
        return torch.stack([start, start + scale], 1)[:, None].expand(-1, 3, -1, -1, -1, -1)

    def read(_: Any, latents: Tensor, prompts: Sequence[str]) -> list[bool]:
        return [verdict(scales[-1], prompt) for prompt in prompts]

    patch.setattr(teacher, "guided_path", paths)
    patch.setattr(teacher, "read_rightly", read)
    return taught(training, model), scales


def test_a_start_keeps_the_first_scale_whose_image_is_right(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Starts without one are left out; every path keeps its own prompt."""
    training = small_distillation(tmp_path, scales=(2.0, 3.0, 1.5), two=0.5)

    def verdict(scale: float, prompt: str) -> bool:
        return scale == (2.0 if "red" in prompt else 1.5 if "blue" in prompt else 9.0)

    paths, scales = kept_by(verdict, monkeypatch, training, model)
    used = (paths.x[:, 0, 1] - paths.x[:, 0, 0]).mean((1, 2, 3))
    assert scales == [2.0, 3.0, 1.5]
    assert 10 < len(paths.prompts) == len(paths.x) < 100
    for prompt, scale in zip(paths.prompts, used.tolist(), strict=True):
        assert scale == pytest.approx(2.0 if "red" in prompt else 1.5, abs=1e-5)
        assert "red" in prompt or "blue" in prompt


def test_starts_and_prompts_are_those_of_the_seed(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the batch; another seed has others, and no start is one of an evaluation."""

    def starts(seed: int, batch: int) -> tuple[Tensor, Sequence[str]]:
        with monkeypatch.context() as patch:
            always = kept_by(
                lambda *_: True, patch, small_distillation(tmp_path / f"{seed}", seed=seed), model
            )[0]
            patch.setattr(teacher, "BATCH", batch)
            again = taught(small_distillation(tmp_path / f"in {batch}", seed=seed), model)
        assert torch.equal(always.x, again.x) and always.prompts == again.prompts
        return always.x[:, 0, 0], always.prompts

    (first, said), (second, other) = starts(0, 7), starts(1, 100)
    assert said != other
    evaluated = start_noise(range(100), CONFIG.latent_shape)
    every = torch.cat([first, second, evaluated]).flatten(1)
    assert len(torch.unique(every, dim=0)) == 300


def test_on_policy_paths_begin_where_the_student_leads(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Half at the first node, others at each in turn; from there on they are the teacher's."""
    path = tmp_path / "student.safetensors"
    student = other_student(model, path)
    training = small_distillation(tmp_path, on_policy=True, initial=path)
    monkeypatch.setattr(teacher, "read_rightly", lambda _, __, prompts: [True] * len(prompts))
    monkeypatch.setattr(teacher, "BATCH", 20)
    paths = taught(training, model, student)
    assert paths.first.tolist() == [0] * 60 + [1] * 20 + [2] * 20
    plain = taught(small_distillation(tmp_path / "plain"), model)
    assert torch.equal(paths.x[:60], plain.x[:60])
    assert torch.equal(paths.times, plain.times)
    some, seeds = slice(80, 100), range(SEED + 80, SEED + 100)
    start, noise = start_noise(seeds, CONFIG.latent_shape), from_seeds(seeds)
    led = student_state(training, student, paths.prompts[some], start, noise, 2)
    torch.testing.assert_close(paths.x[some, 2, 0], led)
    end = guided_path(training, model, paths.prompts[some], led, 2.0, noise, first=2)
    torch.testing.assert_close(paths.x[some, 2:], end)
    assert paths.x[some, :2].isnan().all()


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_the_student_leads_by_its_own_steps(eta: float, model: TextToImage, tmp_path: Path) -> None:
    """Those that the pipeline makes of the student; at node 0 the start itself."""
    training = small_distillation(tmp_path, eta=eta)
    start, noise = start_noise([1, 2], CONFIG.latent_shape), from_seeds([1, 2])
    states: list[Tensor] = []
    few = replace(model, config=distilled(CONFIG, 3, eta))
    few(PROMPTS, seed=[1, 2], progress=False, watch=lambda one: states.append(one.x))
    led = student_state(training, model, PROMPTS, start, noise, 2)
    torch.testing.assert_close(led, states[2])
    assert torch.equal(student_state(training, model, PROMPTS, start, noise, 0), start)


def test_no_right_image_is_an_error(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"--distilled.scales: .* no image shows its prompt"):
        kept_by(lambda *_: False, monkeypatch, small_distillation(tmp_path), model)


def test_a_killed_run_goes_on_with_the_paths_it_has(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A damaged file is made anew, one of other steps is read; other settings are refused."""
    monkeypatch.setattr(teacher, "BATCH", 40)
    monkeypatch.setattr(teacher, "read_rightly", lambda _, __, prompts: [True] * len(prompts))
    calls: list[int] = []
    sampled = teacher.guided_path

    def counted(training: Teaching, model: TextToImage, prompts: Any, *rest: Any) -> Tensor:
        calls.append(len(prompts))
        if len(calls) == stop:
            raise KeyboardInterrupt
        return sampled(training, model, prompts, *rest)

    monkeypatch.setattr(teacher, "guided_path", counted)
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        taught(small_distillation(tmp_path), model)
    stop = 0
    found = taught(small_distillation(tmp_path), model)
    assert calls == [40, 40, 20, 20]
    again = taught(small_distillation(tmp_path, steps=9, learning_rate=0.1), model)
    assert torch.equal(found.x, again.x) and found.prompts == again.prompts
    assert calls == [40, 40, 20, 20]
    file = tmp_path / "paths" / "00001.safetensors"
    file.write_bytes(file.read_bytes()[:999])
    assert torch.equal(found.x, taught(small_distillation(tmp_path), model).x)
    assert calls.pop() == 40
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"00000.safetensors was made .*--distilled.seed 0 there"):
        taught(small_distillation(tmp_path, seed=1), model)
    with pytest.raises(ValueError, match=r"unet null there, \"another\" now; .*delete the folder"):
        taught(small_distillation(tmp_path), model, context={"unet": "another"})
    assert calls == [40, 40, 20, 20] and file.read_bytes() == before
    assert not torch.equal(found.x, taught(small_distillation(tmp_path / "1", seed=1), model).x)
