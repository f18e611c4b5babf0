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

from sd import weights
from sd.checkpoint.parameterization import CONFIG_KEY
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
from sd.train.held_out import loss_by_level
from sd.train.own_options import JUDGED, STANDARD, OwnModel
from sd.train.own_start import Start, started
from sd.train.preview import previews
from sd.train.settings import agreed
from sd.train.shard import Shard, joined, left, startable
from sd.train.source import Own
from sd.train.trainer import rounded
from sd.train.vocabulary import digest

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
        with warnings.catch_warnings():
            if not shard.process.main:  # the main process warns
                warnings.simplefilter("ignore")
            start = started(options)

        def prepare() -> None:
            held.enter_context(output_folder.output_folder(options.out))
            held.enter_context(output_folder.locked(options.out, "--out"))

        shard.first(prepare)
        run = _Run(options, start.source, shard, command)
        (_model if options.lora is None else _lora)(run, start)


def _model(run: _Run, start: Start) -> None:
    """Text encoder, autoencoder, U-Net."""
    options, sizes = run.options, run.options.networks
    base, tokenizer = start.base, start.tokenizer
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
    config = sizes.model(start.size, text_encoder.config, autoencoder.config)
    source = run.seeded("unet")
    settings = run.settings("unet", unet.context(config, autoencoder, text_encoder, source))
    if run.ready("unet", settings):
        return
    schedule = named_schedule(config.schedule, config.steps)
    judge = _judge(run, config, tokenizer, text_encoder, autoencoder)
    show = previews(options.out, config, tokenizer, text_encoder, autoencoder, start.prompts)
    chosen: Any = options.stages["unet"]
    given = config, autoencoder, text_encoder, tokenizer, schedule, source, judge
    state = unet.train_unet(chosen, *given, (options.preview_every, show))
    network = rounded(UNet(config.unet), state)
    measure = (lambda: {}) if judge is None else partial(judge, network)
    run.write("unet", network, config.unet, settings, measure, **{CONFIG_KEY: to_json(config)})


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


def _lora(run: _Run, start: Start) -> None:
    """Adapters of the checkpoint's U-Net, in two files."""
    options, source, base = run.options, run.seeded("lora"), start.base
    training, rank = options.stages["lora"], options.lora
    assert isinstance(training, lora.LoRATraining) and rank is not None and base is not None
    base = base._replace(config=replace(base.config, image_size=start.size))
    settings = run.settings("lora", lora.context(base, rank, source))
    files = [options.out / name for name in lora.FILES.values()]
    if all(path.exists() for path in files):
        for path in files:
            agreed(path, settings, "give another --out, or delete the file")
        return
    judge = _judge(run, base.config, base.tokenizer, base.text_encoder, base.vae)
    parts = base.config, base.tokenizer, base.text_encoder, base.vae
    show = previews(options.out, *parts, start.prompts)
    adapters = lora.train_lora(training, rank, base, source, judge, (options.preview_every, show))
    if run.shard.process.main:
        words = {"command": run.command, "settings": json.dumps(settings)}
        for path in lora.save_lora(options.out, adapters, words):
            say(path)
    run.shard.wait()
