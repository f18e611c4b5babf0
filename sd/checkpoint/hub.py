"""Find a model of the Hugging Face hub by its id: in the cache, else by download."""

import re
from collections.abc import Sequence
from pathlib import Path

from sd.checkpoint.tensor_source import checkpoint_error
from sd.files.regular_file import path_kind

__all__ = ["file_patterns", "resolve"]

ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+?)(?:/([\w./-]+\.(?:safetensors|ckpt|bin|pt)))?")
WEIGHTS = (".safetensors", ".ckpt", ".bin", ".pt", ".pth")
INDEX, BARE = "model_index.json", "config.json"
"""The files that identify a folder of a whole model, and of one network (such as a VAE)."""
READ = (INDEX, BARE, "*/config.json", "scheduler/scheduler_config.json", "tokenizer/*")


def resolve(path: Path | str, variants: Sequence[str | None] = (None,)) -> Path:
    """The local path of a path or a hub id (`org/name` or `org/name/file.safetensors`).

    If a folder is not in the cache, its weights in all these variants are downloaded.

    Raises ValueError, which says what to do, if the id is not in the cache and the download fails.
    """
    asked = str(path)
    found = ID.fullmatch(asked)
    local = Path(path)
    if (
        found is None
        or path_kind(local, "checkpoint")
        or (found[2] is None and asked.endswith(WEIGHTS))
    ):
        return local
    for cached in (True, False):
        try:
            return Path(_fetched(found[1], found[2], variants, cached))
        except Exception as error:  # whatever the hub's client raises, of any of its versions
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    raise checkpoint_error(
        asked,
        f"no such file or folder, not in the hub's cache, and not to be had ({reason}); where "
        f"there is a network, run hf download {found[1]}, or give the path of a copy",
    )


def _fetched(name: str, file: str | None, variants: Sequence[str | None], cached: bool) -> str:
    """The path of one file, or of the folder with all files that a load reads."""
    import huggingface_hub as hub  # its import takes a second, which a local file does not need

    if file is not None:
        return str(hub.hf_hub_download(name, file, local_files_only=cached))
    path = hub.snapshot_download(
        name, allow_patterns=file_patterns(variants), local_files_only=cached
    )
    if not any((Path(path) / known).is_file() for known in (INDEX, BARE)):
        raise FileNotFoundError(f"{name} is there without {INDEX} or {BARE}")
    return path


def file_patterns(variants: Sequence[str | None]) -> list[str]:
    """Patterns of the files in a hub's folder that a load reads."""
    stems = [f"{network}/*model" for network in ("unet", "vae", "text_encoder")]
    found = list(READ)
    for variant in variants:
        dot = f".{variant}" if variant else ""
        ends = (f"{dot}.safetensors", f"{dot}-*.safetensors", f".safetensors.index{dot}.json")
        found += [
            stem + end for stem in (*stems, "diffusion_pytorch_model", "model") for end in ends
        ]
    return found
