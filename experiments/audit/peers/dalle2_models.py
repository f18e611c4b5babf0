"""dalle2-pytorch's decoder and prior, each of one function as a network."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._isolated_import import without

IMAGE = (1, 2, 2)
PREDICTS = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}
Found = dict[tuple[str, str], Callable[[], Any]]
"""What checks each formula, by what is exported and the formula's name."""


def module() -> Any:
    """The module of the diffusions; what they are conditioned and trained by are stand-ins."""
    beside = "torchvision", "kornia", "accelerate", "pytorch_warmup", "fsspec", "ftfy", "regex"
    clips = "x_clip", "coca_pytorch", "open_clip", "clip", "webdataset", "torchmetrics"
    layers = "vector_quantize_pytorch", "rotary_embedding_torch", "resize_right"
    with without(*beside, *clips, *layers, "embedding_reader", "wandb"):
        return driven.quiet(import_module("dalle2_pytorch.dalle2_pytorch"))


def said(predicts: str) -> dict[str, bool]:
    """The library's two options that say what is predicted."""
    return {"predict_x_start": predicts == "pred_x0", "predict_v": predicts == "pred_v"}


def decoder(network: Any, self_cond: bool = False, **options: Any) -> Any:
    """A decoder of one network, without conditions, on images in [-1, 1]."""

    class Net(module().Unet):  # type: ignore[misc]
        """In the place of `Unet`, which it checks for."""

        lowres_cond = cond_on_text_encodings = False

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.weight, self.self_cond = torch.nn.Parameter(torch.zeros(1)), self_cond

        def cast_model_parameters(self, **_: Any) -> Any:
            return self

        def forward(self, x: Tensor, t: Tensor, **named: Any) -> Tensor:
            found: Tensor = network(x, t, named.get("self_cond"))
            return found

        forward_with_cond_scale = forward

    settings = {"image_size": 2, "channels": 1, "timesteps": 50, "learned_variance": False}
    settings |= {"unconditional": True, "auto_normalize_img": False, **options}
    return module().Decoder(Net(), **settings)


def prior(network: Any, size: int = 4, self_cond: bool = False, **options: Any) -> Any:
    """A prior of one network, without conditions."""

    class Net(torch.nn.Module):
        dim, self_cond = size, False

        def forward(self, x: Tensor, t: Tensor, **named: Any) -> Tensor:
            found: Tensor = network(x, t, named.get("self_cond"))
            return found

        forward_with_cond_scale = forward

    net = Net()
    net.self_cond = self_cond
    settings = {"image_embed_dim": size, "timesteps": 50, "condition_on_text_encodings": False}
    return module().DiffusionPrior(net, **{**settings, **options})
