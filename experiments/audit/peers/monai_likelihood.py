"""The bound on a likelihood that MONAI's inferer evaluates, term by term."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math.testing import (
    assert_bound,
    assert_decoder,
    assert_forward,
    assert_prior_term,
    drawn,
)
from experiments.audit.formula import assert_same
from experiments.audit.peers.monai_parts import (
    BOUND,
    SHORT,
    inferer_of,
    levels_of,
    scheduler_of,
)

F32, QUIET = torch.float32, {"save_intermediates": True, "verbose": False}


def _term(scheduler: Any, **options: Any) -> Callable[..., Tensor]:
    """A term of `get_likelihood`, which evaluates all times of a batch with one noise."""
    bound, given = inferer_of(scheduler).get_likelihood, {**QUIET, **options}

    def term(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        def model(x: Tensor, timesteps: Tensor, context: Any) -> Any:
            found = network(x[:, :4], timesteps)
            learned = scheduler.variance_type == "learned_range"
            return torch.cat([found, -torch.ones_like(found)], 1) if learned else found

        maps = drawn(lambda x: bound(x, model, **given)[1])(x0, noise)
        each = dict(zip(scheduler.timesteps.tolist(), maps, strict=True))
        return torch.stack([each[k][row].sum() for row, k in enumerate(t.tolist())])

    return term


def _prior(scheduler: Any) -> Callable[[Tensor], Tensor]:
    """What `get_likelihood` has but for the last term, with a network that knows x0."""

    def term(x0: Tensor) -> Tensor:
        total, maps = inferer_of(scheduler).get_likelihood(
            x0, lambda x, timesteps, context: x0, **QUIET
        )
        found: Tensor = x0.shape[1] * total - maps[-1].sum(1)
        return found

    return term


def _decoder(low: float, high: float) -> Callable[..., Tensor]:
    """Of data in a range, from [-1, 1]."""

    def log_probability(x0: Tensor, mean: Tensor, log_scales: Tensor) -> Tensor:
        x0, mean = (low + (high - low) / 2 * (one + 1) for one in (x0, mean))
        log_scales = log_scales + math.log((high - low) / 2)
        decode = inferer_of(None)._get_decoder_log_likelihood
        found: Tensor = decode(x0, mean, log_scales, scaled_input_range=(low, high))
        return found

    return log_probability


def likelihood() -> dict[tuple[str, str], Callable[[], None]]:
    def bound(variance: str = "beta~", more: Any = (), **options: Any) -> None:
        scheduler = scheduler_of("DDPMScheduler", **BOUND, **options)
        term = _term(scheduler, **dict(more))
        predicts = {"v_prediction": "v", "sample": "x0"}.get(scheduler.prediction_type, "eps")
        given: dict[str, Any] = {"variance": variance, "predicts": predicts, "dtype": F32}
        assert_bound(term, levels_of(scheduler), range(20), **given)

    def seen() -> None:
        """What the network is given where the scheduler is not that of the inferer."""
        own, scheduler = (scheduler_of("DDPMScheduler", **one) for one in (SHORT, BOUND))

        def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            found = torch.zeros_like(x0)

            def model(x: Tensor, timesteps: Tensor, context: Any) -> Tensor:
                found[t == timesteps] = x[t == timesteps]
                return x

            bound = partial(inferer_of(own).get_likelihood, diffusion_model=model, **QUIET)
            drawn(lambda x: bound(x, scheduler=scheduler))(x0, noise)
            return found

        assert_forward(q_sample, levels_of(scheduler), range(20), dtype=F32)

    def prior() -> None:
        scheduler = scheduler_of("DDPMScheduler", prediction_type="sample", **BOUND)
        alpha, sigma = (float(one) for one in levels_of(scheduler)(19))
        assert_prior_term(_prior(scheduler), alpha, sigma, dtype=F32)

    def clipped() -> None:
        own = {"clip_sample": True, "clip_sample_min": 0.0, "prediction_type": "sample"}
        scheduler = scheduler_of("DDPMScheduler", **BOUND, **own)
        term = _term(scheduler)(
            lambda x, t: torch.full_like(x, -0.5),
            torch.zeros(19, 4),
            torch.arange(1, 20),
            torch.ones(19, 4),
        )
        assert_same("KL of one mean from itself", term, 0)

    def variance() -> None:
        """At the first time beta~ is 0, and beta~ of the second is in its place (DDPM's code)."""
        scheduler = scheduler_of("DDPMScheduler", prediction_type="sample", **BOUND)
        x0, off = torch.full((1, 4), 128 / 255), torch.full((1, 4), 128 / 255 + 0.003)
        own = inferer_of(scheduler)
        maps = own.get_likelihood(x0, lambda x, timesteps, context: off, **QUIET)[1]
        log_scales = scheduler._get_variance(1).log().expand(1, 4) / 2
        wanted = -own._get_decoder_log_likelihood(x0, off, log_scales)
        assert_same("-log p of x0, half a bin and more beside the mean", maps[-1], wanted)

    name = "DiffusionInferer.get_likelihood"
    concat = {"mode": "concat", "conditioning": torch.zeros(19, 4)}
    return {
        (name, "bound"): bound,
        (f"{name}, sample", "bound"): partial(bound, prediction_type="sample"),
        (f"{name}, v_prediction", "bound"): partial(bound, prediction_type="v_prediction"),
        (f"{name}, fixed_large", "bound"): partial(bound, "beta", variance_type="fixed_large"),
        (f"{name}, learned_range", "bound"): partial(bound, variance_type="learned_range"),
        (f"{name}, scheduler=", "forward"): seen,
        (f"{name}, concat", "bound"): lambda: bound(more=concat),
        (f"{name}, clip_sample_min", "bound"): clipped,
        (f"{name}, the first term", "prior term"): prior,
        (f"{name}, the last term, its variance", "decoder"): variance,
        (f"{name}, the last term", "decoder"): lambda: assert_decoder(
            _decoder(-1, 1), tolerance=9e-3
        ),
        (f"{name}, the last term, in [0, 1]", "decoder"): lambda: assert_decoder(
            _decoder(0, 1), tolerance=9e-3
        ),
    }
