"""Right code of many habits passes; what is no result says so in one line."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_math.testing import (
    MistakeError,
    adaptors,
    assert_average,
    assert_bound,
    assert_forward,
    assert_guidance,
    assert_img2img_start,
    assert_likelihood,
    assert_loss,
    assert_posterior,
    assert_prediction_maps,
    assert_prior_term,
    assert_transition,
    drawn,
)
from tests.support.right_diffusion import ABAR, TIMES, levels, loss, posterior, q_sample


class TestChangedInPlace:
    """An argument that code changes in place is another for whoever calls it."""

    def test_forward(self) -> None:
        def changed(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            alpha, sigma = levels(t[:, None])
            return x0.mul_(alpha).add_(sigma * noise)

        def late(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            found = q_sample(x0, t, noise)
            t.add_(1)
            return found

        def start(x0: Tensor, t: int, noise: Tensor) -> tuple[Tensor, int]:
            return changed(x0, torch.tensor([t]), noise), t

        with pytest.raises(AssertionError, match=r"^changed: argument 1 is changed in place"):
            assert_forward(changed, levels, TIMES)
        with pytest.raises(AssertionError, match=r"^late: argument 2 is changed in place"):
            assert_forward(late, levels, TIMES)
        with pytest.raises(AssertionError, match=r"^start: argument 1 is changed in place"):
            assert_img2img_start(start, levels, TIMES, [3, 9])

    def test_transition(self) -> None:
        def changed(x: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            ratio = (ABAR[t] / ABAR[s]).sqrt()[:, None]
            variance = (1 - ABAR[t, None]) - ratio**2 * (1 - ABAR[s, None])
            return ratio * x + noise.mul_(variance.sqrt())

        with pytest.raises(AssertionError, match="argument 4 is changed in place"):
            assert_transition(changed, levels, TIMES)

    def test_maps_posterior_and_guidance(self) -> None:
        def x0_from_eps(x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = levels(t[:, None])
            return x_t.sub(eps.mul_(sigma)).div_(alpha)

        def changed(x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            mean, variance = posterior(x0.clone(), x_t.clone(), t)
            x_t.zero_()
            return mean, variance

        with pytest.raises(AssertionError, match="argument 2 is changed in place"):
            assert_prediction_maps({"x0_from_eps": x0_from_eps}, levels, TIMES)
        with pytest.raises(AssertionError, match="argument 2 is changed in place"):
            assert_posterior(changed, levels, TIMES)
        with pytest.raises(AssertionError, match="argument 1 is changed in place"):
            assert_guidance(lambda cond, uncond, w: cond.sub_(uncond).mul_(w).add_(uncond))

    def test_loss_and_prior_term(self) -> None:
        def own(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            x_t = q_sample(x0, t, noise)
            error = network(x_t, t).sub_(noise).square_()
            x_t.zero_()
            return error.mean()

        def changed(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            return noise.sub_(network(q_sample(x0, t, noise), t)).square().mean()

        def prior(x0: Tensor) -> Tensor:
            return (x0.square_().mul_(0.25) + 0.75 - 1 - np.log(0.75)).sum(1) / 2

        assert_loss(own, levels, TIMES)
        with pytest.raises(AssertionError, match="argument 4 is changed in place"):
            assert_loss(changed, levels, TIMES)
        with pytest.raises(AssertionError, match="argument 1 is changed in place"):
            assert_prior_term(prior, 0.5, 0.75**0.5)

    def test_numpy_s_arrays(self) -> None:
        def changed(x0: np.ndarray, t: np.ndarray, noise: np.ndarray) -> np.ndarray:
            abar = ABAR.numpy()[t][:, None]
            x0 *= np.sqrt(abar)
            return x0 + np.sqrt(1 - abar) * noise

        with pytest.raises(AssertionError, match="argument 1 is changed in place"):
            assert_forward(adaptors.arrays(changed), levels, TIMES)


class TestNetwork:
    """Our network is a module that takes x_t by place or by name, as people's do."""

    @pytest.mark.parametrize(
        "evaluate",
        [
            lambda network, x, t: network(x=x, timesteps=t),
            lambda network, x, t: network(timestep=t, sample=x),
            lambda network, x, t: network(x, t, y=torch.zeros(len(x), dtype=torch.int64)),
            lambda network, x, t: network(x, t, None, return_dict=False)[0],
            lambda network, x, t: network(x, t).sample,
            lambda network, x, t: network.train().to(x.dtype)(x, t),
        ],
        ids=["by name", "otherwise", "with classes", "without a dict", "a sample", "as a module"],
    )
    def test_of_a_loss(self, evaluate: Any) -> None:
        def own(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            return loss(lambda x, t: evaluate(network, x, t), x0, t, noise)

        assert_loss(own, levels, TIMES)

    def test_of_a_velocity(self) -> None:
        def flow_levels(t: float) -> tuple[float, float]:
            return t, 1 - t

        def own(network: Any, x1: Tensor, t: Tensor, x0: Tensor) -> Tensor:
            x_t = t[:, None] * x1 + (1 - t[:, None]) * x0
            return (network(x_t, t) - (x1 - x0)).square().mean()

        times = torch.linspace(0.99, 0, 20, dtype=torch.float64)
        assert_loss(own, flow_levels, times, predicts="velocity")
        with pytest.raises(MistakeError, match="flow with the sign reversed"):
            assert_loss(own, flow_levels, times, predicts="flow")


class TestResults:
    """What is returned may have more beside it."""

    def test_a_sample_and_its_noise(self) -> None:
        assert_forward(lambda x0, t, noise: (q_sample(x0, t, noise), noise), levels, TIMES)
        assert_forward(lambda x0, t, noise: {"x_t": q_sample(x0, t, noise)}, levels, TIMES)

    def test_a_loss_and_a_log(self) -> None:
        assert_loss(lambda *given: (loss(*given), {"mse": 1.0}), levels, TIMES)
        assert_loss(lambda *given: {"mse": 1.0, "loss": loss(*given)}, levels, TIMES)

    @pytest.mark.parametrize("made", [dict, SimpleNamespace])
    def test_a_posterior_by_names(self, made: Any) -> None:
        def named(*given: Tensor) -> Any:
            mean, variance = posterior(*given)
            return made(log_variance=variance.clamp(min=1e-20).log(), variance=variance, mean=mean)

        assert_posterior(named, levels, TIMES)
        assert_posterior(named, levels, TIMES, spread="log-variance", first=1e-20)

    def test_several_names_are_one_line(self) -> None:
        with pytest.raises(AssertionError, match=r"wanted an array, got dict with x_t, noise$"):
            assert_forward(
                lambda x0, t, noise: {"x_t": q_sample(x0, t, noise), "noise": noise}, levels, TIMES
            )

    def test_images_are_named(self) -> None:
        def images(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            alpha, sigma = levels(t[:, None, None, None])
            return alpha * x0 + sigma * noise

        with pytest.raises(AssertionError, match=r"see `adaptors\.shaped`"):
            assert_forward(images, levels, TIMES)
        assert_forward(adaptors.shaped(images, (1, 2, 2)), levels, TIMES)

    def test_levels_may_need_a_gradient(self) -> None:
        assert_forward(q_sample, lambda t: [each.requires_grad_() for each in levels(t)], TIMES)


class TestWhatIsRaised:
    """An exception of code under test is one line, with the shapes of what it was given."""

    def test_a_long_one(self) -> None:
        def q(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            raise ValueError("of\nmany lines " * 100)

        with pytest.raises(AssertionError) as caught:
            assert_forward(q, levels, TIMES)
        said = str(caught.value)
        assert said.startswith("q: raised ValueError: of many lines of many")
        assert said.endswith("... (given arrays of shapes (30, 4), (30,), (30, 4))")
        assert "\n" not in said and len(said) < 300

    def test_a_draw_that_is_none(self) -> None:
        """What the kit says of their code is not said to be raised by it."""
        with pytest.raises(AssertionError, match=r"^add: wanted one draw of a normal, got 0$"):
            assert_forward(drawn(add), levels, TIMES)

    def test_a_value_that_is_no_number(self) -> None:
        def nan_first(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            return q_sample(x0, t, noise) / (t > 0)[:, None]

        with pytest.raises(MistakeError, match="diagnosis: it is not a number there") as caught:
            assert_forward(nan_first, levels, TIMES)
        assert len(caught.value.mistakes) == 1

    def test_times_the_other_way_round(self) -> None:
        with pytest.raises(ValueError, match="give them the other way round, or exchange alpha"):
            assert_forward(q_sample, levels, list(TIMES)[::-1])


def add(x0: Tensor, t: Tensor) -> Tensor:
    return x0


def test_a_returned_function_is_adapted() -> None:
    """`arrays` of a moving average's start: its `update` is one of arrays too."""

    def start(w: np.ndarray) -> Any:
        average = np.array(w)

        def update(w: np.ndarray) -> np.ndarray:
            assert isinstance(w, np.ndarray)
            average[:] = 0.9 * average + 0.1 * w
            return average

        return update

    assert_average(adaptors.arrays(start), 0.9)


@pytest.mark.parametrize("unit", ["nats", "bits/dim"])
def test_the_large_variance_in_a_bound_is_named(unit: str) -> None:
    """Also at times where both variances are the same to rounding."""
    abar = (1 - torch.linspace(1e-3, 0.2, 100, dtype=torch.float64)).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    large = 1 - abar / before
    small = large * (1 - before) / (1 - abar)
    factor = {"nats": 4.0, "bits/dim": 1 / np.log(2)}[unit]

    def term(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        alpha, sigma = abar[t, None].sqrt(), (1 - abar[t, None]).sqrt()
        x_t = alpha * x0 + sigma * noise
        guess = (x_t - sigma * network(x_t, t)) / alpha
        mean = (before.sqrt() * large / (1 - abar))[t, None] * (x0 - guess)
        logs = small.log()[t, None] - large.log()[t, None]
        kl = (logs.exp() - 1 - logs + mean**2 * (-large.log()[t, None]).exp()) / 2
        return factor * kl.mean(1)

    def of(t: Any) -> tuple[Tensor, Tensor]:
        return abar[t].sqrt(), (1 - abar[t]).sqrt()

    assert_bound(term, of, range(100), variance="beta", unit=unit)
    with pytest.raises(MistakeError, match="diagnosis: the model's variance is beta "):
        assert_bound(term, of, range(100), unit=unit)


def test_an_update_that_returns_nothing_is_told() -> None:
    with pytest.raises(AssertionError, match="wanted `update` to return the average, got None"):
        assert_average(lambda w: lambda w: None, 0.9)
    with pytest.raises(AssertionError, match="start: wanted `update`, a function, got dict"):
        assert_average(lambda w: {"w": w}, 0.9)


@pytest.mark.parametrize("abar", [0.3, 1e-3])
def test_a_deviation_in_the_prior_term(abar: float) -> None:
    """Nearer the prior a term of sigma is that of one of four dimensions, to rounding."""

    def term(x0: Tensor) -> Tensor:
        sigma = torch.tensor((1 - abar) ** 0.5, dtype=torch.float64)
        return (abar * x0.square() + sigma - 1 - sigma.log()).sum(1) / 2

    with pytest.raises(MistakeError, match=r"of sigma,? where sigma"):
        assert_prior_term(term, abar**0.5, (1 - abar) ** 0.5)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_probability_flow_of_g2(share: float) -> None:
    """dx = f x - share g^2 score dt of a Gaussian, solved: the score of all of g^2 is named."""
    alpha, sigma = (0.995**0.5, 0.4**0.5), (0.005**0.5, 0.6**0.5)
    times = {0.0: (alpha[0], sigma[0]), 1.0: (alpha[1], sigma[1])}

    def log_density(network: Any, x: Tensor) -> Tensor:
        v = [a**2 * 0.64 + s**2 for a, s in times.values()]
        growth = alpha[1] / alpha[0] * (v[1] / v[0] * (alpha[0] / alpha[1]) ** 2) ** share
        z = alpha[1] * 0.3 + growth * (x - alpha[0] * 0.3)
        return 4 * np.log(growth) - (z.square() + np.log(2 * np.pi)).sum(1) / 2

    if share == 0.5:
        assert_likelihood(log_density, times.__getitem__, 0.0, 1.0)
    else:
        with pytest.raises(MistakeError, match=r"the flow has g\^2 where g\^2 / 2 belongs, in x"):
            assert_likelihood(log_density, times.__getitem__, 0.0, 1.0)


def test_the_other_time_of_a_start_is_told() -> None:
    def start(x0: Tensor, t: int, noise: Tensor) -> tuple[Tensor, int]:
        return q_sample(x0, torch.tensor([t + 4]), noise), t

    told = r"noise is that of another time .*\n.* told t = 3, the first state is .* of t = 7$"
    with pytest.raises(MistakeError, match=told):
        assert_img2img_start(start, levels, TIMES, [3, 9])
