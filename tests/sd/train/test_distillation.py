"""The distillation: what the student starts as, what it is given, and what it learns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_math import distillation as target
from diffusion_math import prediction
from diffusion_math.sample import final
from diffusion_math.schedule import Discrete
from diffusion_math.solvers import dpmpp_2m
from sd.pipeline import TextToImage
from sd.train import __main__ as program
from sd.train import distillation, teacher
from sd.train.distillation import Distillation, distil, student_loss
from tests.support.tensors import f64, normal
from tests.support.tiny_training import CONFIG, other_student, small_distillation, tiny_model


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return tiny_model()


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
        context.setattr(teacher, "read_rightly", lambda _, __, prompts: [True] * len(prompts))
        parts: Any = (model.vae, model.text_encoder, model.unet)
        distil(training, CONFIG, *parts, model.tokenizer)
    network, examples = given[0]
    return network, examples


def test_examples_are_neighbours_on_a_path_with_its_prompt(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """x_s is the teacher's end from x_t under the prompt of the example."""
    training = small_distillation(tmp_path, substeps=1)
    _, batches = handed(monkeypatch, training, model)
    times = teacher.step_times(training, model.schedule)
    blank = model.encode_prompts([""])
    seen = set()
    for x_t, x_s, t, s, words in batches:
        for row in range(len(x_t)):
            number = times[:, 0].tolist().index(float(t[row]))
            seen.add(number)
            assert float(s[row]) == times[number, 1]
            denoise = model.denoiser((blank, words[row : row + 1]), 2.0)
            with torch.no_grad():
                end = final(dpmpp_2m(model.schedule), denoise, x_t[row : row + 1], times[number])
            torch.testing.assert_close(end[0], x_s[row], rtol=1e-4, atol=1e-4)
    assert seen == {0, 1, 2}


def test_the_student_starts_as_the_u_net_or_from_given_weights(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network, _ = handed(monkeypatch, small_distillation(tmp_path), model)
    assert network is not model.unet
    own, wanted = network.state_dict(), model.unet.state_dict()
    assert all(torch.equal(own[name], value) for name, value in wanted.items())
    path = tmp_path / "unet.safetensors"
    other = other_student(model, path).unet
    network, _ = handed(monkeypatch, small_distillation(tmp_path, initial=path), model)
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in other.state_dict().items())


def test_an_on_policy_student_goes_on_with_its_weights(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its examples are of nodes that their path has, and all nodes occur."""
    student = other_student(model, tmp_path / "student.safetensors")
    training = small_distillation(
        tmp_path, on_policy=True, initial=tmp_path / "student.safetensors"
    )
    monkeypatch.setattr(teacher, "BATCH", 10)
    network, batches = handed(monkeypatch, training, model)
    assert all(torch.isfinite(one).all() for batch in batches for one in batch)
    assert {float(t) for batch in batches for t in batch[2]} == {1000.0, 667.0, 333.0}
    own = network.state_dict()
    assert all(torch.equal(own[k], value) for k, value in student.unet.state_dict().items())


def test_on_policy_without_a_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^--distilled.on-policy: .*--distilled.initial"):
        small_distillation(tmp_path, on_policy=True).check()


def test_more_steps_of_the_teacher_than_times_are_refused_before_any_work(
    tmp_path: Path,
) -> None:
    schedule = Discrete.scaled_linear(1000)
    small_distillation(tmp_path, calls=10, substeps=100).fit_schedule(schedule)
    with pytest.raises(ValueError, match=r"^--distilled.calls, --distilled.substeps: .* 11 x 100$"):
        small_distillation(tmp_path, calls=11, substeps=100).fit_schedule(schedule)
    options = program.All(distilled=small_distillation(tmp_path, calls=11, substeps=100))
    with pytest.raises(ValueError, match=r"^--distilled.calls, --distilled.substeps"):
        program.check(options, CONFIG)


def test_steps_that_end_below_the_first_time_are_refused_before_any_work(tmp_path: Path) -> None:
    """With noise a step ends below its node, and a table has nothing between 0 and 1."""
    short = Discrete.scaled_linear(6)
    small_distillation(tmp_path, calls=6, substeps=1, eta=0.0).fit_schedule(short)
    with pytest.raises(ValueError, match=r"^--distilled.calls, --distilled.eta: .*, eta = 0.7$"):
        small_distillation(tmp_path, calls=6, substeps=1, eta=0.7).fit_schedule(short)
