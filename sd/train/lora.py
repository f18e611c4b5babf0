"""Low-rank adapters (LoRA) of a U-Net: trained beside its frozen weights, written in two namings.

    W' = W + (alpha / r) B A,    A: r x inputs, random;    B: outputs x r, zero at first

Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sd.checkpoint.lora_config import METADATA
from sd.command_line.flags import Range
from sd.config import to_json
from sd.digest import weights_digest
from sd.files import output_folder
from sd.loading import Parts
from sd.noise_schedule import named_schedule
from sd.train.settings import Rate, Share, Size, Steps, Training, Warmup
from sd.train.shard import joined
from sd.train.source import Source
from sd.train.trainer import Preview, fit
from sd.train.unet import captioned_latents, device_of, encode, unet_loss
from sd.train.unet import context as unet_context
from sd.train.vocabulary import digest

__all__ = ["FILES", "Adapters", "LoRATraining", "context", "save_lora", "train_lora"]

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers of attention that are adapted, as kohya's and diffusers' trainers choose."""

FILES = {"kohya": "lora_kohya.safetensors", "diffusers": "pytorch_lora_weights.safetensors"}
"""The name of the file in each naming; diffusers finds its own in a folder."""


@dataclass(frozen=True)
class LoRATraining(Training):
    """Flags of the training of adapters."""

    prefix = "adapter."

    steps: Steps = 1000
    batch_size: Size = 4
    learning_rate: Rate = 1e-4
    out: Path = Path("runs/lora")
    warmup: Warmup = 50
    alpha: Annotated[float | None, Range(0, 1e6, above=True)] = None
    """The update is scaled by alpha / rank; default: the rank, a scale of 1."""
    drop: Share = 0.1
    """Probability that the empty prompt replaces the caption."""


def _adapted(unet: nn.Module) -> dict[str, nn.Linear]:
    """The layers that are adapted, by name."""
    return {
        name: layer
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Linear) and name.endswith(TARGETS)
    }


def largest_rank(unet: nn.Module) -> int:
    """The width of the narrowest adapted layer."""
    return min(min(layer.weight.shape) for layer in _adapted(unet).values())


class Adapters(nn.Module):
    """The factors of the update of each attention layer of a U-Net.

    Attributes:
        layers: the names of the adapted layers.
        scale: alpha / r.
    """

    def __init__(self, unet: nn.Module, rank: int, alpha: float) -> None:
        """Factors for the attention layers: A uniform as a linear layer's, B zero.

        Raises ValueError if a layer is narrower than the rank.
        """
        super().__init__()
        found = _adapted(unet)
        narrow = largest_rank(unet)
        if rank > narrow:
            raise ValueError(f"rank: wanted at most {narrow}, the narrowest layer's, got {rank}")
        self.layers = tuple(found)
        self.rank, self.alpha = rank, alpha
        self.down = nn.ModuleList(
            nn.Linear(layer.in_features, rank, bias=False) for layer in found.values()
        )
        self.up = nn.ModuleList(
            nn.Linear(rank, layer.out_features, bias=False) for layer in found.values()
        )
        for up in self.up:
            nn.init.zeros_(up.weight)

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def factors(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each layer's name, A and B."""
        for name, down, up in zip(self.layers, self.down, self.up, strict=True):
            yield name, down.weight, up.weight

    @contextmanager
    def attached(self, unet: nn.Module) -> Iterator[None]:
        """Add the updates to the outputs of the U-Net's layers."""

        def adding(down: nn.Module, up: nn.Module) -> Callable[..., Tensor]:
            return lambda _, given, output: output + self.scale * up(down(given[0]))

        hooks = [
            unet.get_submodule(name).register_forward_hook(adding(down, up))
            for name, down, up in zip(self.layers, self.down, self.up, strict=True)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def train_lora(
    training: LoRATraining,
    rank: int,
    base: Parts,
    source: Source,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    preview: Preview | None = None,
) -> Adapters:
    """Train adapters of a model's U-Net by the loss of the U-Net; they have the averaged weights.

    Args:
        training: the settings.
        rank: r.
        base: the model; nothing of it changes.
        source: what is learned from.
        evaluate, preview: see `fit`; they are given the U-Net with the adapters attached.
    """
    training.check()
    shard = joined(training.cpu)
    where = device_of(training)
    latent = encode(base.vae, source, where, shard=shard)
    network = base.unet.to(where).requires_grad_(False).eval()
    torch.manual_seed(training.seed)
    adapters = Adapters(network, rank, float(training.alpha or rank))
    examples = captioned_latents(training, source, latent, base.text_encoder, base.tokenizer, shard)
    config = base.config
    schedule = named_schedule(config.schedule, config.steps, config.zero_terminal_snr)
    own_loss = unet_loss(schedule, config.prediction, shard)

    def loss(module: Adapters, *given: Any, **part: Any) -> dict[str, Tensor]:
        with module.attached(network):
            return own_loss(network, *given, **part)

    def judge(module: Any) -> dict[str, float]:
        with module.attached(network):
            return evaluate(network) if evaluate is not None else {}

    def show(module: Any, step: int) -> None:
        with module.attached(network):
            preview[1](network, step) if preview is not None else None

    state = fit(
        adapters,
        lambda step: examples(step)[1:],
        loss,
        training,
        None if evaluate is None else judge,
        context(base, rank, source),
        None if preview is None else (preview[0], show),
    )
    adapters.cpu().load_state_dict(state)
    return adapters


def context(base: Parts, rank: int, source: Source) -> dict[str, str]:
    """What changes the adapters besides the flags of their training."""
    networks = base.config, base.vae, base.text_encoder, source
    own = weights_digest(base.unet.state_dict().items())
    words = digest(base.tokenizer)
    return {
        **unet_context(*networks),
        "model": to_json(base.config),
        "vocabulary": words,
        "unet": own,
        "--lora": str(rank),
    }


def save_lora(folder: Path, adapters: Adapters, metadata: Mapping[str, str]) -> list[Path]:
    """Write the adapters as two files, in kohya's and in diffusers' (peft's) naming.

    Each is whole or not at all. `sd.checkpoint.lora.merge` reads both, and gives the same weights.

    Args:
        folder: it exists.
        adapters: the factors, written in float32.
        metadata: further words for both files.
    """
    rank, alpha = adapters.rank, adapters.alpha
    kohya: dict[str, Tensor] = {}
    diffusers: dict[str, Tensor] = {}
    for name, down, up in adapters.factors():
        down, up = (x.detach().to("cpu", torch.float32).contiguous() for x in (down, up))
        stem = f"lora_unet_{name.replace('.', '_')}"
        kohya |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up.clone()}
        kohya[f"{stem}.alpha"] = torch.tensor(alpha, device="cpu")
        diffusers |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    peft = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": list(TARGETS)}
    own = {
        "kohya": {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(rank),
            "ss_network_alpha": str(alpha),
        },
        "diffusers": {METADATA: json.dumps({f"unet.{k}": v for k, v in peft.items()})},
    }
    written = []
    for naming, tensors in (("kohya", kohya), ("diffusers", diffusers)):
        written.append(folder / FILES[naming])
        output_folder.write_file(written[-1], save(tensors, {**metadata, **own[naming]}))
    return written
