"""Detect the family of a file of tensors, and the networks in it, by its tensor names."""

import re
from collections.abc import Iterable
from pathlib import Path

from sd.checkpoint.component import Component
from sd.checkpoint.tensor_source import Source, checkpoint_error

__all__ = ["find_components", "find_controlnet", "refuse_foreign"]

ANCHOR = r"(^|\.)"
CONTROLNET = "a ControlNet checkpoint"
FOREIGN: tuple[tuple[str, str], ...] = (
    (r"(^|[._])(lora_(down|up|mid|A|B|magnitude)|lora\.(down|up)|hada_w\d|lokr_w\d|dora_scale)",
     "a LoRA file"),
    (r"^(lora_(unet|te\d?)_|lycoris_)", "a LoRA file"),
    (r"^(emb_params|string_to_param|clip_[lg])$", "a textual-inversion embedding"),
    (rf"^control_model\.|^controlnet_|{ANCHOR}input_hint_block\.", CONTROLNET),
    (r"^adapter\.|^image_proj\.|^ip_adapter\.", "an adapter's checkpoint"),
    (rf"{ANCHOR}joint_blocks\.", "a Stable Diffusion 3 checkpoint"),
    (rf"{ANCHOR}(double_blocks|single_transformer_blocks)\.", "a Flux checkpoint"),
    (rf"{ANCHOR}(motion_modules|temporal_transformer)\.", "an AnimateDiff checkpoint"),
    (rf"{ANCHOR}(time_stack|time_mixer|temporal_res_block)\.", "a video checkpoint"),
    (r"^noise_augmentor\.", "a Stable unCLIP checkpoint"),
    (r"^low_scale_model\.", "an upscaler's checkpoint"),
    (rf"^conditioner\.embedders\.|{ANCHOR}(label_emb\.\d|add_embedding)\.", "an SDXL checkpoint"),
)  # fmt: skip
"""Patterns of names outside Stable Diffusion v1 and v2, and their family; the first match wins."""

INPUTS = {
    5: "a depth-to-image checkpoint (5 input channels)",
    7: "an upscaler's checkpoint (7 input channels)",
    8: "an image-editing checkpoint (8 input channels)",
}
WANTED = "not a text-to-image one of Stable Diffusion v1 or v2"

TEXT_PREFIXES = (
    "cond_stage_model.transformer.text_model.",
    "cond_stage_model.transformer.",
    "text_model.",
    "",
)
WHERE: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("unet", "original", ("input_blocks.", "output_blocks."), ("model.diffusion_model.", "")),
    ("unet", "diffusers", ("down_blocks.", "up_blocks."), ("unet.", "")),
    ("vae", "original", ("encoder.down.", "decoder.up."), ("first_stage_model.", "vae.", "")),
    (
        "vae",
        "diffusers",
        ("encoder.down_blocks.", "decoder.up_blocks."),
        ("first_stage_model.", "vae.", ""),
    ),
    ("text_encoder", "openclip", ("transformer.resblocks.",), ("cond_stage_model.model.", "")),
    ("text_encoder", "transformers", ("encoder.layers.", "embeddings."), TEXT_PREFIXES),
)
"""(kind, layout, beginnings of names that identify it, prefixes in order)."""


def refuse_foreign(
    path: Path, names: Iterable[str], wanted: str = WANTED, but: str | None = None
) -> None:
    """Raise ValueError, with the family, for a file that is not of Stable Diffusion v1 or v2.

    Args:
        path, names: the file and its tensors.
        wanted: the end of the message.
        but: a family that is not refused.
    """
    names = list(names)
    for pattern, whose in FOREIGN:
        if whose != but and any(re.search(pattern, name) for name in names):
            raise checkpoint_error(path, f"{whose}, {wanted}")


def find_components(source: Source, ema: bool = False) -> dict[str, Component]:
    """The networks in a file, by kind; the result may be empty.

    Args:
        source: the file.
        ema: use the moving averages of the U-Net.

    Raises:
        ValueError: it is of another family.
    """
    refuse_foreign(source.path, source.entries)
    found = _networks(source, ema)
    if "unet" in found:
        _inputs(found["unet"])
    return found


def _networks(source: Source, ema: bool = False) -> dict[str, Component]:
    """The networks of a model in a file, by kind."""
    found: dict[str, Component] = {}
    for kind, layout, marks, prefixes in WHERE:
        for prefix in prefixes:
            if kind not in found and any(source.starts(prefix + mark) for mark in marks):
                layout = _old(source, prefix) if (kind, layout) == ("vae", "diffusers") else layout
                averaged = ema and (kind, layout) == ("unet", "original")
                found[kind] = Component(kind, layout, prefix, source, ema=averaged)
    return found


def find_controlnet(source: Source) -> dict[str, Component]:
    """The ControlNet in a file, as "controlnet", and networks of a model beside it.

    The result is empty if there is no ControlNet.

    Raises ValueError for a file of another family than Stable Diffusion v1 or v2.
    """
    refuse_foreign(source.path, source.entries, "not a ControlNet of v1 or v2", but=CONTROLNET)
    layouts = {"original": "input_hint_block.", "diffusers": "controlnet_cond_embedding."}
    for prefix in ("control_model.", "controlnet.", ""):
        for layout, mark in layouts.items():
            if source.starts(prefix + mark):
                others = {k: part for k, part in _networks(source).items() if part.prefix != prefix}
                return {**others, "controlnet": Component("controlnet", layout, prefix, source)}
    return {}


def _old(source: Source, prefix: str) -> str:
    """The diffusers layout of an autoencoder, by the names of its attention."""
    at = (f"{prefix}{half}.mid_block.attentions.0.query." for half in ("encoder", "decoder"))
    return "old diffusers" if any(source.starts(name) for name in at) else "diffusers"


def _inputs(unet: Component) -> None:
    """Raise ValueError for a U-Net with input channels beside a latent, other than a mask's."""
    inputs = unet.shape("conv_in.weight")
    if inputs is not None and len(inputs) == 4 and inputs[1] in INPUTS:
        raise checkpoint_error(unet.source.path, f"{INPUTS[inputs[1]]}, {WANTED}")
