"""What a training on one's own images begins with, checked before any work."""

import warnings
from dataclasses import dataclass

import torch

from sd import loading
from sd.command_line import flags
from sd.command_line.flags import FlagError
from sd.config import SHAPES_CONFIG, ModelConfig, TextConfig
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.text.tokenizer import Tokenizer
from sd.train import lora
from sd.train.folder import read_folder
from sd.train.own_options import SHOWN, OwnModel
from sd.train.preview import Prompts, of_captions, of_flag
from sd.train.settings import require_fit, require_plain
from sd.train.source import Own
from sd.train.vocabulary import vocabulary, warn_captions

__all__ = ["Start", "started"]


@dataclass(frozen=True)
class Start:
    """What a training begins with.

    Attributes:
        source: the images.
        size: their height and width in pixels.
        base: the model of `--checkpoint`, in float32 on the CPU.
        tokenizer: the checkpoint's, or one that is learned from the captions.
        prompts: of the previews.
    """

    source: Own
    size: int
    base: loading.Parts | None
    tokenizer: Tokenizer
    prompts: Prompts


def started(options: OwnModel) -> Start:
    """Read the folder and the checkpoint.

    Warns about captions that are cut, or are other words as prompts, and if no image is held out.
    Raises ValueError for a faulty folder or checkpoint, and for flags that do not fit them.
    """
    base = None
    if options.lora is not None and options.size is None:
        base = _loaded(options)  # its size is that of the images
    size = options.size or (64 if base is None else base.config.image_size)
    folder = read_folder(options.data, size)
    source = Own(folder, options.held_out, options.flip)
    if source.count < 1:
        flags.refuse(options, "held_out", "a share that leaves images to learn from")
    if options.held_out > 0 and not source.held_out:
        said = f"--held-out {options.held_out:g} of {len(folder.names)} images is none"
        warnings.warn(f"{said}: nothing is evaluated", stacklevel=2)
    if base is None and options.checkpoint is not None:  # after the folder: it may take long
        base = _loaded(options)
    _sized(options, size, base)
    taken = base is not None and (options.lora is not None or "text_encoder" in options.taken)
    if base is not None and taken:
        tokenizer = base.tokenizer
    else:
        tokenizer = vocabulary(source, options.networks.merges)
    warn_captions([text for some in folder.captions for text in some], tokenizer)
    config = SHAPES_CONFIG if base is None or options.lora is None else base.config
    if options.prompts:
        prompts = of_flag(options.prompts, tokenizer, config)
    else:
        places = (source.held_out + source.trained)[:SHOWN]
        prompts = of_captions([folder.captions[place][0] for place in places])
    return Start(source, size, base, tokenizer, prompts)


def _loaded(options: OwnModel) -> loading.Parts:
    """The model of `--checkpoint`, in float32 on the CPU.

    Raises FlagError for one that is distilled, and for one that no LoRA is trained on.
    """
    given = loading.arguments(options.loading)
    cpu = torch.device("cpu")
    try:
        base = loading.load_model(str(options.checkpoint), cpu, torch.float32, **given)
    except ValueError as error:
        raise FlagError(flags.by_flag(options.loading, str(error))) from error
    require_plain(base.config, options.checkpoint)
    if options.lora is not None and base.config.reads_mask:
        inputs = f"an inpainting model ({base.config.unet.in_channels} input channels)"
        flags.refuse(options, "checkpoint", f"a text-to-image model with --lora, not {inputs}")
    return base


def _sized(options: OwnModel, size: int, base: loading.Parts | None) -> None:
    """Raise FlagError unless the networks can be made, and halve the size as often as they do.

    Raises ValueError for initial weights that do not fit.
    """
    sizes, rank = options.networks, options.lora
    try:
        own = base is None or (rank is None and "vae" not in options.taken)
        autoencoder = sizes.autoencoder() if own or base is None else base.vae.config
        adapted = base if rank is not None else None
        levels = sizes.unet_channels if adapted is None else adapted.config.unet.channels
        step = autoencoder.factor * 2 ** (len(levels) - 1)
        if size % step:
            said = f"a multiple of {step}, which the VAE and the U-Net halve, got {size}"
            raise FlagError(f"--size: wanted {said}")
        if adapted is not None and rank is not None:
            if rank > (most := lora.largest_rank(adapted.unet)):
                said = f"at most {most}, the width of the narrowest layer"
                raise FlagError(f"--lora: wanted {said}, got {rank}")
            return
        text = base.config.text if "text_encoder" in options.taken and base else None
        text = text or TextConfig(
            width=sizes.text_width, heads=sizes.heads, layers=sizes.text_layers
        )
        config: ModelConfig = sizes.model(size, text, autoencoder)
    except FlagError:
        raise
    except ValueError as error:
        raise FlagError(f"--networks: {error}") from error
    require_fit(options.vae, VAE, config.vae)
    require_fit(options.unet, UNet, config.unet)
