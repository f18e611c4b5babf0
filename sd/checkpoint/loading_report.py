"""The report of a load: the use of each tensor, and why others are unused."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import torch
from torch import nn

from sd.checkpoint.component import CALLED, Component
from sd.checkpoint.infer_config import complete_openclip
from sd.checkpoint.tensor_source import Source, option, printable

__all__ = ["LoadingReport", "TensorUse", "fault_table", "match_tensors", "require_finite_tensor"]

SHOWN = 12
"""Names that a message lists per fault before "and n more"."""

UNREAD: tuple[tuple[str, str], ...] = (
    (r"model_ema\.(decay|num_updates)$", "a number of the training"),
    (r"model_ema\.", f"moving average; {option('ema', True)} reads it"),
    (
        r"(betas|alphas_cumprod(_prev)?|sqrt_(one_minus_|recip_|recipm1_)?alphas_cumprod"
        r"|log_one_minus_alphas_cumprod|posterior_(variance|log_variance_clipped|mean_coef[12])"
        r"|lvlb_weights|logvar|sigmas|log_sigmas|denoiser\.(sigmas|log_sigmas))$",
        "the noise schedule, which is computed",
    ),
    (r"scale_factor$", "the scale of latents, which is read"),
    (r"(v_pred|ztsnr)$", "a mark of the training, which is read"),
    (r"(first_stage_model\.)?loss\.", "the training's loss"),
    (r"(global_step|epoch|step|iteration|num_updates|decay)$", "a number of the training"),
    (r"(.*\.)?position_ids$", "the numbers 0, 1, 2, ..."),
    (r"(.*\.)?(text_projection(\.weight)?|logit_scale)$", "of CLIP's comparison with images"),
    (r"(.*\.)?attn_mask$", "the causal mask, which is computed"),
)
"""Names of tensors that no network here reads, and what they are."""


class TensorUse(NamedTuple):
    """One tensor name of a file, and its use."""

    file: str
    name: str
    use: str


@final
@dataclass(frozen=True)
class LoadingReport:
    """The use of every tensor name in the opened files.

    used: names with the network that has them; unread: other names, with the reason; notes: choices
    that tensors do not determine.
    """

    used: tuple[TensorUse, ...]
    unread: tuple[TensorUse, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = Counter((line.file, f"to the {line.use}") for line in self.used)
        counts += Counter((line.file, f"unread: {line.use}") for line in self.unread)
        lines = [f"{file}: {count} {use}" for (file, use), count in counts.items()]
        return "\n".join([*lines, *self.notes])


def match_tensors(
    path: Path,
    chosen: Mapping[str, Component],
    found: Sequence[Component],
    sources: Sequence[Source],
    networks: Mapping[str, nn.Module],
) -> LoadingReport:
    """Match the tensors of the files to those of the networks, before any weight is read.

    Args:
        path: the requested path, for the first line of a message.
        chosen: the component for each network.
        found: all components in the sources.
        sources: all open files.
        networks: on the meta device.

    Raises:
        ValueError: names are missing or unexpected, or have another shape or no floating-point
            dtype. The message lists all of them, by their names in the files.
    """
    faults: dict[str, list[str]] = {
        "missing": [],
        "unexpected": [],
        "misshapen": [],
        "mistyped": [],
    }
    used: list[TensorUse] = []
    claimed: set[tuple[Path, str]] = set()
    for kind, part in chosen.items():
        for name, value in networks[kind].state_dict().items():
            there = part.where(name)[0]
            if (part.source.path, there) in claimed:
                continue  # the second or last third of a packed tensor
            claimed.add((part.source.path, there))
            used.append(TensorUse(str(part.source.path), there, CALLED[kind]))
            for fault, text in _compared(part, name, there, tuple(value.shape)):
                faults[fault].append(_where(path, part.source) + text)
    unread: list[TensorUse] = []
    for source in sources:
        excused = _excused(source, chosen, found)
        rest = [name for name in source.entries if (source.path, name) not in claimed]
        for name in rest:
            reason = _reason(name, excused)
            if reason is None:
                faults["unexpected"].append(_where(path, source) + name)
            else:
                unread.append(TensorUse(str(source.path), name, reason))
        unread += [TensorUse(str(source.path), name, what) for name, what in source.aside.items()]
    if any(faults.values()):
        raise ValueError(fault_table(f"checkpoint {path} does not fit: ", faults))
    return LoadingReport(tuple(used), tuple(unread))


def _compared(
    part: Component, name: str, there: str, shape: tuple[int, ...]
) -> Iterator[tuple[str, str]]:
    """The faults of one tensor of a file: (fault, text)."""
    entry = part.source.entries.get(there)
    if entry is None:
        yield "missing", there
        return
    valid = part.valid_shapes(name, shape)
    if entry.shape not in valid:
        yield "misshapen", f"{there} is {entry.shape}, not {valid[0]}"
    if not entry.dtype.is_floating_point:
        yield "mistyped", f"{there} is {str(entry.dtype).removeprefix('torch.')}"


def _excused(
    source: Source, chosen: Mapping[str, Component], found: Sequence[Component]
) -> list[tuple[str, str]]:
    """Prefixes of names that may be unused, and why."""
    picked = list(chosen.values())
    reasons: list[tuple[str, str]] = []
    for part in (part for part in found if part.source is source):
        if complete_openclip(part):
            last = part.count(r"transformer\.resblocks\.(\d+)\.") - 1
            layer = f"{part.prefix}transformer.resblocks.{last}."
            reasons.append((layer, "the layer behind the one that is read"))
        if part not in picked:
            reasons.append((part.prefix, f"a {CALLED[part.kind]} that is not used"))
        elif part.ema:
            reasons.append(
                (part.prefix, f"not the moving average, which {option('ema', True)} reads")
            )
    return reasons


def _reason(name: str, excused: Sequence[tuple[str, str]]) -> str | None:
    """Why a name may be unused; None if it is unexpected."""
    for start, why in excused:
        if name.startswith(start):
            return why
    return next((what for pattern, what in UNREAD if re.match(pattern, name)), None)


def _where(path: Path, source: Source) -> str:
    """The file of a name, if there are several files."""
    return "" if source.path == path else f"{source.path.parent.name}/{source.path.name}: "


def fault_table(head: str, faults: Mapping[str, list[str]]) -> str:
    """A message that counts the faults in its first line and then lists their names."""
    counts = ", ".join(f"{len(names)} {fault}" for fault, names in faults.items() if names)
    lines = [head + counts]
    for fault, names in faults.items():
        lines += [f"  {fault:<10}  {printable(name)}" for name in names[:SHOWN]]
        if len(names) > SHOWN:
            lines.append(f"  {fault:<10}  and {len(names) - SHOWN} more")
    return "\n".join(lines)


def require_finite_tensor(path: Path, name: str, value: torch.Tensor) -> None:
    """Raise ValueError if an entry of a tensor is not finite.

    A finite sum shows that all entries are finite, in one pass; an infinite one may be an overflow.
    """
    total = value.sum(dtype=torch.promote_types(value.dtype, torch.float32))
    if not bool(total.isfinite()) and not bool(value.isfinite().all()):
        kind = str(value.dtype).removeprefix("torch.")
        raise ValueError(f"checkpoint {path}: {name} is not finite in {kind}")
