"""Textual-inversion embeddings: a word and its vectors, added to tokenizer and text encoder.

Source: Gal et al. 2022, arXiv:2208.01618.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sd.checkpoint import formats, pickle_file
from sd.checkpoint.tensor_source import Entry, checkpoint_error

__all__ = ["Embedding", "add_embedding", "read_embedding"]

SDXL = {"clip_l", "clip_g"}
TABLE = "embeddings.token_embedding.weight"
"""The token embedding of the text encoder."""


@final
@dataclass(frozen=True, eq=False)
class Embedding:
    """A word and its vectors, float32 on the CPU."""

    name: str
    vectors: Float[Tensor, "count width"]


def read_embedding(path: Path | str, width: int | None = None) -> Embedding:
    """The embedding in a file.

    Args:
        path: AUTOMATIC1111's `.pt` ("string_to_param") or `.safetensors` ("emb_params"), where the
            file name is the word; or diffusers' {token: vectors}, where the token is the word.
        width: the width of the text encoder, for a check.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, hostile, none of these, of more than one word, or of another
            width.
    """
    path = Path(path)
    if formats.is_zip(path):
        return _checked(path, _states(path, pickle_file.load_pickle_file(path)), width)
    with formats.opened(path) as source:
        if len(source.entries) > 2:
            raise checkpoint_error(path, f"no embedding: it holds {len(source.entries)} tensors")
        whole = all(math.prod(entry.shape) > 0 for entry in source.entries.values())
        tensors = {n: source.fetch(n, None) if whole else e for n, e in source.entries.items()}
        return _checked(path, tensors, width)


@torch.no_grad()
def add_embedding(model: Any, path: Path | str) -> Embedding:
    """Add the word of a file to the tokenizer and the text encoder of a model.

    Args:
        model: any object with a tokenizer and a text_encoder, such as `sd.pipeline.TextToImage`.
        path: as in `read_embedding`.

    Returns:
        The embedding, with its word. If the word cannot be typed, the name of the file replaces it,
        with a warning.

    Raises FileNotFoundError and ValueError as `read_embedding` does. Also raises ValueError if the
    word is known already, or if neither it nor the name of the file can be typed.
    """
    path = Path(path)
    table = model.text_encoder.get_submodule(TABLE.rpartition(".")[0])
    found = read_embedding(path, table.embedding_dim)
    if model.tokenizer.typed(found.name) is None:
        what = f"the word {found.name!r} cannot be typed; after its file it is {path.stem!r}"
        warnings.warn(f"{path}: {what}", stacklevel=2)
        found = replace(found, name=path.stem)
    offload, place = getattr(model, "offload", None), ("text_encoder", TABLE)
    before = table.weight if offload is None else offload.read(*place)
    vectors = found.vectors.to(before)
    if not bool(vectors.isfinite().all()):
        raise checkpoint_error(path, f"{found.name} is not finite in {before.dtype}")
    try:
        model.tokenizer.learn(
            found.name, range(len(table.weight), len(table.weight) + len(found.vectors))
        )
    except ValueError as error:
        raise checkpoint_error(path, str(error)) from error
    weight = torch.cat([before, vectors])
    if offload is None:
        table.weight = nn.Parameter(weight, requires_grad=table.weight.requires_grad)
    else:
        offload.keep(*place, weight)
    table.num_embeddings = len(weight)
    return found


def _states(path: Path, whole: Any) -> dict[str, Any]:
    """The tensors by name in a value that torch.save wrote."""
    if not isinstance(whole, Mapping):
        raise checkpoint_error(path, f"no embedding: it holds a {type(whole).__name__}")
    inner = whole.get("string_to_param")
    if isinstance(inner, Mapping) and len(inner) == 1:
        return {"emb_params": next(iter(inner.values()))}
    found = whole if inner is None else inner
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise checkpoint_error(path, "no embedding: what it holds is not called by words")
    return dict(found)


def _checked(path: Path, tensors: Mapping[str, Any], width: int | None) -> Embedding:
    """The only word of a file, with valid vectors."""
    if SDXL & set(tensors):
        raise checkpoint_error(path, "an SDXL embedding, not one of Stable Diffusion v1 or v2")
    if len(tensors) != 1:
        raise checkpoint_error(
            path, f"no embedding of one word: it names {', '.join(tensors) or 'none'}"
        )
    ((name, value),) = tensors.items()
    there = isinstance(value, Tensor) and value.is_floating_point() and value.numel()
    if not there or value.ndim not in (1, 2):
        known = isinstance(value, Entry | Tensor)
        found = tuple(value.shape) if known else type(value).__name__
        raise checkpoint_error(path, f"{name} is {found}, not vectors (count, width)")
    vectors = value.detach().reshape(-1, value.shape[-1]).to("cpu", torch.float32, copy=True)
    if not bool(vectors.isfinite().all()):
        raise checkpoint_error(path, f"{name} is not finite")
    if width is not None and vectors.shape[1] != width:
        raise checkpoint_error(path, f"{name} is {vectors.shape[1]} wide, the text encoder {width}")
    return Embedding(path.stem if name == "emb_params" else name, vectors)
