"""The distillation: the teacher's paths, which of them are kept, and what the student learns."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_math import distillation as target
from diffusion_math import prediction
from diffusion_math.grid import trailing
from diffusion_math.noise import start_noise
from diffusion_math.sample import final
from diffusion_math.solvers import dpmpp_2m
from sd import weights
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.text.tokenizer import Tokenizer
from sd.train import __main__ as program
from sd.train import distillation
from sd.train.distillation import Distillation, distil, guided_paths, student_loss, taught
from tests.support.small_models import scramble
from tests.support.tensors import f64, normal
from tests.support.tiny_training import CONFIG

PROMPTS = ["a red circle", "a blue square"]


@pytest.fixture(scope="module")
def model() -> TextToImage:
    """A tiny model with random weights."""
    networks = TextEncoder(CONFIG.text), VAE(CONFIG.vae), UNet(CONFIG.unet)
    for place, one in enumerate(networks):
        scramble(one.eval(), place)
    tokenizer = Tokenizer.embedded(CONFIG.text.context_length)
    return TextToImage(CONFIG, tokenizer, *networks, device=torch.device("cpu"))


def small(out: Path, **changed: Any) -> Distillation:
    """Settings of a few steps."""
    settings = {"steps": 3, "batch_size": 4, "warmup": 1, "trajectories": 100, "calls": 3}
    settings |= {"substeps": 2, "scales": (2.0,), "bfloat16": False, "cpu": True, "out": out}
    return Distillation(**{**settings, **changed})


def test_the_paths_are_those_of_the_guided_flow(model: TextToImage) -> None:
    """At the nodes of the coarse grid, among which the fine one has as many steps each."""
    start = start_noise([1, 2], CONFIG.latent_shape)
    found = guided_paths(model, PROMPTS, start, 2.0, calls=3, fine=2)
    contexts = model.encode_prompts(["", *PROMPTS])
    denoise = model.denoiser((contexts[:1], contexts[1:]), 2.0)
    grid = trailing(model.schedule, 6)
    assert found.shape == (2, 4, *CONFIG.latent_shape)
    assert torch.equal(found[:, 0], start)
    with torch.no_grad():
        for node in (1, 2, 3):
            end = final(dpmpp_2m(model.schedule), denoise, start, grid[: 2 * node + 1])
            torch.testing.assert_close(found[:, node], end)


@pytest.mark.parametrize(("calls", "fine"), [(6, 4), (6, 7), (4, 3), (7, 2), (1, 5)])
def test_the_students_nodes_are_nodes_of_the_teacher(
    calls: int, fine: int, model: TextToImage
) -> None:
    every = trailing(model.schedule, calls * fine)[::fine]
    assert torch.equal(every, trailing(model.schedule, calls))


def kept_by(
    verdict: Callable[[float, str], bool], patch: pytest.MonkeyPatch, training: Distillation,
    model: TextToImage,
) -> tuple[distillation.Paths, list[float]]:  # fmt: skip
    """The paths that are kept if an image is right by its scale and prompt; the scales used."""
    scales: list[float] = []

    def paths(
        _: Any, prompts: Sequence[str], start: Tensor, scale: float, *__: Any, **___: Any
    ) -> Tensor:
        scales.append(scale)
        return start[:, None] + torch.tensor([0.0, scale])[:, None, None, None]

    def read(_: Any, latents: Tensor, prompts: Sequence[str]) -> list[bool]:
        return [verdict(scales[-1], prompt) for prompt in prompts]

    patch.setattr(distillation, "guided_paths", paths)
    patch.setattr(distillation, "read_rightly", read)
    return taught(training, model), scales


def test_a_start_keeps_the_first_scale_whose_image_is_right(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Starts without one are left out; every path keeps its own prompt."""
    training = small(tmp_path, scales=(2.0, 3.0, 1.5), two=0.5)

    def verdict(scale: float, prompt: str) -> bool:
        return scale == (2.0 if "red" in prompt else 1.5 if "blue" in prompt else 9.0)

    paths, scales = kept_by(verdict, monkeypatch, training, model)
    used = (paths.x[:, 1] - paths.x[:, 0]).mean((1, 2, 3))
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
            always = kept_by(lambda *_: True, patch, small(tmp_path, seed=seed), model)[0]
            again = taught(small(tmp_path, seed=seed), model, batch=batch)
        assert torch.equal(always.x, again.x) and always.prompts == again.prompts
        return always.x[:, 0], always.prompts

    (first, said), (second, other) = starts(0, 7), starts(1, 100)
    assert said != other
    evaluated = start_noise(range(100), CONFIG.latent_shape)
    every = torch.cat([first, second, evaluated]).flatten(1)
    assert len(torch.unique(every, dim=0)) == 300


def test_the_loss_is_zero_for_the_student_on_the_teachers_path(model: TextToImage) -> None:
    """Its v is that of the pair (x0, eps); examples have times of their own."""
    x_t, x_s = normal(2, 4, 8, 8), normal(2, 4, 8, 8, seed=2)
    t, s = f64(900.0, 100.0), f64(700.0, 0.0)
    x0 = target.target(model.schedule, x_t, x_s, t, s)
    eps = prediction.eps_from_x0(model.schedule, x_t, x0, t)
    v = prediction.target(model.schedule, "v", x0, eps, t)
    words = torch.zeros(2, 24, 16)

    class Student(nn.Module):
        off = 0.0

        def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
            assert context is words and torch.equal(time.double(), t - 1)
            return v + self.off

    student = Student()
    loss = student_loss(model.schedule, "v_prediction")
    examples = (x_t, x_s, t, s, words)
    assert float(loss(student, examples, torch.Generator())["loss"]) < 1e-8
    student.off = 0.5
    assert float(loss(student, examples, torch.Generator())["loss"]) == pytest.approx(0.25)


def handed(
    patch: pytest.MonkeyPatch, training: Distillation, model: TextToImage
) -> tuple[nn.Module, list[Any]]:
    """What the loop is given: the network, and the examples of four steps."""
    given: list[Any] = []

    def take(module: nn.Module, batch: Callable[[int], Any], *_: Any) -> dict[str, Tensor]:
        given.append((module, [batch(step) for step in range(4)]))
        return {}

    with patch.context() as context:
        context.setattr(distillation, "fit", take)
        context.setattr(distillation, "read_rightly", lambda _, __, prompts: [True] * len(prompts))
        parts: Any = (model.vae, model.text_encoder, model.unet)
        distil(training, CONFIG, *parts, model.tokenizer)
    network, examples = given[0]
    return network, examples


def test_examples_are_neighbours_on_a_path_with_its_prompt(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """x_s is the teacher's end from x_t under the prompt of the example."""
    training = small(tmp_path, substeps=1)
    _, batches = handed(monkeypatch, training, model)
    grid = trailing(model.schedule, 3)
    blank = model.encode_prompts([""])
    seen = set()
    for x_t, x_s, t, s, words in batches:
        for row in range(len(x_t)):
            node = grid.tolist().index(float(t[row]))
            seen.add(node)
            assert float(s[row]) == grid[node + 1]
            if node == 0:  # DPM-Solver++(2M) has no history there
                denoise = model.denoiser((blank, words[row : row + 1]), 2.0)
                with torch.no_grad():
                    end = final(dpmpp_2m(model.schedule), denoise, x_t[row : row + 1], grid[:2])
                torch.testing.assert_close(end[0], x_s[row], rtol=1e-4, atol=1e-4)
    assert seen == {0, 1, 2}


def test_the_student_starts_as_the_u_net_or_from_given_weights(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network, _ = handed(monkeypatch, small(tmp_path), model)
    assert network is not model.unet
    own, wanted = network.state_dict(), model.unet.state_dict()
    assert all(torch.equal(own[name], value) for name, value in wanted.items())
    other = UNet(CONFIG.unet)
    scramble(other, 9)
    path = tmp_path / "unet.safetensors"
    weights.save_network(path, other, CONFIG.unet, dtype=torch.float32)
    network, _ = handed(monkeypatch, small(tmp_path, initial=path), model)
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in other.state_dict().items())


def test_no_right_image_is_an_error(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"--distilled.scales: .* no image shows its prompt"):
        kept_by(lambda *_: False, monkeypatch, small(tmp_path), model)


def test_more_steps_of_the_teacher_than_times_are_refused_before_any_work(
    tmp_path: Path,
) -> None:
    small(tmp_path, calls=10, substeps=100).fit_schedule(1000)
    with pytest.raises(ValueError, match=r"^--distilled.calls, --distilled.substeps: .* 11 x 100$"):
        small(tmp_path, calls=11, substeps=100).fit_schedule(1000)
    options = program.All(distilled=small(tmp_path, calls=11, substeps=100))
    with pytest.raises(ValueError, match=r"^--distilled.calls, --distilled.substeps"):
        program.check(options, CONFIG)
