"""Adaptors of functions: other arrays, other shapes, an object's own network."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import diffusion_math as dm
from diffusion_math.testing import adaptors, assert_forward, assert_loss, assert_posterior
from diffusion_math.testing.mistakes.diagnosis import MistakeError

pytestmark = pytest.mark.usefixtures("unchecked")
BETAS = np.linspace(1e-3, 0.2, 20)
ABAR = np.cumprod(1 - BETAS)


def levels(i: int) -> tuple[float, float]:
    return ABAR[i] ** 0.5, (1 - ABAR[i]) ** 0.5


class Strange:
    """An array of a library of its own, which takes no tensor."""

    def __init__(self, values: Any) -> None:
        assert isinstance(values, np.ndarray)
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values


def q_sample(x0: np.ndarray, t: np.ndarray, noise: np.ndarray) -> np.ndarray:
    assert not isinstance(x0, Tensor)
    return np.sqrt(ABAR[t])[:, None] * x0 + np.sqrt(1 - ABAR[t])[:, None] * noise


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numpy_at_the_border(dtype: torch.dtype) -> None:
    assert_forward(adaptors.arrays(q_sample), levels, range(20), dtype=dtype)

    def wrong(x0: np.ndarray, t: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return q_sample(x0, t, np.sqrt(1 - ABAR[t])[:, None] * noise)

    with pytest.raises(MistakeError, match=r"wrong: wrong(.|\n)*sigma\^2, the variance"):
        assert_forward(adaptors.arrays(wrong), levels, range(20), dtype=dtype)


def test_arrays_of_any_library_and_several_results() -> None:
    def posterior(x0: Strange, x_t: Strange, t: Strange) -> tuple[Strange, Strange]:
        i, a, b = t.values, np.append(1.0, ABAR)[t.values], BETAS[t.values]
        kept = 1 - ABAR[i]
        mean = (b * np.sqrt(a) / kept)[:, None] * x0.values
        mean = mean + ((1 - a) * np.sqrt(1 - b) / kept)[:, None] * x_t.values
        return Strange(mean), Strange(b * (1 - a) / kept)

    assert_posterior(adaptors.arrays(posterior, Strange), levels, range(20))


def test_networks_are_called_with_their_arrays() -> None:
    def loss(network: Any, x0: np.ndarray, t: np.ndarray, noise: np.ndarray) -> np.ndarray:
        prediction = network(q_sample(x0, t, noise), t=t)
        assert isinstance(prediction, np.ndarray)
        return np.square(prediction - noise).mean(1)

    assert_loss(adaptors.arrays(loss), levels, range(20))


def test_plain_arguments_pass() -> None:
    assert adaptors.arrays(lambda x, w: (w, x.shape))(torch.zeros(2), 3) == (3, (2,))


def test_events_of_a_shape() -> None:
    def images(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        assert x0.shape[1:] == (1, 2, 2)
        a = torch.from_numpy(ABAR)[t].reshape(-1, 1, 1, 1)
        return a.sqrt() * x0 + (1 - a).sqrt() * noise

    assert_forward(adaptors.shaped(images, (1, 2, 2)), levels, range(20))

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        x_t = images(x0, t, noise)
        prediction = network(x_t, t)
        assert prediction.shape == x_t.shape
        return (prediction - noise).square().mean((1, 2, 3))

    assert_loss(adaptors.shaped(loss, (1, 2, 2)), levels, range(20))
    with pytest.raises(ValueError, match=r"^event: wanted a shape of 4 entries, got \(3,\)"):
        adaptors.shaped(images, (3,))(torch.zeros(1, 4), torch.zeros(1), torch.zeros(1, 4))


class Lucid(nn.Module):
    """As lucidrains' GaussianDiffusion, of images, with a loss of its own network."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.model = nn.Linear(2, 2)
        self.model.channels = 1
        self.factor = factor
        self.register_buffer("alphas_cumprod", torch.from_numpy(ABAR))

    def p_losses(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        assert self.model.channels == 1
        a = self.alphas_cumprod[t].reshape(-1, 1, 1, 1)
        x = a.sqrt() * x_start + (1 - a).sqrt() * noise
        assert not torch.is_grad_enabled() or self.training
        return (self.model(x, t, None) - self.factor * noise).square().mean()


def test_a_loss_of_an_objects_own_network() -> None:
    mine = Lucid()
    before = mine.model
    loss = adaptors.shaped(adaptors.with_network(mine.p_losses, mine), (1, 2, 2))
    assert_loss(loss, levels, range(20))
    assert mine.model is before and loss.__name__ == "p_losses"
    wrong = Lucid(factor=2.0)
    loss = adaptors.shaped(adaptors.with_network(wrong.p_losses, wrong), (1, 2, 2))
    with pytest.raises(AssertionError):
        assert_loss(loss, levels, range(20))


def test_the_network_is_back_after_an_error() -> None:
    mine = Lucid()
    before = mine.model
    with pytest.raises(TypeError):
        adaptors.with_network(mine.p_losses, mine)(lambda x: x, torch.zeros(1, 1, 2, 2))
    assert mine.model is before


def test_an_object_without_a_network_is_told() -> None:
    with pytest.raises(ValueError, match=r"^owner: wanted an object that has the attribute 'net'"):
        adaptors.with_network(print, Lucid(), "net")


def test_a_module_stays_one() -> None:
    mine, other = Lucid(), nn.Identity()
    seen = []
    adaptors.with_network(lambda: seen.append(mine.model), mine)(other)
    assert seen == [other]


def test_adaptors_import_no_other_library() -> None:
    import subprocess
    import sys

    names = "diffusers monai denoising_diffusion_pytorch jax k_diffusion hypothesis pytest"
    code = (
        "import sys; from diffusion_math.testing import adaptors; "
        f"print([name for name in {names.split()} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert dm.testing.adaptors.__all__ == sorted(adaptors.__all__)
