"""What lucidrains' libraries have in common: modules as networks, noise drawn inside, clipping."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise, repeat
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from diffusion_math import prediction
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import Schedule
from diffusion_math.testing import Sampler, UnsupportedError, assert_posterior
from experiments.audit.subject import along

SMALL = 2.0**-10
"""Samples are made this small: all but clipping is linear, and nothing is clipped then."""

ENDS = "the last latent is z_0, of sigma 0.01, from which VDM (arXiv:2107.00630) decodes x"
"""Why a sampler in continuous time leaves noise."""

Levels = Callable[[Any], tuple[Tensor, Tensor]]


class Network(nn.Module):
    """A function as what these libraries take for a network."""

    def __init__(self, function: Callable[..., Tensor], channels: int = 1, **said: Any) -> None:
        super().__init__()
        self.function, self.channels, self.out_dim = function, channels, channels
        self.self_condition = self.self_cond = self.random_or_learned_sinusoidal_cond = False
        self.weight = nn.Parameter(torch.zeros(1))
        vars(self).update(said)

    def forward(self, *given: Any, **named: Any) -> Tensor:
        return self.function(*given, **named)


@contextmanager
def drawing(each: Iterator[Tensor]) -> Iterator[None]:
    """Within, torch's normals are these in turn, in the shape that is wanted."""

    def randn(*shape: Any, **_: Any) -> Tensor:
        size = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return randn_like(torch.zeros(size))

    def randn_like(x: Tensor, **_: Any) -> Tensor:
        found = next(each)
        whole = found.numel() == x.numel()
        return (found.reshape(x.shape) if whole else found.expand(x.shape)).clone()

    with mock.patch.multiple(torch, randn=randn, randn_like=randn_like):
        yield


@contextmanager
def in_float64() -> Iterator[None]:
    """Within, what has no dtype of its own is in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def quiet(module: Any) -> Any:
    """A library's module, without its progress bars."""
    if hasattr(module, "tqdm"):
        module.tqdm = lambda each, *_, **__: each
    return module


def of_table(table: Any) -> Levels:
    """The levels of an object's `alphas_cumprod`."""
    abar = table.alphas_cumprod.detach()
    return lambda t: (abar[int(t)].sqrt(), (1 - abar[int(t)]).sqrt())


KINDS: dict[str, Callable[..., Tensor]] = {
    "pred_noise": prediction.eps_from_x0,
    "pred_x0": lambda schedule, x, x0, t: x0,
    "pred_v": prediction.v_from_x0,
}
"""What the network predicts, by these libraries' names."""

Run = Callable[[int, Callable[[Tensor, Tensor], Tensor], int, int], Tensor]
"""`(steps, network, channels, batch) -> samples`; the network takes x and what it is told."""


def sampler(
    name: str,
    schedule: Schedule,
    run: Run,
    time: Callable[[float], float],
    order: int = 1,
    noisy: bool = False,
    predicts: Callable[..., Tensor] = KINDS["pred_x0"],
    at_first: float = 1.0,
    last: float = 0.0,
    stages: int = 1,
) -> Sampler:
    """Sampling on the library's own times; `time`: what is told, as a time of the schedule.

    at_first: the deviation of what sampling starts from. stages: evaluations of a step, the first
    at its start.
    """

    @cache
    def own(n: int) -> Tensor:
        told: list[float] = []

        def network(x: Tensor, t: Tensor) -> Tensor:
            told.append(time(float(torch.as_tensor(t).reshape(-1)[0])))
            return torch.zeros_like(x)

        with drawing(repeat(torch.zeros(1))), in_float64():
            run(n, network, 1, 1)
        return torch.tensor([*list(dict.fromkeys(told))[::stages], last], dtype=torch.float64)

    tried: dict[int, int] = {}

    def grid(n: int) -> Tensor:
        tried[len(own(n))] = n
        return own(n)

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> Tensor | list[Tensor]:
        n = tried.get(len(grid), 0)
        if not n or not torch.equal(own(n), grid):
            raise UnsupportedError("samples on its own times, from the first on")
        seen: dict[float, Tensor] = {}

        def normals() -> Iterator[Tensor]:
            yield SMALL / at_first * x
            for t, s in pairwise(grid):
                yield SMALL * noise(x, t, s) if noisy else torch.zeros_like(x)
            yield from repeat(torch.zeros_like(x))

        def network(given: Tensor, told: Tensor) -> Tensor:
            t = torch.tensor(time(float(torch.as_tensor(told).reshape(-1)[0]))).double()
            seen[float(t)] = state = given.reshape(x.shape) / SMALL
            found = predicts(schedule, state, denoise(state, t), t)
            return SMALL * found.reshape(given.shape)

        with drawing(normals()), in_float64():
            end = run(n, network, x.shape[1], len(x)).reshape(x.shape) / SMALL
        return along(grid, seen, end)

    return Sampler(
        name,
        schedule,
        sample,
        grid,
        order,
        noisy,
        any_grid=False,
        precision=1.2e-7,
        level_tolerance=5e-4,
    )


def one_step(
    step: Callable[..., Tensor], levels: Levels, predicts: str
) -> Callable[..., tuple[Tensor, Tensor]]:
    """A step of ancestral sampling as a posterior: (x0, x_t, times...) -> mean, deviation.

    step: takes a network, x and the times.
    """

    def network_of(x0: Tensor, t: Any) -> Callable[..., Tensor]:
        alpha, sigma = (float(each) for each in levels(t))

        def network(x: Tensor, *_: Any, **__: Any) -> Tensor:
            at = x0.reshape(x.shape)
            eps = (x - alpha * at) / sigma
            kinds = {"pred_noise": eps, "pred_x0": at, "pred_v": alpha * eps - sigma * at}
            return kinds[predicts]

        return network

    def at(x0: Tensor, x: Tensor, noise: float, *times: Any) -> Tensor:
        x0, x = (SMALL * each.double()[..., None, None] for each in (x0, x))
        with drawing(repeat(torch.full((1,), SMALL * noise, dtype=torch.float64))):
            found = step(network_of(x0, times[0]), x, *times)
        return (found / SMALL).flatten(1)

    def posterior(x0: Tensor, x: Tensor, *times: Any) -> tuple[Tensor, Tensor]:
        zero = torch.zeros_like(x0)
        mean, deviation = at(x0, x, 0.0, *times), at(zero, zero, 1.0, *times)
        return mean.to(x.dtype), deviation.to(x.dtype)

    return posterior


def no_noise(posterior: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """AssertionError where the last step, from index 0, adds noise."""
    zero = torch.zeros(1, 4)
    deviation = float(posterior(zero, zero, 0)[1].abs().max())
    assert deviation == 0, f"deviation of the noise of the last step: got {deviation:.3g}"


def steps_of(
    posterior: Callable[..., tuple[Tensor, Tensor]], levels: Levels, times: range, predicts: str
) -> None:
    """The posterior of one `p_sample` in float32, from t to t - 1.

    Where noise or v is predicted, x_0 cancels in float32 at indices above 40.
    """
    pairs = None if predicts == "pred_x0" else pairwise(times[40::-1])
    assert_posterior(
        posterior,
        levels,
        times,
        spread="deviation",
        batched=False,
        dtype=torch.float32,
        pairs=pairs,
    )


def check(got: float, wanted: float, what: str, tolerance: float = 1e-4) -> None:
    """AssertionError unless a number is what it should be."""
    off = abs(got - wanted)
    assert off <= tolerance * max(abs(wanted), 1e-12), (
        f"{what}: got {got:.4g}, expected {wanted:.4g}"
    )


def leaves_alone(function: Callable[[Tensor], Any], given: Tensor, what: str) -> None:
    """AssertionError where a function changes its argument in place."""
    before = given.clone()
    function(given)
    ratio = float(given.norm() / before.norm())
    assert torch.equal(before, given), f"{what} is changed in place: {ratio:.3g} times its size"


def noise_levels(
    run: Callable[[Callable[..., Tensor]], Any],
    deviation: Callable[[float], float],
    side: int,
    least: float = 0.0,
) -> None:
    """AssertionError unless all that the network is given has the noise of what it is told.

    run: samples images of side x side with a network whose x0 is 0. Each draw has a pixel of its
    own, so the sum of squares over an image is the variance of a pixel. Noise of at most `least`
    is not looked at.
    """
    seen: list[tuple[float, float]] = []

    def network(x: Tensor, told: Any) -> Tensor:
        at = float(torch.as_tensor(told).reshape(-1)[0])
        seen.append((at, float(x.norm()) / SMALL))
        return torch.zeros_like(x)

    with drawing(iter(SMALL * torch.eye(side**2, dtype=torch.float64))):
        run(network)
    seen = [one for one in seen if deviation(one[0]) > least]
    at, got = max(seen, key=lambda one: abs(one[1] / deviation(one[0]) - 1))
    check(got, deviation(at), f"deviation of the noise where the network is told {at:.4g}", 2e-3)


def own_prediction(
    loss: Callable[[Callable[..., Tensor]], Tensor], x0_of: Tensor, weighted: float
) -> None:
    """AssertionError unless self-conditioning hands on x0, and leaves the target as it is.

    loss: of a network whose every prediction is 1/4; `x0_of` is what that says of x0, and
    `weighted` the loss that such a network has without conditioning.
    """
    told: list[Any] = []

    def network(x: Tensor, t: Any, own: Any = None) -> Tensor:
        told.append(own)
        return torch.full_like(x, 0.25)

    got = float(loss(network))
    handed = [one for one in told if one is not None and bool(one.abs().sum() > 0)]
    assert handed, "the network is never told its own prediction"
    off = float((handed[-1] - x0_of).abs().max())
    mean = float(handed[-1].mean())
    said = f"what the network is told of x0: got {mean:.4g}, expected {float(x0_of.mean()):.4g}"
    assert off < 1e-4 * max(float(x0_of.abs().max()), 1.0), said
    check(got, weighted, "the loss", 1e-3)
