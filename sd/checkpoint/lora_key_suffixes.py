"""Recognise the suffixes of tensor names in LoRA files: supported factors, and other kinds."""

import re

__all__ = ["foreign", "role"]

ROLES = re.compile(
    r"(?P<stem>.+?)(?:"
    r"\.lora_(?P<kohya>down|up|mid)\.weight"  # kohya's trainer
    r"|\.lora_(?P<peft>[AB])(?:\.\w+)?\.weight"
    r"|[._]lora\.(?P<diffusers>down|up)\.weight"
    r"|\.lora_linear_layer\.(?P<layer>down|up)\.weight"
    r"|\.(?P<lycoris>hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|dora_scale|alpha)"
    r"|\.lora_(?P<dora>magnitude)_vector(?:\.\w+)?(?:\.weight)?"
    r")",
    re.DOTALL,
)
MEANT = {"A": "down", "B": "up"}
PREFIX = "base_model.model."
"""The prefix of all names of peft."""

FOREIGN = (
    (r"\.oft_(diag|[rRsS])\b.*|\.rescale", "OFT"),
    (r"\.boft_\w+.*", "BOFT"),
    (r"\.(ia3_l\b.*|on_input)", "(IA)^3"),
    (r"\.(a1|a2|b1|b2|bm)\.weight|\.glora_\w+.*", "GLoRA"),
    (r"\.diff(_b)?", "full difference"),
    (r"\.set_weight|\.modules_to_save\..*", "whole weight"),
    (r"\.[wb]_norm", "norm"),
    (r"\.(q_layer|p_layer)\.weight|\.lambda_layer", "T-LoRA"),
    (r"\.vera_\w+.*", "VeRA"),
    (r"\.hra_\w+.*", "HRA"),
    (r"\.lora_E\b.*|\.ranknum", "AdaLoRA"),
    (r"\.lora_embedding_[AB]\b.*", "LoRA of an embedding"),
    (r"\.(bone|miss)_\w+.*", "MiSS"),
    (r"\.\w+_spectrum\b.*", "FourierFT"),
    (r"\.trainable_tokens_\w+.*", "trained token"),
    (r"\.(lora_(A|B|up|down)\b.*\.)?bias", "bias"),
    (r"\.reshape_weight", "larger weight"),
    (r"^(bundle_emb|string_to_param|emb_params)\b.*", "embedding"),
    (r"^(model\.diffusion_model|first_stage_model|cond_stage_model)\..*", "checkpoint"),
    (r"^(ip_adapter|image_proj)\..*", "IP-Adapter"),
    (r"^(control_model\.|lllite_).*", "ControlNet"),
)
"""Suffixes, or whole names, of other kinds of update."""
OTHERS = [(re.compile(rf"(?:{pattern})\Z", re.DOTALL), kind) for pattern, kind in FOREIGN]


def role(name: str) -> tuple[str, str] | None:
    """The stem and the role of a name: down, up, mid, hada_w1_a, ..., dora_scale, magnitude, alpha.

    None if its suffix is none of these.
    """
    found = ROLES.fullmatch(name.removeprefix(PREFIX))
    if found is None:
        return None
    stem, *ends = found.groups()
    end = next(end for end in ends if end)
    return stem, MEANT.get(end, end)


def foreign(name: str, axes: int) -> str | None:
    """The known but unsupported kind of a name, or None.

    axes: the number of axes of the tensor, which differs between OFT (3) and BOFT (4).
    """
    if name.endswith(".oft_blocks"):
        return "BOFT" if axes == 4 else "OFT"
    return next((kind for pattern, kind in OTHERS if pattern.search(name)), None)
