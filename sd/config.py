"""The configuration of a latent-diffusion model, checked when it is made."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_type_hints

from diffusion_math import checks
from diffusion_math.checks import require
from diffusion_math.solvers.registry import SOLVERS
from sd import validation
from sd.files import regular_file
from sd.noise_schedule import SCHEDULES

__all__ = [
    "PREDICTIONS",
    "SHAPES_CONFIG",
    "V15",
    "V20",
    "V21",
    "ControlNetConfig",
    "LongPrompt",
    "ModelConfig",
    "TextConfig",
    "UNetConfig",
    "VAEConfig",
    "from_dict",
    "from_json",
    "to_dict",
    "to_json",
]

ACTIVATIONS = ("quick_gelu", "gelu")
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
"""What a U-Net predicts: the name in diffusers to the name in `diffusion_math.prediction`."""

LongPrompt: TypeAlias = Literal["chunk", "truncate", "refuse"]
"""A prompt longer than the context length: encode it in chunks, truncate it, or raise."""


@dataclass(frozen=True)
class TextConfig:
    """The CLIP text transformer; the defaults are Stable Diffusion v1.x (CLIP ViT-L/14).

    The token `end_token` (the last of the vocabulary, as in CLIP's) ends a prompt and pads it.
    `skip` is the number of last layers that the text embedding leaves out (CLIP skip): 0 in Stable
    Diffusion v1.x, 1 in v2.x.
    """

    vocab_size: int = 49408
    width: int = 768
    layers: int = 12
    heads: int = 12
    context_length: int = 77
    intermediate: int = 3072
    activation: str = "quick_gelu"
    eps: float = 1e-5
    skip: int = 0

    def __post_init__(self) -> None:
        validation.whole(self, "vocab_size", "width", "heads", "context_length", "intermediate")
        validation.whole(self, "layers", most=validation.MOST_LAYERS)
        validation.positive(self, "eps")
        validation.one_of(self, "activation", ACTIVATIONS)
        validation.divides(self, "heads", self.width, "the width")
        checks.whole("TextConfig.skip", self.skip, 0, self.layers - 1)
        for name in ("vocab_size", "context_length"):  # room for the start and end tokens
            checks.whole(f"TextConfig.{name}", getattr(self, name), 2)

    @property
    def start_token(self) -> int:
        """The id of `<|startoftext|>`."""
        return self.vocab_size - 2

    @property
    def end_token(self) -> int:
        """The id of `<|endoftext|>`, which also pads."""
        return self.vocab_size - 1


@dataclass(frozen=True)
class VAEConfig:
    """The autoencoder (AutoencoderKL); the side halves between neighbouring `channels`."""

    in_channels: int = 3
    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    groups: int = 32
    scaling_factor: float = 0.18215
    eps: float = 1e-6

    def __post_init__(self) -> None:
        validation.whole(self, "in_channels", "latent_channels", "groups")
        validation.whole(self, "layers_per_block", most=validation.MOST_BLOCKS)
        validation.positive(self, "scaling_factor", "eps")
        validation.channels(self, "groups")

    @property
    def factor(self) -> int:
        """The downsampling factor; the side of an image must be a multiple of it."""
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True)
class UNetConfig:
    """The denoiser (UNet2DConditionModel); level i attends to the prompt where `attention[i]`.

    `heads` is the number of heads at every level (diffusers calls v1.x's 8 `attention_head_dim`).
    In its place `head_width` gives the width of a head at every level (v2.x: 64); `heads` is then
    0. `linear_projection`: linear layers (v2.x) surround a transformer, not convolutions.
    `in_channels` of an inpainting model is 9: the latent, a mask, the latent of the known pixels.
    `num_class_embeds` of a class-conditional model is the number of its labels, the null class of
    dropped labels included; 0: it takes no labels. `context_width` 0: it takes no prompt; no level
    attends, and the middle block is one ResBlock. Then the heads have no effect.
    """

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    heads: int = 8
    context_width: int = 768
    attention: tuple[bool, ...] = (True, True, True, False)
    groups: int = 32
    eps: float = 1e-5
    head_width: int = 0
    linear_projection: bool = False
    num_class_embeds: int = 0

    def __post_init__(self) -> None:
        validation.whole(self, "in_channels", "out_channels", "groups")
        validation.whole(self, "context_width", "num_class_embeds", least=0)
        validation.whole(self, "layers_per_block", most=validation.MOST_BLOCKS)
        if self.heads == 0 or self.head_width != 0:
            validation.whole(self, "head_width")
            found = f"{self.heads!r} and {self.head_width!r}"
            require(self.heads == 0, "UNetConfig.heads, head_width", "one of them 0", found)
        else:
            validation.whole(self, "heads")
        validation.boolean(self, "linear_projection")
        validation.positive(self, "eps")
        validation.channels(self, "groups")
        flags = self.attention
        booleans = isinstance(flags, tuple) and all(isinstance(flag, bool) for flag in flags)
        require(booleans, "UNetConfig.attention", "a tuple of booleans", repr(flags))
        wanted = f"one entry for each of {len(self.channels)} channels"
        require(len(flags) == len(self.channels), "UNetConfig.attention", wanted, len(flags))
        if self.context_width == 0:
            wanted = "False at every level, with context_width 0"
            require(not any(flags), "UNetConfig.attention", wanted, repr(flags))
            return
        attended = [c for c, flag in zip(self.channels, flags, strict=True) if flag]
        for width in (*attended, self.channels[-1]):  # the middle block attends at the last width
            divisor = "head_width" if self.head_width else "heads"
            validation.divides(self, divisor, width, "the width of a level with attention")

    def heads_at(self, width: int) -> int:
        """The number of heads where feature maps are `width` wide."""
        return width // self.head_width if self.head_width else self.heads


@dataclass(frozen=True)
class ControlNetConfig:
    """A ControlNet: the configuration of the U-Net whose downward half it copies, and its map's.

    `out_channels` of `encoder` has no effect. `hint_channels` are the widths of the hint encoder;
    height and width halve between neighbours, as in the VAE.
    """

    encoder: UNetConfig = field(default_factory=UNetConfig)
    map_channels: int = 3
    hint_channels: tuple[int, ...] = (16, 32, 96, 256)

    def __post_init__(self) -> None:
        found = type(self.encoder)
        wanted = "a UNetConfig"
        require(found is UNetConfig, "ControlNetConfig.encoder", wanted, found.__name__)
        validation.whole(self, "map_channels")
        _prompts_alone(self.encoder, "a ControlNet")
        validation.widths(self, "hint_channels")

    @property
    def factor(self) -> int:
        """The downsampling factor from a map to a latent."""
        return int(2 ** (len(self.hint_channels) - 1))

    def require_fit(self, model: "ModelConfig") -> None:
        """Raise ValueError unless its residuals have the shapes of that model's U-Net."""
        unet = replace(model.unet, in_channels=model.vae.latent_channels)
        for name in ("in_channels", "channels", "layers_per_block", "context_width"):
            wanted, got = getattr(unet, name), getattr(self.encoder, name)
            require(got == wanted, "control", f"{name} {wanted}, as the U-Net", f"{name} {got}")
        wanted = f"a map downsampled by {model.vae.factor}, as by the VAE"
        require(self.factor == model.vae.factor, "control", wanted, f"by {self.factor}")


@dataclass(frozen=True)
class ModelConfig:
    """A text-to-image model: three networks, the U-Net's prediction and its noise schedule.

    `guidance_scale`, `solver`, `sampling_steps` and `long_prompt` (see `sd.text.conditioning`) are
    defaults of a call. `eta` is that of the solver `ddim`, if it is the model's own. `distilled`:
    the U-Net was distilled for these steps of this solver on the grid `trailing`, at this scale.
    `zero_terminal_snr`: the schedule is rescaled to an SNR of zero at its last step (see
    `sd.noise_schedule`).
    """

    text: TextConfig = field(default_factory=TextConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    prediction: str = "epsilon"
    schedule: str = "scaled_linear"
    steps: int = 1000
    image_size: int = 512
    guidance_scale: float = 7.5
    solver: str = "dpmpp_2m"
    long_prompt: str = "chunk"
    zero_terminal_snr: bool = False
    sampling_steps: int = 25
    distilled: bool = False
    eta: float = 0.0

    def __post_init__(self) -> None:
        for name, kind in (("text", TextConfig), ("vae", VAEConfig), ("unet", UNetConfig)):
            found = type(getattr(self, name))
            require(found is kind, f"ModelConfig.{name}", f"a {kind.__name__}", found.__name__)
        _prompts_alone(self.unet, "a text-to-image model")
        validation.one_of(self, "prediction", tuple(PREDICTIONS))
        validation.one_of(self, "schedule", tuple(SCHEDULES))
        validation.one_of(self, "solver", tuple(SOLVERS))
        validation.one_of(self, "long_prompt", get_args(LongPrompt))
        validation.whole(self, "image_size")
        validation.whole(self, "steps", most=10**6)
        validation.boolean(self, "zero_terminal_snr", "distilled")
        if self.zero_terminal_snr:  # at an SNR of zero, a noise prediction does not give x_0
            wanted = "v_prediction or sample, with zero_terminal_snr"
            require(self.prediction != "epsilon", "ModelConfig.prediction", wanted, "'epsilon'")
            wanted = "at least 2, with zero_terminal_snr"
            require(self.steps >= 2, "ModelConfig.steps", wanted, self.steps)
        validation.positive(self, "guidance_scale", zero=True)
        validation.whole(self, "sampling_steps")
        checks.between("ModelConfig.eta", self.eta, 0.0, 1.0)
        wanted = "0, with a solver other than ddim"
        require(self.solver == "ddim" or self.eta == 0, "ModelConfig.eta", wanted, self.eta)
        factor = self.vae.factor
        wanted = f"a multiple of {factor} (the VAE halves it)"
        require(self.image_size % factor == 0, "ModelConfig.image_size", wanted, self.image_size)
        width, channels = self.text.width, self.vae.latent_channels
        plain, masked = f"VAEConfig.latent_channels = {channels}", 2 * channels + 1
        for name, wanted, values in (
            ("context_width", f"TextConfig.width = {width}", (width,)),
            ("in_channels", f"{plain}, or {masked} to read a mask", (channels, masked)),
            ("out_channels", plain, (channels,)),
        ):
            got = getattr(self.unet, name)
            require(got in values, f"UNetConfig.{name}", wanted, got)

    @property
    def reads_mask(self) -> bool:
        """Whether the U-Net is trained to inpaint: beside x_t it reads a mask and a latent."""
        return self.unet.in_channels != self.vae.latent_channels

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one latent at the model's own image size."""
        side = self.image_size // self.vae.factor
        return (self.vae.latent_channels, side, side)


def _prompts_alone(unet: UNetConfig, what: str) -> None:
    """Raise ValueError for a U-Net that takes labels, or no prompt."""
    wanted, classes = f"0, in {what}", unet.num_class_embeds
    require(classes == 0, "UNetConfig.num_class_embeds", wanted, classes)
    checks.whole("UNetConfig.context_width", unet.context_width, 1)


Config = TypeVar("Config", TextConfig, VAEConfig, UNetConfig, ControlNetConfig, ModelConfig)
AnyConfig: TypeAlias = TextConfig | VAEConfig | UNetConfig | ControlNetConfig | ModelConfig


def to_dict(config: AnyConfig) -> dict[str, Any]:
    """A configuration as plain JSON values: tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain


def from_dict(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`: absent names take their defaults, unknown ones raise ValueError."""
    if not issubclass(type(values), Mapping):
        raise ValueError(f"{kind.__name__} must come from a JSON object, got {values!r}")
    known = {entry.name for entry in fields(kind)}
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise ValueError(f"{kind.__name__} has no field named {', '.join(unknown)}")
    hints = get_type_hints(kind)
    read: dict[str, Any] = {}
    for name, value in values.items():
        if hints[name] in (TextConfig, VAEConfig, UNetConfig):
            value = from_dict(hints[name], value)
        read[name] = tuple(value) if isinstance(value, list) else value
    return kind(**read)


def to_json(config: AnyConfig) -> str:
    """A configuration as one line of JSON (for the metadata of a weights file)."""
    return json.dumps(to_dict(config), sort_keys=True)


def from_json(kind: type[Config], text: str) -> Config:
    """The inverse of `to_json`; raises ValueError for anything else."""
    try:
        values = regular_file.parse_json(text)
    except ValueError as error:
        raise ValueError(f"{kind.__name__} is {error}") from error
    return from_dict(kind, values)


V15 = ModelConfig()
"""Stable Diffusion v1.1 to v1.5."""

V20 = ModelConfig(
    text=TextConfig(width=1024, layers=23, heads=16, intermediate=4096, activation="gelu"),
    unet=UNetConfig(heads=0, head_width=64, context_width=1024, linear_projection=True),
)
"""Stable Diffusion v2.0 and v2.1 base; OpenCLIP's 24th layer is unused and left out."""

V21 = replace(V20, prediction="v_prediction", image_size=768)
"""Stable Diffusion v2.0 and v2.1 with 768 pixels."""

SHAPES_CONFIG = ModelConfig(
    text=TextConfig(
        vocab_size=29, width=96, layers=2, heads=4, context_length=24, intermediate=384, skip=1
    ),
    vae=VAEConfig(channels=(32, 32, 64, 96), layers_per_block=1, groups=8, scaling_factor=1.0),
    unet=UNetConfig(
        channels=(64, 128),
        layers_per_block=1,
        heads=4,
        context_width=96,
        attention=(True, True),
        groups=16,
    ),
    image_size=64,
    prediction="v_prediction",
    guidance_scale=2.0,
    solver="ddpm",
    long_prompt="refuse",
)
"""The embedded model of captioned shapes (latents 4 x 8 x 8)."""
