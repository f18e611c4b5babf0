"""Runs the evaluation: losses and reconstructions of held-out images, and generated images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from experiments import plots
from experiments.common.model import draw, load, require_plain
from experiments.evaluate import Config
from experiments.evaluate.measure import features, frechet_distance, kernel_distance, nearest
from experiments.evaluate.training import of_training, trained_side
from experiments.output.result import MEASURED, Figure, Measurement, Result
from experiments.plots.charts import Axis, Chart, Series, side_by_side
from experiments.plots.gallery import image_rows
from sd.command_line.flags import refuse
from sd.files.image_tensor import signed
from sd.pipeline import TextToImage
from sd.shapes.data import FRESH, example
from sd.text.prompt import literal
from sd.train.folder import read_folder
from sd.train.held_out import loss_by_level
from sd.train.source import Own
from sd.train.vae import psnr
from sd.train.vocabulary import captions_told, warn_captions

SHOWN = 8
LEAST = 4
"""Images of a kind without which nothing can be compared."""
SHAPES = 1000
"""Captioned shapes of the training to which generated images are compared."""


def run(config: Config, pipeline: TextToImage | None = None) -> Result:
    model = pipeline or load(config.model)
    require_plain(model, "it does not predict E[x_0 | x_t]")
    if model.config.reads_mask:
        refuse(config.model, "weights", "a text-to-image model, not one for inpainting")
    side = trained_side(config, model.config.image_size)
    model = replace(model, config=replace(model.config, image_size=side))
    known = captioned(config, side)
    images = {name: one.images for name, one in known.items() if name != "all"}
    held = known["held-out"].captions
    warn_captions(list(dict.fromkeys([*held, *known["all"].captions])), model.tokenizer)
    losses = {name: _losses(model, known[name]) for name in ("held-out", "training")}
    prompts = [literal(held[i % len(held)]) for i in range(config.count)]
    seeds = range(config.seed, config.seed + config.count)
    call = {"solver": "dpmpp_2m", "steps": config.steps, "guidance_scale": config.guidance_scale}
    call["long_prompt"] = "truncate"  # as the training does
    with tqdm(total=config.count, unit="image", disable=None) as bar, captions_told():
        drawn = draw(model, prompts, seeds, bar, **call)
    images["generated"] = _stack([np.asarray(one) for one in drawn])
    everything = known["all"].images
    rows = [*_loss_rows(losses), _psnr_row(model, images["held-out"]), *_set_rows(model, images)]
    near = {name: nearest(images[name], everything) for name in ("generated", "held-out")}
    rows += [
        _measured(
            f"nearest-{name}",
            f"Median distance of {len(images[name])} {name} images to the nearest of "
            f"{len(everything)} training images, root mean squared difference of pixels (0 to 255)",
            float(distance.median()),
        )
        for name, (distance, _) in near.items()
    ]
    figures = (
        _loss_figure(losses),
        _nearest_figure(images["generated"], everything, *near["generated"]),
    )
    data: dict[str, Any] = {
        "settings": config,
        "loss_by_time": losses,
        "nearest": {name: distance.tolist() for name, (distance, _) in near.items()},
    }
    return Result("evaluate", "Evaluation on held-out images", tuple(rows), figures, data)


@dataclass(frozen=True)
class Captioned:
    """Images `(n, 3, side, side)` of uint8, and a caption of each."""

    images: Tensor
    captions: Sequence[str]


def captioned(config: Config, side: int) -> dict[str, Captioned]:
    """At most `count` images "held-out" and in "training"; and "all" of the training.

    Raises ValueError for a faulty folder, or one with too few images on a side.
    """
    if config.data is None:
        parts = {"held-out": (FRESH, 950_000), "training": (0, 0)}  # clear of what others judge
        found = {
            name: _of_shapes(seed, range(first, first + config.count))
            for name, (seed, first) in parts.items()
        }
        return found | {"all": _of_shapes(0, range(SHAPES))}
    folder = read_folder(config.data, side, size="the model's")
    source = of_training(config, Own(folder, config.held_out))
    places = {"held-out": source.held_out, "training": source.trained}
    if min(map(len, places.values())) < LEAST:
        got = " and ".join(f"{len(some)} {name}" for name, some in places.items())
        raise ValueError(f"held_out: wanted {LEAST} or more images on both sides, got {got}")
    sets = {name: some[: config.count] for name, some in places.items()}
    found = {
        name: Captioned(
            _stack([folder.image(place) for place in some]),
            [folder.captions[place][0] for place in some],
        )
        for name, some in sets.items()
    }
    return found | {"all": _everything(source)}


def _everything(source: Own) -> Captioned:
    """All images of the training, mirrored ones among them, and their captions."""
    said = [source.folder.captions[place][0] for place in source.trained]
    images = source.images(range(source.count))
    return Captioned(images, said * (len(images) // len(said)))


def _of_shapes(seed: int, indices: range) -> Captioned:
    found = [example(seed, index) for index in indices]
    return Captioned(_stack([one.image for one in found]), [one.caption for one in found])


def _stack(images: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def _losses(model: TextToImage, known: Captioned) -> list[tuple[int, float]]:
    """The loss at each time, of latents and captions."""
    images, said = known.images, known.captions
    where, dtype = model.device, model.dtype
    means = [model.vae.encode(signed(one).to(where, dtype)).mean for one in images.split(50)]
    with captions_told():
        context = model.encode_prompts(list(map(literal, said)), "truncate")  # as is sampled
    x0 = torch.cat(means).float().cpu()

    def network(x: Tensor, time: Tensor, words: Tensor) -> Tensor:
        given = x.to(where, dtype), time.to(where), words.to(where)
        predicted: Tensor = model.unet(*given)
        return predicted.float().cpu()

    return loss_by_level(network, model.schedule, model.config.prediction, x0, context.cpu())


def _measured(
    name: str, claim: str, value: float, interval: tuple[float, float] | None = None
) -> Measurement:
    return Measurement(name, claim, value, interval, MEASURED)


def _loss_rows(losses: dict[str, list[tuple[int, float]]]) -> list[Measurement]:
    return [
        _measured(
            f"loss-{name}",
            f"Mean loss per entry over {len(levels)} noise levels, {name} images",
            sum(value for _, value in levels) / len(levels),
        )
        for name, levels in losses.items()
    ]


@torch.no_grad()
def _psnr_row(model: TextToImage, images: Tensor) -> Measurement:
    each = torch.cat([psnr(model.vae, one.to(model.device)).cpu() for one in images.split(50)])
    error = 1.96 * float(each.std()) / len(each) ** 0.5
    mean = float(each.mean())
    claim = f"PSNR in dB of the VAE's reconstruction, mean over {len(each)} held-out images"
    return _measured("reconstruction", claim, mean, (mean - error, mean + error))


def _set_rows(model: TextToImage, images: dict[str, Tensor]) -> list[Measurement]:
    """FID and KID of generated and of training images against held-out ones."""
    seen = {name: features(model.vae, one.to(model.device)).cpu() for name, one in images.items()}
    rows = []
    for name in ("generated", "training"):
        count = min(len(seen[name]), len(seen["held-out"]))
        x, y = seen[name][:count], seen["held-out"][:count]
        sets = f"{count} {name} images against {count} held-out ones, by means of this VAE"
        rows.append(_measured(f"fid-{name}", f"FID of {sets}", frechet_distance(x, y)))
        value, error = kernel_distance(x, y)
        ends = value - 1.96 * error, value + 1.96 * error
        rows.append(_measured(f"kid-{name}", f"KID of {sets}", value, ends))
    return rows


def _loss_figure(losses: dict[str, list[tuple[int, float]]]) -> Figure:
    series = tuple(
        Series(name, [t for t, _ in levels], [value for _, value in levels])
        for name, levels in losses.items()
    )
    chart = Chart("Loss by noise level", Axis("time t (1: data, T: noise)"), Axis("loss"), series)
    return Figure(
        "loss-by-level.png",
        plots.png(side_by_side([chart])),
        "The loss per entry of held-out and of training images against the time. A gap between the "
        "curves is overfitting.",
        "Two curves of the loss against the time.",
    )


def _nearest_figure(drawn: Tensor, trained: Tensor, distance: Tensor, index: Tensor) -> Figure:
    """The generated images that lie nearest to a training image."""
    order = distance.argsort()[:SHOWN]
    rows = [drawn[order], trained[index[order]]]
    shown = [list(one.permute(0, 2, 3, 1).numpy()) for one in rows]
    columns = [f"{float(distance[i]):.0f}" for i in order]
    names = ["generated", "nearest in\nthe training"]
    return Figure(
        "nearest.png",
        plots.png(image_rows(shown, names, columns)),
        "Of all generated images those nearest to a training image (above), and it (below), with "
        "the root mean squared difference of pixels. Equal pairs are memorised.",
        "Two rows of images: generated, and their nearest training images.",
    )
