"""Contrastive training of the text encoder on captions and images (CLIP)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from sd.command_line.flags import Range
from sd.config import TextConfig, to_json
from sd.networks.text_encoder import TextEncoder
from sd.text.tokenizer import Tokenizer
from sd.train.contrastive_pairs import Pairs
from sd.train.settings import Rate, Share, Size, Steps, Warmup
from sd.train.shard import WHOLE, Shard, joined
from sd.train.source import Shapes, Source
from sd.train.trainer import Training, fit, rounded

Batch = tuple[
    UInt8[Tensor, "batch side side 3"], Int[Tensor, "batch length"], Bool[Tensor, "batch batch"]
]


@dataclass(frozen=True)
class CLIPTraining(Training):
    """Flags of the text encoder's training."""

    prefix = "clip."

    steps: Steps = 2000
    batch_size: Size = 256
    learning_rate: Rate = 1.5e-3
    out: Path = Path("runs/clip")
    warmup: Warmup = 50
    weight_decay: Share = 0.05
    ema: Share = 0.99
    checkpoint_every: Steps = 200
    bfloat16: bool = False
    accumulate: Annotated[int, Range(1, 1)] = 1
    """1: the loss compares all pairs of a batch, so that a batch has no parts."""


class _Residual(nn.Module):
    """x + conv(silu(norm(x))), the side kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        y: Tensor = x + self.conv(F.silu(self.norm(x)))
        return y


class ImageTower(nn.Module):
    """A small convolutional network from a square image to one vector; it is not shipped.

    The last features are flattened, not averaged, so that they distinguish left and right, above
    and below: 4 x 4 of them, or fewer of an image below 64 pixels.
    """

    def __init__(self, width: int, side: int = 64) -> None:
        super().__init__()
        cells = min(4, -(-side // 16))
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.features = nn.Sequential(
            nn.Conv2d(3, 48, 4, stride=4),
            nn.SiLU(),
            nn.Conv2d(48, 96, 3, stride=2, padding=1),
            _Residual(96),
            _Residual(96),
            nn.Conv2d(96, 128, 3, stride=2, padding=1),
            _Residual(128),
            nn.GroupNorm(8, 128),
            nn.SiLU(),
        )
        self.head = nn.Sequential(
            nn.Linear(128 * cells * cells, 512), nn.LayerNorm(512), nn.GELU(), nn.Linear(512, width)
        )

    def forward(self, images: UInt8[Tensor, "batch side side 3"]) -> Float[Tensor, "batch width"]:
        """One vector per image, of arbitrary length."""
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        y: Tensor = self.head(self.pool(self.features(x)).flatten(1))
        return y


class CLIP(nn.Module):
    """The text and image towers, their projections, and the learned temperature."""

    def __init__(self, config: TextConfig, width: int = 128, side: int = 64) -> None:
        super().__init__()
        self.text = TextEncoder(config)
        self.text_projection = nn.Linear(config.width, width, bias=False)
        self.image = ImageTower(width, side)
        self.log_scale = nn.Parameter(torch.tensor(1.0 / 0.07).log())

    def forward(
        self,
        images: UInt8[Tensor, "batch side side 3"],
        tokens: Int[Tensor, "batch length"],
        shard: Shard = WHOLE,
    ) -> Float[Tensor, "all all"]:
        """Similarity of each image (rows) to each prompt (columns): cosines over temperature.

        The rows and columns are of the batch of which the arguments are this process's shard.
        """
        pooled = self.text.pooled(tokens)
        words = F.normalize(self.text_projection(pooled).float(), dim=-1)
        seen = F.normalize(self.image(images).float(), dim=-1)
        words, seen = shard.gathered(words), shard.gathered(seen)
        logits: Tensor = self.log_scale.exp().clamp(max=100.0) * seen @ words.T
        return logits


def info_nce(
    logits: Float[Tensor, "batch batch"], true: Bool[Tensor, "batch batch"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Symmetric InfoNCE of pairs on the diagonal, and the share of rows and columns matched.

    loss = -1/2 mean_i (log softmax_j logits_ij + log softmax_j logits_ji) at j = i. An entry off
    the diagonal whose caption is true of the image is no negative; the sums leave it out.
    Source: Radford et al. 2021, arXiv:2103.00020, figure 3.

    Args:
        logits: entry (i, j) compares image i with caption j.
        true: entry (i, j) is whether caption j is true of image i.
    """
    own = torch.arange(len(logits), device=logits.device)
    twin = true & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    kept = logits.masked_fill(twin, -torch.inf)
    loss = 0.5 * (F.cross_entropy(kept, own) + F.cross_entropy(kept.T, own))
    matched = [(kept.argmax(dim=axis) == own).float().mean() for axis in (0, 1)]
    return loss, torch.stack(matched).mean()


def loss(
    module: nn.Module, batch: Sequence[Tensor], generator: torch.Generator, shard: Shard = WHOLE
) -> dict[str, Tensor]:
    """The figures of one `Batch` (a list from a loader); "loss" is minimised.

    They are of the pairs of all processes, and the same on each.
    """
    images, tokens, true = batch
    value, matched = info_nce(module(images, tokens, shard), true)
    return {"loss": value, "matched": matched}


def batches(tokenizer: Tokenizer, pairs: Callable[[int], Pairs]) -> Callable[[int], Batch]:
    """The batch of each step.

    Args:
        tokenizer: of the captions; long ones are cut.
        pairs: the pairs of each step; images and captions are this process's shard of them, which
            captions are true is of all.
    """

    def batch(step: int) -> Batch:
        found = pairs(step)
        tokens = tokenizer.encode(found.captions, truncate=True)
        return torch.from_numpy(found.images), tokens, torch.from_numpy(found.true)

    return batch


def matching(module: nn.Module, batch: Callable[[int], Batch], count: int = 8) -> dict[str, float]:
    """Mean figures over the first `count` of the batches."""
    sums: dict[str, float] = {}
    training = module.training
    module.eval()
    with torch.no_grad():
        device = next(module.parameters()).device
        for step in range(count):
            images, tokens, true = (x.to(device) for x in batch(step))
            for name, value in loss(module, (images, tokens, true), torch.Generator()).items():
                sums[name] = sums.get(name, 0.0) + float(value) / count
    module.train(training)
    return sums


def train_clip(
    training: CLIPTraining,
    config: TextConfig,
    evaluation: int = 8,
    source: Source | None = None,
    tokenizer: Tokenizer | None = None,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Train or resume; the averaged weights of the text encoder, and figures of both towers.

    The weights are rounded to float16 before the evaluation, which the main process does; the
    others have no figures. The figures are means over `evaluation` batches of `source.judged()`,
    which no training uses.

    Args:
        source: what is learned from; captioned shapes by default.
        tokenizer: of the captions; by default that of the embedded model.
    """
    source = Shapes(training.seed) if source is None else source
    tokenizer = Tokenizer.embedded(config.context_length) if tokenizer is None else tokenizer
    shard = joined(training.cpu)
    torch.manual_seed(training.seed)
    module = CLIP(config, side=source.side)
    module.text.initialize()

    def evaluate(model: nn.Module) -> dict[str, float]:
        figures: dict[str, float] = {}
        for name, pairs in source.judged().items():
            found = matching(model, batches(tokenizer, pairs), evaluation)
            figures.update({f"{name}_{key}": value for key, value in found.items()})
        return figures

    size = training.batch_size
    batch = batches(tokenizer, partial(source.pairs, size=size, own=shard.of(size)))
    settings = context(config, source)
    state = fit(module, batch, partial(loss, shard=shard), training, evaluate, settings)
    rounded(module.cpu(), state)
    return module.text.state_dict(), evaluate(module) if shard.process.main else {}


def context(config: TextConfig, source: Source | None = None) -> dict[str, str]:
    """What changes the text encoder besides the flags of its training."""
    source = source or Shapes()
    data = f"{source.fingerprint} {source.pairing}".strip()
    return {"config": to_json(config), "data": data}
