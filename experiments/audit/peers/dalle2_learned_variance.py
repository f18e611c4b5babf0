"""dalle2-pytorch's decoder with a learned variance, and the bound beside its loss."""

from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from diffusion_math.testing import assert_bound, assert_learned_variance
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._lucidrains import check
from experiments.audit.peers.dalle2_models import IMAGE, PREDICTS, Found, decoder, module, said

F32 = torch.float32


def learned(predicts: str, levels: driven.Levels) -> Found:
    """Learned variances: the variance, and the bound beside the loss."""
    kind = {**said(predicts), "image_embed": None, "learned_variance": True}

    def with_variance(v: float, network: Any) -> Any:
        """Another output of the network, everywhere v."""

        def both(x: Tensor, *_: Any) -> Tensor:
            found = network(x.flatten(1)).reshape(x.shape)
            return torch.cat([found, torch.full_like(found, v)], 1)

        return both

    def loss(weight: float, v: float, network: Any, *given: Tensor) -> Tensor:
        thing = decoder(with_variance(v, network), learned_variance=True, vb_loss_weight=weight)
        options = {"noise_scheduler": thing.noise_schedulers[0], **kind}
        x0, t, noise = given
        x0, noise = (each.double().reshape(-1, *IMAGE) for each in (x0, noise))
        return torch.as_tensor(thing.p_losses(thing.unets[0], x0, t, noise=noise, **options))

    def term(v: float, *given: Any) -> Tensor:
        """What the loss adds up, of each example."""
        seen: list[Tensor] = []

        def mean(x: Tensor) -> Tensor:
            seen.append(x.flatten(1).mean(1))
            return seen[-1]

        with mock.patch.object(module(), "meanflat", mean):
            loss(1.0, v, *given)
        return seen[0].float()

    def variance(v: Tensor, t: Tensor) -> Tensor:
        thing, v = decoder(None, learned_variance=True), v.reshape(-1, *IMAGE)
        output = torch.cat([torch.zeros_like(v), v], 1)
        options = {"noise_scheduler": thing.noise_schedulers[0], "model_output": output, **kind}
        return torch.as_tensor(thing.p_mean_variance(None, v, t, **options)[2]).flatten(1)

    def hybrid() -> None:
        given = (lambda x: 0.1 * x), torch.ones(1, 4), torch.tensor([20]), torch.full((1, 4), 0.5)
        default = decoder(None).vb_loss_weight
        none = loss(0.0, 0.0, *given)
        share = (loss(default, 0.0, *given) - none) / (loss(1.0, 0.0, *given) - none)
        check(float(share), 0.001 * 50, "weight of the mean of 50 terms, of 0.001 their sum")

    runs: Found = {
        ("Decoder.p_mean_variance", "learned variance"): lambda: assert_learned_variance(
            variance, levels, range(50), first=1e-20, dtype=F32
        ),
        ("Decoder.p_losses, learned_variance", "loss"): hybrid,
    }
    for v, name in ((1.0, "beta"), (-1.0, "beta~")):
        runs[f"Decoder.p_losses, variance {name}", "bound"] = partial(
            assert_bound,
            partial(term, v),
            levels,
            range(50),
            variance=name,
            predicts=PREDICTS[predicts],
            unit="nats/dim",
            told="nothing",
            dtype=F32,
        )
    return runs
