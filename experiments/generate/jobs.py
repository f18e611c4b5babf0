"""The images to generate: prompts with their seeds, from the flags or from a file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from diffusion_math.checks import require, whole
from sd.files.regular_file import parse_json, read_bytes
from sd.text.prompt import encodable, paired

KEYS = ("prompt", "seed", "negative_prompt")
"""The keys of a line that is a JSON object."""


LARGEST = 2**24
"""Largest size of a file, in bytes."""

MOST = 99_999
"""Largest number of prompts in a file; the names have five digits."""


@dataclass(frozen=True)
class Job:
    """One image, and the name of its file."""

    prompt: str
    seed: int
    negative_prompt: str
    file: str


def listed(prompts: Sequence[str], seeds: Sequence[int], against: str) -> list[Job]:
    """A job for every prompt and seed; ValueError where their numbers differ."""
    for prompt in prompts:
        _legal("--", prompt, 0, against)
    pairs = zip(*paired(prompts, seeds[0] if len(seeds) == 1 else seeds), strict=True)
    return [Job(*_legal("--", *pair, against), _name(n, *pair)) for n, pair in enumerate(pairs)]


def read(path: Path, seed: int, against: str) -> list[Job]:
    """The jobs of a UTF-8 file; blank lines and lines that start with # are skipped.

    A line is a prompt, or a JSON object with a prompt and its own seed or negative_prompt. Without
    a seed the n-th has the seed `seed` + n - 1. The name of the n-th is 0000n.png.

    Raises FileNotFoundError where there is no file; ValueError where it is no regular file, larger
    than `LARGEST`, no text, names no prompt or more than `MOST`, where a line's object is not
    valid, and where two lines give the same image.
    """
    try:
        text = read_bytes(path, "--prompts:", LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"--prompts: {path} is no text: byte {error.start} not UTF-8") from error
    if "\0" in text:
        raise ValueError(f"--prompts: {path} is no text: it holds zeros")
    lines: dict[tuple[str, int, str], int] = {}
    rows = re.split(r"\r\n|\n|\r", text)
    for number, line in enumerate((line.strip() for line in rows), 1):
        if line and not line.startswith("#"):
            where = f"--prompts: {path}, line {number}, "
            own = {"seed": seed + len(lines), "negative_prompt": against, **_object(line, where)}
            said = _legal(where, *(own.get(key) for key in KEYS))
            if lines.setdefault(said, number) != number:
                raise ValueError(f"{where}gives the same image as line {lines[said]}")
            if len(lines) > MOST:
                raise ValueError(f"--prompts: {path} names more than {MOST} prompts")
    if not lines:
        raise ValueError(f"--prompts: {path} names no prompt")
    return [Job(*said, f"{n:05d}.png") for n, said in enumerate(lines, 1)]


def batches(jobs: Sequence[Job], size: int) -> list[list[Job]]:
    """Neighbours of one negative prompt together, `size` at most; a function of the jobs alone."""
    alike = [list(group) for _, group in groupby(jobs, lambda job: job.negative_prompt)]
    return [group[i : i + size] for group in alike for i in range(0, len(group), size)]


def _object(line: str, where: str) -> dict[str, Any]:
    """The prompt or the object of a line."""
    if not re.match(r"\{\s*\"", line):
        return {"prompt": line}
    try:
        values: dict[str, Any] = parse_json(line, once=True)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error
    unknown = [name for name in values if name not in KEYS]
    if unknown:
        raise ValueError(f"{where}wanted {', '.join(KEYS)}, got {', '.join(unknown)}")
    return values


def _legal(where: str, prompt: Any, seed: Any, against: Any) -> tuple[str, int, str]:
    """The same three, with ValueError where one is not what it should be."""
    worded = encodable(prompt) and prompt.strip() != ""
    require(worded, f"{where}prompt", "at least one word, in UTF-8", repr(prompt))
    whole(f"{where}seed", seed, 0, 2**64 - 1)
    require(encodable(against), f"{where}negative_prompt", "words, in UTF-8", repr(against))
    return prompt, seed, against


def _name(place: int, prompt: str, seed: int) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "picture"
    return f"{place:02d}-{slug}-seed{seed}.png"
