"""MONAI's inferer: the bound of a likelihood term by term, and guidance."""

import math
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from diffusion_math.testing import (
    assert_bound,
    assert_decoder,
    assert_forward,
    assert_guidance,
    assert_prior_term,
    drawn,
)

F32, SHORT = torch.float32, {"num_train_timesteps": 100, "beta_start": 1e-3, "beta_end": 0.2}
BOUND = {"num_train_timesteps": 20, "beta_end": 0.2}
"""A short table, all of whose terms a bound evaluates at once."""
QUIET = {"save_intermediates": True, "verbose": False}


def make_scheduler(kind: str, **options: Any) -> Any:
    """One of MONAI's, which does not clip unless it is asked to."""
    clip = {"clip_sample": False} if kind in ("DDPMScheduler", "DDIMScheduler") else {}
    return getattr(import_module("monai.networks.schedulers"), kind)(**{**clip, **options})


def make_inferer(scheduler: Any) -> Any:
    """What samples and bounds a likelihood with a scheduler."""
    return import_module("monai.inferers").DiffusionInferer(scheduler)


def levels_of(scheduler: Any) -> Callable[[Any], tuple[Tensor, Tensor]]:
    """(alpha, sigma) of its table, in float64."""
    abar = scheduler.alphas_cumprod.double()
    return lambda t: (abar[t] ** 0.5, (1 - abar[t]) ** 0.5)


def agree(name: str, got: Any, wanted: Any) -> None:
    """What two ways of the library say of one thing."""
    worst = float((torch.as_tensor(got).double() - torch.as_tensor(wanted)).abs().max())
    assert worst < 1e-4, f"{name}: differs by {worst:.4g}"


def _term(scheduler: Any, **options: Any) -> Callable[..., Tensor]:
    """A term of `get_likelihood`, which evaluates all times of a batch with one noise."""
    bound, given = make_inferer(scheduler).get_likelihood, {**QUIET, **options}

    def term(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        def model(x: Tensor, timesteps: Tensor, context: Any) -> Any:
            return network(x[:, :4], timesteps)

        maps = drawn(lambda x: bound(x, model, **given)[1])(x0, noise)
        each = dict(zip(scheduler.timesteps.tolist(), maps, strict=True))
        return torch.stack([each[k][row].sum() for row, k in enumerate(t.tolist())])

    return term


def _prior(scheduler: Any) -> Callable[[Tensor], Tensor]:
    """What `get_likelihood` has but for the last term, with a network that knows x0."""

    def term(x0: Tensor) -> Tensor:
        total, maps = make_inferer(scheduler).get_likelihood(
            x0, lambda x, timesteps, context: x0, **QUIET
        )
        terms: Tensor = x0.shape[1] * total - maps[-1].sum(1)
        return terms

    return term


def _decoder(low: float, high: float) -> Callable[..., Tensor]:
    """Of data in a range, from [-1, 1]."""

    def log_probability(x0: Tensor, mean: Tensor, log_scales: Tensor) -> Tensor:
        x0, mean = (low + (high - low) / 2 * (one + 1) for one in (x0, mean))
        log_scales = log_scales + math.log((high - low) / 2)
        decode = make_inferer(None)._get_decoder_log_likelihood
        found: Tensor = decode(x0, mean, log_scales, scaled_input_range=(low, high))
        return found

    return log_probability


def _guided(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
    """The velocity of one whole step from 0."""
    scheduler = make_scheduler("RFlowScheduler")
    scheduler.set_timesteps(1)

    def network(x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        return torch.where(context < 0, torch.cat([uncond] * 2), torch.cat([cond] * 2))

    said = torch.ones(len(cond), 1)
    found: Tensor = make_inferer(scheduler).sample(
        torch.zeros_like(cond), network, conditioning=said, cfg=w, verbose=False
    )
    return found


def likelihoods() -> dict[tuple[str, str], Callable[[], None]]:
    """Each option of `get_likelihood`, each term, and guidance, with what checks it."""

    def bound(variance: str = "beta~", more: Any = (), **options: Any) -> None:
        scheduler = make_scheduler("DDPMScheduler", **BOUND, **options)
        term = _term(scheduler, **dict(more))
        predicts = {"v_prediction": "v", "sample": "x0"}.get(scheduler.prediction_type, "eps")
        levels, times = levels_of(scheduler), range(20)
        assert_bound(term, levels, times, variance=variance, predicts=predicts, dtype=F32)

    def seen() -> None:
        """What the network is given where the scheduler is not that of the inferer."""
        own, scheduler = (make_scheduler("DDPMScheduler", **one) for one in (SHORT, BOUND))

        def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            found = torch.zeros_like(x0)

            def model(x: Tensor, timesteps: Tensor, context: Any) -> Tensor:
                found[t == timesteps] = x[t == timesteps]
                return x

            bound = partial(make_inferer(own).get_likelihood, diffusion_model=model, **QUIET)
            drawn(lambda x: bound(x, scheduler=scheduler))(x0, noise)
            return found

        assert_forward(q_sample, levels_of(scheduler), range(20), dtype=F32)

    def prior() -> None:
        scheduler = make_scheduler("DDPMScheduler", prediction_type="sample", **BOUND)
        alpha, sigma = (float(one) for one in levels_of(scheduler)(19))
        assert_prior_term(_prior(scheduler), alpha, sigma, dtype=F32)

    def clipped() -> None:
        own = {"clip_sample": True, "clip_sample_min": 0.0, "prediction_type": "sample"}
        scheduler = make_scheduler("DDPMScheduler", **BOUND, **own)
        term = _term(scheduler)(
            lambda x, t: torch.full_like(x, -0.5),
            torch.zeros(19, 4),
            torch.arange(1, 20),
            torch.ones(19, 4),
        )
        agree("KL of one mean from itself", term, 0)

    name = "DiffusionInferer.get_likelihood"
    concat = {"mode": "concat", "conditioning": torch.zeros(19, 4)}
    return {
        (name, "bound"): bound,
        (f"{name}, sample", "bound"): partial(bound, prediction_type="sample"),
        (f"{name}, v_prediction", "bound"): partial(bound, prediction_type="v_prediction"),
        (f"{name}, fixed_large", "bound"): partial(bound, "beta", variance_type="fixed_large"),
        (f"{name}, scheduler=", "forward"): seen,
        (f"{name}, concat", "bound"): lambda: bound(more=concat),
        (f"{name}, clip_sample_min", "bound"): clipped,
        (f"{name}, the first term", "prior term"): prior,
        (f"{name}, the last term", "decoder"): lambda: assert_decoder(
            _decoder(-1, 1), tolerance=9e-3
        ),
        (f"{name}, the last term, in [0, 1]", "decoder"): lambda: assert_decoder(
            _decoder(0, 1), tolerance=9e-3
        ),
        ("DiffusionInferer.sample, cfg", "guidance"): lambda: assert_guidance(_guided),
    }
