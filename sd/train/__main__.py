"""`python -m sd.train`: train the embedded model from nothing, in the lecture's order.

First the text encoder, contrastively with images (C30); then the autoencoder (C31); then, with both
frozen, the U-Net (C19, C28); with all three frozen, a ControlNet (C27); last, a U-Net for few
network calls, distilled from the guided one. A finished stage is not repeated and a killed one
resumes, so the same command continues where it stopped. A network made with other settings raises
an error.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import nn

from diffusion_math.schedule import Discrete
from sd import weights
from sd.checkpoint.parameterization import CONFIG_KEY
from sd.command_line import flags
from sd.command_line.entry import guarded, parsed
from sd.command_line.flags import Range, Several, Words
from sd.command_line.terminal import say
from sd.config import (
    SHAPES_CONFIG,
    AnyConfig,
    ModelConfig,
    TextConfig,
    UNetConfig,
    VAEConfig,
    to_json,
)
from sd.files.output_folder import locked, output_folder, write_file
from sd.networks.controlnet import ControlNet
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.text.tokenizer import Tokenizer
from sd.train import checkpoint, clip, control, distillation, evaluation, fsdp, source, unet, vae
from sd.train.clip import CLIPTraining
from sd.train.control import ControlTraining
from sd.train.distillation import Distillation
from sd.train.own import train_own
from sd.train.own_options import OwnModel
from sd.train.settings import FREE, Training, agreed, require_fit
from sd.train.shard import WHOLE, Shard, joined, left, startable
from sd.train.trainer import rounded
from sd.train.unet import UNetTraining
from sd.train.vae import VAETraining

STANDARD = 2000
"""The number of images that standardise the latents."""

Stage = Literal["text_encoder", "vae", "unet", "control", "distilled"]


@dataclass(frozen=True)
class All:
    """Train the embedded model of shapes: text encoder, autoencoder, U-Net, ControlNet, and a
    U-Net distilled to few network calls.

    To train on your own images: `--data FOLDER`; `--data FOLDER --help` lists its flags.
    """

    model: Path = Path("runs/model")
    """Folder for the networks, which `TextToImage.load` reads."""
    clip: CLIPTraining = field(default_factory=CLIPTraining)
    """The text encoder's training."""
    vae: VAETraining = field(default_factory=VAETraining)
    """The autoencoder's training."""
    unet: UNetTraining = field(default_factory=UNetTraining)
    """The U-Net's training."""
    control: ControlTraining = field(default_factory=ControlTraining)
    """The ControlNet's training."""
    distilled: Distillation = field(default_factory=Distillation)
    """The distillation of the U-Net."""
    judged: Annotated[int, Range(1, 1_000_000)] = 500
    """Prompts, and images, outside the training data that evaluate each network."""
    keep: Annotated[tuple[Stage, ...], Several(0)] = ()
    """Networks in `--model` to keep as they are, whatever their settings were."""

    def check(self) -> None:
        """Raise ValueError, naming the flag, for a value out of range or a folder given twice."""
        flags.check(self)
        for training in self.stages.values():
            training.check()
        folders = {"--model": self.model}
        folders |= {f"--{one.prefix}out": one.out for one in self.stages.values()}
        for name, path in folders.items():
            if path == Path():
                raise ValueError(f"{name}: wanted a folder of its own, got the current one")
            if not Words().holds(str(path)):  # safetensors reads no other names
                raise ValueError(f"{name}: wanted a name in UTF-8, got {path}")
        for (name, path), (other, same) in combinations(folders.items(), 2):
            if os.path.abspath(path) == os.path.abspath(same):
                raise ValueError(f"{name}, {other}: wanted two folders, got {path} for both")

    @property
    def stages(self) -> dict[str, Training]:
        """The training of each network, in order."""
        return {
            "text_encoder": self.clip,
            "vae": self.vae,
            "unet": self.unet,
            "control": self.control,
            "distilled": self.distilled,
        }

    def file(self, name: str) -> Path:
        """The file of a finished network."""
        return self.model / f"{name}.safetensors"


def main(argv: Sequence[str] | None = None, program: str = "python -m sd.train") -> int:
    """Train; the exit code is 0, 2 for an error of the user, 130 for Ctrl-C.

    With `--data` the flags are those of `OwnModel`.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    own = any(word == "--data" or word.startswith("--data=") for word in given)
    kind: type[Any] = OwnModel if own else All

    def work() -> None:
        options = parsed(kind, program, given)
        if options is not None:
            work_of = train_own if own else train
            work_of(options, shlex.join([*program.split(), *given]))

    return guarded(work, "the same command resumes from the last checkpoint")


def train(options: All, command: str, config: ModelConfig = SHAPES_CONFIG) -> None:
    """Train each network or resume its training; write each as soon as it is finished.

    Args:
        options: the settings.
        command: the command, saved in the metadata of each file.
        config: the configuration of the networks.

    Several processes of one launcher train together (see `fit`); the main one writes the files.
    Raises ValueError before any work if a run can't be resumed, else as `fit`.
    """
    shard = joined(options.unet.cpu)
    with ExitStack() as held:
        held.callback(left)

        def prepare() -> None:
            options.check()
            held.enter_context(output_folder(options.model, "--model"))
            held.enter_context(locked(options.model, "--model"))
            for name, training in options.stages.items():
                if not options.file(name).exists():
                    held.enter_context(output_folder(training.out, f"--{training.prefix}out"))
            check(options, config, shard.process.count)

        shard.first(prepare)
        _train(options, command, config, shard)


def check(options: All, config: ModelConfig, processes: int = 1) -> None:
    """Check, before any work, that the training can start or resume with that many processes.

    Raises ModuleNotFoundError without the extra `train`, and ValueError for a network or checkpoint
    made with other settings or a weights file that does not fit. Warns about flags without effect.
    """
    import accelerate  # noqa: F401

    options.distilled.fit_schedule(Discrete.scaled_linear(config.steps))
    todo: list[Training] = []
    for name, training in options.stages.items():
        if not finished(options, name, wanted(options, config, name)):
            todo.append(training)
            checkpoint.load_checkpoint(training, wanted(options, config, name, judged=False))
        elif name in options.keep:
            names = {one.name for one in fields(training)} - FREE
            flags.unused(training, names, f"with --keep {name}")
    if options.unet.fsdp and processes == 1:
        raise ValueError("--unet.fsdp: wanted several processes, got 1 (see torchrun)")
    if fsdp.asked() and not options.unet.fsdp:
        raise ValueError("the configuration of accelerate asks for FSDP: give --unet.fsdp too")
    startable(todo, processes)
    networks: dict[str, tuple[type[nn.Module], AnyConfig]] = {
        "text_encoder": (TextEncoder, config.text),
        "vae": (VAE, config.vae),
        "unet": (UNet, config.unet),
        "control": (ControlNet, control.control_config(config)),
        "distilled": (UNet, config.unet),
    }
    for name, (network, own) in networks.items():
        if options.file(name).exists():
            weights.read_tensors(options.file(name), weights.blank(network, own))
        require_fit(options.stages[name], network, own)


def wanted(
    options: All,
    config: ModelConfig,
    name: str,
    networks: tuple[VAE, TextEncoder] | tuple[VAE, TextEncoder, UNet] | None = None,
    judged: bool = True,
) -> dict[str, Any]:
    """The settings that a network depends on: of its training, the data, earlier networks."""
    found = options.stages[name].settings()
    if name == "text_encoder":
        return {**found, **clip.context(config.text)}
    if judged:
        found["--judged"] = options.judged
    if name == "vae":
        return {**found, **vae.context(config.vae)}
    if networks is None:
        return found
    own = {"unet": unet, "control": control, "distilled": distillation}[name]
    return {**found, **own.context(config, *networks)}


def finished(options: All, name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a network is finished. Raises ValueError if it was made with other settings."""
    path = options.file(name)
    if not path.exists():
        if name in options.keep:
            raise ValueError(f"--keep {name}: {path} is missing")
        return False
    if name not in options.keep:
        advice = f"keep it as it is with --keep {name}, give another --model, or delete the file"
        agreed(path, settings, advice)
    return True


def _train(options: All, command: str, config: ModelConfig, shard: Shard = WHOLE) -> None:
    def write(
        name: str,
        network: nn.Module,
        own: AnyConfig,
        settings: Mapping[str, Any],
        measure: Callable[[], Mapping[str, float | int]],
        **more: object,
    ) -> None:
        """Save a trained network with its settings and figures, on the main process."""
        if shard.process.main:
            measured = measure()
            say(f"{options.file(name).name} {json.dumps(measured)}")
            weights.save_network(
                options.file(name),
                network,
                own,
                licence="MIT",
                command=command,
                seed=options.stages[name].seed,
                settings=settings,
                figures=measured,
                **more,
            )
        shard.wait()

    tokenizer = Tokenizer.embedded(config.text.context_length)
    if shard.process.main:
        write_file(options.model / "tokenizer.json", tokenizer.to_json().encode())
    settings = wanted(options, config, "text_encoder")
    if not finished(options, "text_encoder", settings):
        state, measured = clip.train_clip(options.clip, config.text)
        network = rounded(TextEncoder(config.text), state)
        write("text_encoder", network, config.text, settings, lambda: measured)
    text_encoder = weights.load_network(options.file("text_encoder"), TextEncoder, TextConfig)

    settings = wanted(options, config, "vae")
    if not finished(options, "vae", settings):
        trained = VAE(config.vae)
        trained.load_state_dict(vae.train_vae(options.vae, config.vae))
        if not options.vae.decoder_only:
            vae.standardise(trained, source.images(options.vae.seed, range(STANDARD)))
        trained = rounded(trained, trained.state_dict())
        judge = partial(evaluation.reconstruction, trained, options.judged)
        write("vae", trained, config.vae, settings, judge)
    autoencoder = weights.load_network(options.file("vae"), VAE, VAEConfig)

    schedule = Discrete.scaled_linear(config.steps)

    def model(network: UNet, own: ModelConfig = config) -> TextToImage:
        parts = (own, tokenizer, text_encoder, autoencoder, network)
        return TextToImage(*parts, device=torch.device("cpu"))

    settings = wanted(options, config, "unet", (autoencoder, text_encoder))
    if not finished(options, "unet", settings):
        state = unet.train_unet(
            options.unet, config, autoencoder, text_encoder, tokenizer, schedule
        )
        network = rounded(UNet(config.unet), state)
        judge = partial(evaluation.accuracy, model(network), options.judged)
        write("unet", network, config.unet, settings, judge)
    denoiser = weights.load_network(options.file("unet"), UNet, UNetConfig)

    settings = wanted(options, config, "control", (autoencoder, text_encoder, denoiser))
    if not finished(options, "control", settings):
        state = control.train_control(
            options.control, config, autoencoder, text_encoder, denoiser, tokenizer, schedule
        )
        own = control.control_config(config)
        branch = rounded(ControlNet(own), state)
        judge = partial(evaluation.controlled, model(denoiser), branch, options.judged)
        write("control", branch, own, settings, judge)

    settings = wanted(options, config, "distilled", (autoencoder, text_encoder, denoiser))
    if not finished(options, "distilled", settings):
        networks = (autoencoder, text_encoder, denoiser)
        state = distillation.distil(options.distilled, config, *networks, tokenizer)
        student = rounded(UNet(config.unet), state)
        few = distillation.distilled(config, options.distilled.calls, options.distilled.own_eta)
        judge = partial(evaluation.accuracy, model(student, few), options.judged)
        write("distilled", student, config.unet, settings, judge, **{CONFIG_KEY: to_json(few)})


if __name__ == "__main__":
    sys.exit(main())
