"""Infer the configuration of a network from the shapes of its tensors.

Shapes determine every width and count. They do not determine the number of attention heads, the
groups of a norm or the activation of the text encoder. A diffusers folder has those in config.json;
for a single file the rules below give Stable Diffusion's.
"""

from typing import Any

from sd.checkpoint.component import CALLED, Component
from sd.checkpoint.component_config import ComponentConfig
from sd.checkpoint.tensor_source import checkpoint_error, option
from sd.config import ControlNetConfig, TextConfig, UNetConfig, VAEConfig
from sd.validation import MOST_LAYERS

__all__ = [
    "complete_openclip",
    "infer_controlnet",
    "infer_text_encoder",
    "infer_unet",
    "infer_vae",
    "require_agreement",
]

HEADS = 8
"""Heads at every level in v1.x, whose projections around attention are convolutions."""
HEAD_WIDTH = 64
"""Width of a head in the U-Net of v2.x (linear projections around attention) and in CLIP."""
OPENCLIP_WIDTH = 1024
"""A text encoder of this width in transformers' layout is OpenCLIP's, with plain GELU."""


def require_agreement(part: Component, config: Any) -> None:
    """Raise ValueError if the configuration in the metadata does not fit the tensors."""
    for name, value in FROM_SHAPES[part.kind](part).items():
        if getattr(config, name) != value:
            said = f"{type(config).__name__}.{name} = {getattr(config, name)}"
            raise checkpoint_error(
                part.source.path, f"its metadata say {said}, its tensors {value}"
            )


def infer_unet(part: Component) -> UNetConfig:
    """The configuration of the U-Net; heads as in v2.x if its projections are linear.

    Raises ValueError if necessary tensors are missing or a value is not valid.
    """
    found = _unet(part)
    if part.settings is not None:
        part.settings.agree(
            out_channels=found["out_channels"],
            up_block_types=[f"{_CROSS[attend]}UpBlock2D" for attend in found["attention"][::-1]],
        )
    return _made(part, UNetConfig, found | _unshaped(part, found))


def infer_controlnet(part: Component) -> ControlNetConfig:
    """The configuration of a ControlNet. Raises ValueError as `infer_unet` does."""
    found = _encoder(part)
    stem = "controlnet_cond_embedding"
    blocks = range(0, part.count(r"controlnet_cond_embedding\.blocks\.(\d+)\."), 2)
    if part.layout == "original":
        blocks = range(0, 6, 2)
    first, steps = f"{stem}.conv_in", [f"{stem}.blocks.{j + 1}" for j in blocks]
    widths = [part.number("hint width", _outputs(name)) for name in (first, *steps)]
    maps = part.number("map", [(f"{first}.weight", 1)])
    if part.settings is not None:
        part.settings.agree(conditioning_channels=maps, conditioning_embedding_out_channels=widths)
    encoder = _made(part, UNetConfig, found | _unshaped(part, found))
    made = {"encoder": encoder, "map_channels": maps, "hint_channels": tuple(widths)}
    return _made(part, ControlNetConfig, made)


def _outputs(name: str) -> list[tuple[str, int]]:
    return [(f"{name}.weight", 0), (f"{name}.bias", 0)]


def _unshaped(part: Component, found: dict[str, Any]) -> dict[str, Any]:
    """The fields that shapes do not determine; the others must agree with config.json."""
    channels, linear, said = list(found["channels"]), found["linear_projection"], part.settings
    if said is None:
        return {"heads": 0, "head_width": HEAD_WIDTH} if linear else {"heads": HEADS}
    attends = found["context_width"] > 0
    said.agree(
        in_channels=found["in_channels"],
        block_out_channels=channels,
        layers_per_block=found["layers_per_block"],
        mid_block_type=f"UNetMidBlock2D{_CROSS[attends]}",
        num_class_embeds=found["num_class_embeds"] or None,
        down_block_types=[f"{_CROSS[attend]}DownBlock2D" for attend in found["attention"]],
    )
    if attends:
        said.agree(cross_attention_dim=found["context_width"], use_linear_projection=linear)
    groups, eps = said.get("norm_num_groups", 32, int), said.get("norm_eps", 1e-5, float, int)
    return {**_heads(said, channels), "groups": groups, "eps": eps}


def _unet(part: Component) -> dict[str, Any]:
    """The fields that the shapes determine."""
    outputs = [*_outputs("conv_out"), ("conv_in.weight", 1)]
    return {**_encoder(part), "out_channels": part.number("output", outputs)}


def _encoder(part: Component) -> dict[str, Any]:
    """The fields that the shapes of the downward half determine."""
    bones, named = part.skeleton, part.number
    channels = [
        named(f"width at level {i}", _widths(f"down_blocks.{i}", bones.layers))
        for i in range(bones.levels)
    ]
    attentions = [
        f"down_blocks.{i}.attentions.{j}"
        for i, attend in enumerate(bones.attention)
        for j in range(bones.layers)
        if attend
    ]
    if attentions or part.attends_in_the_middle():
        attentions.append("mid_block.attentions.0")
    attended = [f"{at}.transformer_blocks.0.attn2.{kv}" for at in attentions for kv in _KV]
    maps = [part.shape(f"{at}.proj_{way}.weight") for at in attentions for way in ("in", "out")]
    flat = [len(shape) == 2 for shape in maps if shape is not None]
    linear = 2 * sum(flat) > len(flat)
    context = named("context width", [(name, 1) for name in attended]) if attentions else 0
    return {
        "in_channels": named("input", [("conv_in.weight", 1)]),
        "channels": tuple(channels),
        "layers_per_block": bones.layers,
        "context_width": context,
        "attention": bones.attention,
        "linear_projection": linear,
        "num_class_embeds": (part.shape("class_embedding.weight") or (0,))[0],
    }


_CROSS = ("", "CrossAttn")
_KV = ("to_k.weight", "to_v.weight")


def _widths(level: str, layers: int) -> list[tuple[str, int]]:
    """Tensors whose first axis is the width of the level."""
    leaves = ("conv1.weight", "conv2.weight", "norm2.weight", "conv2.bias")
    return [(f"{level}.resnets.{j}.{leaf}", 0) for j in range(layers) for leaf in leaves]


def _heads(said: ComponentConfig, channels: list[int]) -> dict[str, int]:
    """The number of heads, or the width of a head.

    `attention_head_dim` of diffusers is the number of heads, for each level or for all.
    """
    name = "num_attention_heads" if said.values.get("num_attention_heads") else "attention_head_dim"
    value = said.get(name, HEADS, int, list)
    many = value if isinstance(value, list) else [value] * len(channels)
    valid = len(many) == len(channels) and all(type(n) is int and n > 0 for n in many)
    if valid and len(set(many)) == 1:
        return {"heads": many[0]}
    if valid:
        widths = {width / n for width, n in zip(channels, many, strict=True)}
        if len(widths) == 1 and next(iter(widths)).is_integer():
            return {"heads": 0, "head_width": int(next(iter(widths)))}
    wanted = "one number of heads, or heads of one width, at every level"
    raise checkpoint_error(said.path, f"{name} is {value!r}; supported is {wanted}")


def infer_vae(part: Component) -> VAEConfig:
    """The configuration of the autoencoder. Raises ValueError as `infer_unet` does."""
    found = _vae(part)
    if (said := part.settings) is not None:
        said.agree(
            in_channels=found["in_channels"],
            out_channels=found["in_channels"],
            latent_channels=found["latent_channels"],
            block_out_channels=list(found["channels"]),
            layers_per_block=found["layers_per_block"],
        )
        found |= {"groups": said.get("norm_num_groups", 32, int)}
        found |= {"scaling_factor": said.get("scaling_factor", 0.18215, float, int)}
    return _made(part, VAEConfig, found)


def _vae(part: Component) -> dict[str, Any]:
    """The fields that the shapes determine."""
    bones, named = part.skeleton, part.number
    channels = [
        named(f"width at level {i}", _widths(f"encoder.down_blocks.{i}", bones.layers))
        for i in range(bones.levels)
    ]
    latent = [("post_quant_conv.weight", 0), ("post_quant_conv.bias", 0)]
    pixels = [("decoder.conv_out.weight", 0), ("decoder.conv_out.bias", 0)]
    return {
        "in_channels": named("input", [("encoder.conv_in.weight", 1), *pixels]),
        "latent_channels": named("latent", [*latent, ("decoder.conv_in.weight", 1)]),
        "channels": tuple(channels),
        "layers_per_block": bones.layers,
    }


def infer_text_encoder(part: Component) -> TextConfig:
    """The configuration of the text encoder. Raises ValueError as `infer_unet` does."""
    found, openclip = _text(part), part.layout == "openclip"
    width, said = found["width"], part.settings
    if said is None:
        plain = openclip or width == OPENCLIP_WIDTH
        if width % HEAD_WIDTH:
            rule = f"not of heads of {HEAD_WIDTH} as CLIP's; give {option('config')} for another's"
            raise checkpoint_error(part.source.path, f"its text encoder is {width} wide, {rule}")
        found |= {"heads": width // HEAD_WIDTH, "activation": "gelu" if plain else "quick_gelu"}
    else:
        said.agree(
            vocab_size=found["vocab_size"],
            hidden_size=width,
            num_hidden_layers=found["layers"],
            max_position_embeddings=found["context_length"],
            intermediate_size=found["intermediate"],
        )
        found |= {"heads": said.get("num_attention_heads", 12, int)}
        found |= {"activation": said.get("hidden_act", "quick_gelu", str)}
        found |= {"eps": said.get("layer_norm_eps", 1e-5, float, int)}
    return _made(part, TextConfig, found)


def _text(part: Component) -> dict[str, Any]:
    """The fields that the shapes determine."""
    named, openclip = part.number, part.layout == "openclip"
    stem = r"transformer\.resblocks\.(\d+)\." if openclip else r"encoder\.layers\.(\d+)\."
    layers = part.count(stem) - complete_openclip(part)
    if layers > MOST_LAYERS:
        raise checkpoint_error(
            part.source.path, f"its text encoder has {layers} layers, above {MOST_LAYERS}"
        )
    norms = [f"encoder.layers.{i}.layer_norm{n}.weight" for i in range(layers) for n in (1, 2)]
    fc1 = [f"encoder.layers.{i}.mlp.fc1.{leaf}" for i in range(layers) for leaf in _LEAVES]
    tokens, places = "embeddings.token_embedding.weight", "embeddings.position_embedding.weight"
    return {
        "vocab_size": named("vocabulary", [(tokens, 0)]),
        "width": named("width", [(tokens, 1), (places, 1), *((name, 0) for name in norms)]),
        "layers": layers,
        "context_length": named("context length", [(places, 0)]),
        "intermediate": named("inner width", [(name, 0) for name in fc1]),
    }


_LEAVES = ("weight", "bias")
FROM_SHAPES = {"unet": _unet, "vae": _vae, "text_encoder": _text}
"""For each network, the function from shapes to fields of its configuration."""


def complete_openclip(part: Component) -> bool:
    """Whether a text encoder is OpenCLIP's with all its layers, of which the last is unused.

    The whole model has `text_projection` after its last layer; v2.x uses the layer before the last.
    """
    return part.layout == "openclip" and "text_projection" in part.own


def _made(part: Component, kind: Any, found: dict[str, Any]) -> Any:
    try:
        return kind(**found)
    except ValueError as error:
        rule = (
            ""
            if part.settings
            else f", as for Stable Diffusion's own; give {option('config')} for another's"
        )
        raise checkpoint_error(
            part.source.path, f"configuration of its {CALLED[part.kind]}: {error}{rule}"
        ) from error
