"""The `.yaml` beside a checkpoint: the configuration of latent-diffusion, as far as it is read."""

from pathlib import Path
from typing import Any

import yaml

from sd.checkpoint.tensor_source import checkpoint_error
from sd.files.regular_file import path_kind, read_bytes

__all__ = ["OriginalConfig", "find_original_config"]

LARGEST = 32 * 2**10
"""The largest file in bytes; official ones are below 3 KiB, and PyYAML reads 100 KiB/s."""
DEEPEST = 50
OriginalConfig = dict[str, str]
"""The text of each key's value, from any level of the file."""

READ = {
    "model",
    "parameterization",
    "beta_schedule",
    "linear_start",
    "linear_end",
    "timesteps",
    "scale_factor",
    "rescale_betas_zero_snr",
    "zero_terminal_snr",
    "zero_snr",
    "ztsnr",
}


class _Loader(yaml.SafeLoader):
    """PyYAML's loader for a few levels, since its work grows with their square."""

    level = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        self.level += 1
        if self.level > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.level -= 1
        return node


def find_original_config(path: Path) -> tuple[Path, OriginalConfig] | None:
    """The `.yaml` or `.yml` beside a checkpoint, with its values of the keys that are read.

    The file is composed, not constructed: no alias is expanded, no tag is resolved.

    Raises ValueError if it is not a YAML mapping, is too large, or has a key with two values.
    """
    for suffix in (".yaml", ".yml"):
        if path_kind(there := path.with_suffix(suffix), "checkpoint") == "file" and there != path:
            return there, _values(there)
    return None


def _values(path: Path) -> OriginalConfig:
    raw = read_bytes(path, "checkpoint", LARGEST)
    try:
        root = yaml.compose(raw, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise checkpoint_error(path, f"not valid YAML ({first})") from error
    if not isinstance(root, yaml.MappingNode):
        raise checkpoint_error(path, "no configuration: not a YAML mapping")
    found: OriginalConfig = {}
    for key, value in _pairs(root):
        known = found.setdefault(key, value)
        if known != value:
            raise checkpoint_error(path, f"{key} is both {known!r} and {value!r}")
    return found


def _pairs(root: yaml.Node) -> list[tuple[str, str]]:
    """The scalars at the keys that are read; each node is visited once, despite aliases."""
    found: list[tuple[str, str]] = []
    seen: set[int] = set()
    left: list[Any] = [root]
    while left:
        node = left.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
            continue
        for key, value in node.value:
            left += (key, value)
            if isinstance(key, yaml.ScalarNode) and key.value in READ:
                scalar = isinstance(value, yaml.ScalarNode)
                found.append((key.value, value.value if scalar else "no single value"))
    return found
