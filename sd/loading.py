"""Load a model by name or path: the embedded model, a folder in its layout, any checkpoint."""

from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from diffusion_math.checks import require
from sd import checkpoint, weights
from sd.checkpoint import safetensors_file
from sd.checkpoint.component import Component
from sd.checkpoint.hub import resolve
from sd.checkpoint.offload import Offload, Parked
from sd.checkpoint.parameterization import CONFIG_KEY
from sd.config import SHAPES_CONFIG, ModelConfig, TextConfig, UNetConfig, VAEConfig, from_json
from sd.embedded import UNETS, is_embedded
from sd.files.regular_file import path_kind
from sd.loading_options import LoadingOptions
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.nonfinite import vae_dtype
from sd.text import clip_vocabulary
from sd.text.tokenizer import END, Tokenizer

__all__ = ["Parts", "arguments", "load_model"]

NATIVE = {"text_encoder": "transformers", "vae": "diffusers", "unet": "diffusers"}
"""The files of a folder in our layout, and the library whose tensor names they use."""


PADDING = 128
"""The largest number of embedding rows without a token."""


class Parts(NamedTuple):
    """A model: configuration, tokenizer, three networks, and their offloading if there is any."""

    config: ModelConfig
    tokenizer: Tokenizer
    text_encoder: TextEncoder
    vae: VAE
    unet: UNet
    offload: Offload | None


def load_model(
    model: str | Path,
    device: torch.device,
    dtype: torch.dtype,
    tokenizer: Path | None = None,
    vae: Path | None = None,
    config: ModelConfig | None = None,
    prediction: str | None = None,
    ema: bool = False,
    variant: str | None = None,
    low_memory: bool = False,
) -> Parts:
    """The model of a name or a path.

    Args:
        model: the name of an embedded model (`sd.embedded`); a folder with text_encoder, vae and
            unet as `.safetensors` with metadata and tokenizer.json; or a Stable Diffusion
            checkpoint: a file, a diffusers folder, a hub id (see `sd.checkpoint`).
        device, dtype: of the networks; the VAE is in float32 if `dtype` is float16.
        tokenizer: CLIP's vocabulary, if the checkpoint has none (see `sd.text.clip_vocabulary`).
        vae, config, prediction, ema, variant: see `sd.checkpoint.load`.
        low_memory: offload: only the network in use has its weights in memory. The others are read
            again from their files at each use.

    Raises:
        FileNotFoundError: a weights file is missing.
        ValueError: a file is damaged or does not fit.
    """
    options = {
        "vae": vae,
        "config": config,
        "prediction": prediction,
        "ema": ema,
        "variant": variant,
    }
    embedded = is_embedded(model)
    native = any(path_kind(Path(model) / f"{name}.safetensors", "model") for name in NATIVE)
    if not embedded and not native:
        return _checkpoint(model, device, dtype, tokenizer, options, low_memory)
    asked = [name for name, value in {"tokenizer": tokenizer, **options}.items() if value]
    require(not asked, ", ".join(asked), "a checkpoint with it", repr(str(model)))
    with as_file(files("sd") / "assets" / "shapes" if embedded else Path(model)) as folder:
        paths = {name: folder / f"{name}.safetensors" for name in NATIVE}
        if embedded:
            paths["unet"] = folder / f"{UNETS[str(model)]}.safetensors"
        text, own_vae, unet = (
            weights.load_network(path, network, settings)
            for path, network, settings in zip(
                paths.values(),
                (TextEncoder, VAE, UNet),
                (TextConfig, VAEConfig, UNetConfig),
                strict=True,
            )
        )
        networks = dict(zip(NATIVE, (text, own_vae, unet), strict=True))
        homes = {
            name: _home(paths[name], name, network, dtype) for name, network in networks.items()
        }
        whole = SHAPES_CONFIG
        words_of = weights.read_metadata(paths["unet"])
        if CONFIG_KEY in words_of:
            whole = from_json(ModelConfig, words_of[CONFIG_KEY])
        own = replace(whole, text=text.config, vae=own_vae.config, unet=unet.config)
        length = own.text.context_length
        words = (
            Tokenizer.embedded(length)
            if embedded
            else Tokenizer.from_file(folder / "tokenizer.json", length)
        )
    words.pad_token = _padding(words, own)
    _fitting(words, own)
    if not low_memory:
        for home in homes.values():
            home.network.to(device, home.dtype)
    offload = Offload(homes, device) if low_memory else None
    return Parts(own, words, text, own_vae, unet, offload)


def arguments(given: LoadingOptions) -> dict[str, Any]:
    """The arguments of `load_model` that the flags give.

    Raises FileNotFoundError or ValueError, naming `--config`, for a file without a configuration.
    """
    found = {field.name: getattr(given, field.name) for field in fields(LoadingOptions)}
    if given.config is not None:
        found["config"] = _configuration(given.config)
    return found


def _configuration(path: Path) -> ModelConfig:
    """A model's configuration from a file of JSON."""
    try:
        return from_json(ModelConfig, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"--config: {path} is missing") from None
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"--config: {path} holds no model configuration: {error}") from error


def _home(path: Path, name: str, network: nn.Module, dtype: torch.dtype) -> Parked:
    with safetensors_file.opened(path) as source:
        part = Component(name, NATIVE[name], "", source)
    return Parked(network, part, vae_dtype(dtype) if name == "vae" else dtype)


def _checkpoint(
    model: str | Path,
    device: torch.device,
    dtype: torch.dtype,
    tokenizer: Path | None,
    options: Mapping[str, Any],
    low_memory: bool,
) -> Parts:
    """A checkpoint; a missing vocabulary is reported before its weights are read.

    What is wrong with the weights' files themselves is reported before that.
    """
    place = resolve(model, (options["variant"],))
    wanted = f"{', '.join(map(repr, UNETS))}, a folder of weights, a checkpoint or a hub id"
    require(path_kind(place, "model") is not None, "model", wanted, repr(model))
    try:
        words = clip_vocabulary.find_tokenizer(place, tokenizer, TextConfig().context_length, None)
    except ValueError:
        checkpoint.load(place, device=device, low_memory=True, **options)  # it reads no weights
        raise
    found = checkpoint.load(
        place,
        dtype=dtype,
        vae_dtype=vae_dtype(dtype),
        device=device,
        low_memory=low_memory,
        **options,
    )
    words.context_length = found.config.text.context_length
    words.pad_token = _padding(words, found.config)
    _fitting(words, found.config)
    networks = found.text_encoder, found.vae, found.unet
    return Parts(found.config, words, *networks, found.offload)


def _padding(tokenizer: Tokenizer, config: ModelConfig) -> int:
    """The token that pads: OpenCLIP's first one, the last one of OpenAI's CLIP."""
    return 0 if config.text.activation == "gelu" else tokenizer.end_token


def _fitting(tokenizer: Tokenizer, config: ModelConfig) -> None:
    """Raise ValueError unless each token has its row of the text encoder's embedding.

    The end token has the last row, except for added words and for rows that fill the embedding up
    to a multiple of 8, as transformers does.
    """
    tokens, end, rows = tokenizer.vocab_size, tokenizer.end_token, config.text.vocab_size
    if not set(range(end + 1, tokens)) <= set(tokenizer.added.values()):
        raise ValueError(f"tokenizer: wanted {END} as its last token before added words, got {end}")
    padded = rows % 8 == 0 and tokens < rows < tokens + PADDING
    if tokens == rows or padded:
        return
    raise ValueError(
        f"tokenizer: it has {tokens} tokens, the text encoder {rows} rows. Where textual inversion "
        "added words, name the tokenizer folder that was saved with this very model (--tokenizer, "
        "or tokenizer= in Python)"
    )
