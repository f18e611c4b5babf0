"""`python -m sd.train --data FOLDER`: a model, or a LoRA, of one's own captioned images.

The trainings are those of the embedded model on another source (`sd.train.source.Own`): text
encoder, autoencoder, U-Net, each from nothing. The first two may be a checkpoint's. With `--lora`
all three are, and adapters of the U-Net are trained.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from sd import loading, weights
from sd.checkpoint.parameterization import CONFIG_KEY
from sd.command_line import flags
from sd.command_line.flags import FlagError
from sd.command_line.terminal import say
from sd.config import AnyConfig, ModelConfig, TextConfig, VAEConfig, to_json
from sd.digest import weights_digest
from sd.files import output_folder
from sd.files.image_tensor import signed
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.noise_schedule import named_schedule
from sd.text.tokenizer import Tokenizer
from sd.train import clip, fsdp, lora, unet, vae
from sd.train.folder import read_folder
from sd.train.held_out import loss_by_level
from sd.train.own_options import JUDGED, SHOWN, STANDARD, OwnModel
from sd.train.preview import previews
from sd.train.settings import agreed, require_fit, require_plain
from sd.train.shard import Shard, joined, left, startable
from sd.train.source import Own
from sd.train.trainer import rounded
from sd.train.vocabulary import digest, vocabulary

__all__ = ["train_own"]


@dataclass(frozen=True)
class _Run:
    """What a run has: options, data, this process's shard, the command line."""

    options: OwnModel
    source: Own
    shard: Shard
    command: str

    def settings(self, name: str, context: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.options.stages[name].settings(), **context}

    def seeded(self, name: str) -> Own:
        """The images in the order of a stage's seed."""
        return replace(self.source, seed=self.options.stages[name].seed)

    def ready(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether a network is there. Raises ValueError if it was made with other settings."""
        path = self.options.file(name)
        if there := path.exists():
            agreed(path, settings, "give another --out, or delete the file")
        return there

    def write(
        self,
        name: str,
        network: nn.Module,
        own: AnyConfig,
        settings: Mapping[str, Any],
        measure: Callable[[], Mapping[str, float]],
        **more: Any,
    ) -> None:
        """Save a network with its settings and figures, on the main process."""
        if self.shard.process.main:
            figures = measure()
            say(f"{self.options.file(name).name} {json.dumps(figures)}")
            weights.save_network(
                self.options.file(name), network, own, command=self.command,
                settings=settings, figures=figures, **more,
            )  # fmt: skip
        self.shard.wait()


def train_own(options: OwnModel, command: str) -> None:
    """Train what is asked for, or resume it; each network is written as soon as it is finished.

    Several processes of one launcher train together (see `fit`). Raises ValueError before any work
    for faults of the flags, the folder or the checkpoint, or settings other than those of a run
    before; else as `fit`.
    """
    options.check()
    shard = joined(any(one.cpu for one in options.stages.values()))
    with ExitStack() as held:
        held.callback(left)
        startable(list(options.stages.values()), shard.process.count)
        if fsdp.asked():
            raise ValueError("the configuration of accelerate asks for FSDP, which --data has not")
        base = None
        if options.lora is not None and options.size is None:
            base = _loaded(options)  # its size is that of the images
        size = options.size or (64 if base is None else base.config.image_size)
        with warnings.catch_warnings():
            if not shard.process.main:  # the main process warns
                warnings.simplefilter("ignore")
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

        def prepare() -> None:
            held.enter_context(output_folder.output_folder(options.out))
            held.enter_context(output_folder.locked(options.out, "--out"))

        shard.first(prepare)
        run = _Run(options, source, shard, command)
        if options.lora is not None and base is not None:
            _lora(run, base, size)
        else:
            _model(run, base, size)


def _loaded(options: OwnModel) -> loading.Parts:
    """The model of `--checkpoint`, in float32 on the CPU. Raises FlagError if it is distilled."""
    base = loading.load_model(str(options.checkpoint), torch.device("cpu"), torch.float32)
    require_plain(base.config, options.checkpoint)
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
        config = sizes.model(size, text, autoencoder)
    except FlagError:
        raise
    except ValueError as error:
        raise FlagError(f"--networks: {error}") from error
    require_fit(options.vae, VAE, config.vae)
    require_fit(options.unet, UNet, config.unet)


def _model(run: _Run, base: loading.Parts | None, size: int) -> None:
    """Text encoder, autoencoder, U-Net."""
    options, sizes = run.options, run.options.networks
    tokenizer = _tokenizer(run, base)
    if "text_encoder" in options.taken and base is not None:
        text_encoder = _take(run, "text_encoder", base.text_encoder, base.config.text)
        _keep(run, tokenizer)
    else:
        own, source = sizes.text(tokenizer), run.seeded("text_encoder")
        context = {**clip.context(own, source), "vocabulary": digest(tokenizer)}
        settings = run.settings("text_encoder", context)
        ready = run.ready("text_encoder", settings)
        _keep(run, tokenizer)  # after the line before, which refuses to change a finished model
        if not ready:
            training: Any = options.stages["text_encoder"]
            state, figures = clip.train_clip(training, own, 1, source, tokenizer)
            run.write("text_encoder", rounded(TextEncoder(own), state), own, settings,
                      lambda: figures)  # fmt: skip
        text_encoder = weights.load_network(options.file("text_encoder"), TextEncoder, TextConfig)
    if "vae" in options.taken and base is not None:
        autoencoder = _take(run, "vae", base.vae, base.config.vae)
    else:
        autoencoder = _vae(run, sizes.autoencoder())
    config = sizes.model(size, text_encoder.config, autoencoder.config)
    source = run.seeded("unet")
    settings = run.settings("unet", unet.context(config, autoencoder, text_encoder, source))
    if run.ready("unet", settings):
        return
    schedule = named_schedule(config.schedule, config.steps)
    judge = _judge(run, config, tokenizer, text_encoder, autoencoder)
    show = previews(options.out, config, tokenizer, text_encoder, autoencoder, _prompts(run))
    chosen: Any = options.stages["unet"]
    given = config, autoencoder, text_encoder, tokenizer, schedule, source, judge
    state = unet.train_unet(chosen, *given, (options.preview_every, show))
    network = rounded(UNet(config.unet), state)
    measure = (lambda: {}) if judge is None else partial(judge, network)
    run.write("unet", network, config.unet, settings, measure, **{CONFIG_KEY: to_json(config)})


def _tokenizer(run: _Run, base: loading.Parts | None) -> Tokenizer:
    """The checkpoint's, or one learned from the captions."""
    if "text_encoder" in run.options.taken and base is not None:
        return base.tokenizer
    return vocabulary(run.source, run.options.networks.merges)


def _keep(run: _Run, tokenizer: Tokenizer) -> None:
    """Write `tokenizer.json` of the folder."""
    if run.shard.process.main:
        path = run.options.out / "tokenizer.json"
        output_folder.write_file(path, tokenizer.to_json().encode())
    run.shard.wait()


def _take(run: _Run, name: str, network: Any, own: AnyConfig) -> Any:
    """A network of the checkpoint, written to the folder with every weight as it is."""
    options = run.options
    kind, settings_kind = {"vae": (VAE, VAEConfig), "text_encoder": (TextEncoder, TextConfig)}[name]
    settings = {"taken": weights_digest(network.state_dict().items())}
    if not run.ready(name, settings):
        run.write(name, network, own, settings, dict, dtype=weights.exact_dtype(network))
    return weights.load_network(options.file(name), kind, settings_kind)


def _vae(run: _Run, own: VAEConfig) -> VAE:
    """The trained autoencoder, its latents standardised."""
    options, source = run.options, run.seeded("vae")
    settings = run.settings("vae", vae.context(own, source))
    if not run.ready("vae", settings):
        trained = VAE(own)
        training: Any = options.stages["vae"]
        trained.load_state_dict(vae.train_vae(training, own, source))
        if not training.decoder_only:
            count = min(STANDARD, source.count)
            some = np.linspace(0, source.count - 1, count).round().astype(int)
            vae.standardise(trained, source.images(some.tolist()))
        trained = rounded(trained, trained.state_dict())
        fresh = source.fresh(JUDGED)

        @torch.no_grad()
        def measure() -> dict[str, float]:
            if len(fresh) == 0:
                return {}
            each = torch.cat([vae.psnr(trained, some) for some in fresh.split(50)])
            return {"held_out": float(len(fresh)), "psnr_db": float(each.mean())}

        run.write("vae", trained, own, settings, measure)
    return weights.load_network(options.file("vae"), VAE, VAEConfig)


def _judge(
    run: _Run, config: ModelConfig, tokenizer: Tokenizer, text_encoder: TextEncoder, own: VAE
) -> Callable[[nn.Module], dict[str, float]] | None:
    """The held-out loss of a U-Net, or None without held-out images."""
    source = run.source
    places = source.held_out[:JUDGED]
    if not places:
        return None
    said = [source.folder.captions[place][0] for place in places]
    with torch.no_grad():
        some = source.fresh(JUDGED).split(50)
        x0 = torch.cat([own.encode(signed(one)).mean.cpu() for one in some])
        context = text_encoder(tokenizer.encode(said, truncate=True))
    schedule = named_schedule(config.schedule, config.steps, config.zero_terminal_snr)

    def judge(network: nn.Module) -> dict[str, float]:
        device = next(network.parameters()).device
        levels = loss_by_level(
            network, schedule, config.prediction, x0.to(device), context.to(device)
        )
        return {"held_out_loss": sum(value for _, value in levels) / len(levels)}

    return judge


def _prompts(run: _Run) -> list[str]:
    """The prompts of the previews: those of the flag, or held-out captions, or others."""
    source = run.source
    places = (source.held_out + source.trained)[:SHOWN]
    return list(run.options.prompts) or [source.folder.captions[place][0] for place in places]


def _lora(run: _Run, base: loading.Parts, size: int) -> None:
    """Adapters of the checkpoint's U-Net, in two files."""
    options, source = run.options, run.seeded("lora")
    base = base._replace(config=replace(base.config, image_size=size))
    training, rank = options.stages["lora"], options.lora
    assert isinstance(training, lora.LoRATraining) and rank is not None
    settings = run.settings("lora", lora.context(base, rank, source))
    files = [options.out / name for name in lora.FILES.values()]
    if all(path.exists() for path in files):
        for path in files:
            agreed(path, settings, "give another --out, or delete the file")
        return
    judge = _judge(run, base.config, base.tokenizer, base.text_encoder, base.vae)
    parts = base.config, base.tokenizer, base.text_encoder, base.vae
    show = previews(options.out, *parts, _prompts(run))
    adapters = lora.train_lora(training, rank, base, source, judge, (options.preview_every, show))
    if run.shard.process.main:
        words = {"command": run.command, "settings": json.dumps(settings)}
        for path in lora.save_lora(options.out, adapters, words):
            say(path)
    run.shard.wait()
