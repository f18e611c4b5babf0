"""Find CLIP's vocabulary, and make its tokenizer rules.

A single-file checkpoint has no vocabulary. The search order is: the named folder or file, the
checkpoint's `tokenizer/`, an installed package with CLIP's merges, the cache of the hub.
"""

import gzip
import importlib.util
import io
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from sd.command_line.terminal import escaped
from sd.files.regular_file import parse_json, path_kind, read_bytes
from sd.text.tokenizer import END, LARGEST, START, Tokenizer, as_value_error, read_rules

__all__ = ["clip_rules", "find_tokenizer", "rules_of_merges"]

MERGES = "bpe_simple_vocab_16e6.txt.gz"
PACKAGES = ("open_clip", "clip")
"""Packages whose folder holds CLIP's merges."""
HUB = "openai/clip-vit-large-patch14"
WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""The pattern of a word in CLIP, after the change to lower case."""
SIZE = 49408
ADDED, CONFIG = "added_tokens.json", "tokenizer_config.json"
"""The files in which transformers writes words added to a vocabulary, with their flags."""
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def clip_rules(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """CLIP's byte-level BPE: words by `WORD`, bytes as printable letters, `</w>` at a word's end.

    Source: Radford et al. 2021, arXiv:2103.00020, section 2.4; GPT-2's bytes, 2019, section 2.2.
    """
    rules = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=END)
    )
    rules.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    rules.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rules.add_special_tokens([START, END])
    return rules


def rules_of_merges(merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """CLIP's rules from merges: 256 bytes, the same at the end of a word, merges, start, end."""
    bytes_in_order = _letters()
    names = [*bytes_in_order, *(f"{one}</w>" for one in bytes_in_order)]
    names += ["".join(pair) for pair in merges] + [START, END]
    return clip_rules({name: i for i, name in enumerate(names)}, merges)


def find_tokenizer(
    checkpoint: Path, named: Path | None, context_length: int, pad: int | None
) -> Tokenizer:
    """The tokenizer of a checkpoint. Raises ValueError if there is no vocabulary.

    Args:
        checkpoint: a file or a folder.
        named: a tokenizer.json, a folder with one or with vocab.json and merges.txt, or CLIP's
            merges (.txt, .txt.gz); None searches the places in this module's docstring.
        context_length, pad: see `Tokenizer`.
    """
    places = [named] if named is not None else [checkpoint / "tokenizer", *_packaged(), *_cached()]
    for place in places:
        rules = _read(place)
        if rules is not None:
            return Tokenizer(rules, context_length, pad)
    if named is not None:
        raise ValueError(f"tokenizer: wanted CLIP's vocabulary, got none at {escaped(str(named))}")
    raise ValueError(
        f"tokenizer: {escaped(str(checkpoint))} has no vocabulary of its own; name one with "
        "--tokenizer (a tokenizer.json, or a folder with vocab.json and merges.txt), or install "
        f"open_clip_torch, which contains CLIP's, or run hf download {HUB}"
    )


def _read(place: Path) -> tokenizers.Tokenizer | None:
    """The rules at a place, or None."""
    there = path_kind(place, "tokenizer")
    if there == "folder":
        whole, vocabulary, merges = (
            place / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
        )
        files = (path_kind(vocabulary, "tokenizer"), path_kind(merges, "tokenizer"))
        rules = _of_files(vocabulary, merges) if files == ("file", "file") else _read(whole)
        return None if rules is None else _with_words(place, rules)
    if there is None:
        return None
    if place.name.endswith((".txt", ".txt.gz")):
        with as_value_error(f"tokenizer: {place} has no merges"):
            return rules_of_merges(_pairs(place)[: SIZE - 2 * 256 - 2])
    return read_rules(place)


def _of_files(vocabulary: Path, merges: Path) -> tokenizers.Tokenizer:
    with as_value_error(f"tokenizer: {vocabulary} and {merges} do not fit"):
        names = _object(vocabulary)
        if sorted(names.values(), key=repr) != sorted(range(len(names)), key=repr):
            raise ValueError(f"the ids of {len(names)} words are not 0 to {len(names) - 1}")
        return clip_rules(names, _pairs(merges))


def _with_words(folder: Path, rules: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The rules with the words that other files of the folder add (textual inversion)."""
    added: dict[str, tuple[int, dict[str, Any]]] = {}
    with as_value_error(f"tokenizer: the added words of {folder} cannot be read"):
        for token, settings in _object(folder / CONFIG).get("added_tokens_decoder", {}).items():
            added[settings["content"]] = (int(token), settings)
        for word, token in _object(folder / ADDED).items():
            added.setdefault(word, (token, {}))
        for word, (token, settings) in sorted(added.items(), key=lambda item: item[1][0]):
            flags = {name: bool(settings[name]) for name in FLAGS if name in settings}
            if rules.token_to_id(word) is None:
                rules.add_tokens([tokenizers.AddedToken(word, **flags)])
            if (found := rules.token_to_id(word)) != token:
                raise ValueError(f"{word} has the id {token}, but is in place {found}")
    return rules


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no file."""
    if path_kind(path, "tokenizer") is None:
        return {}
    values = parse_json(read_bytes(path, "tokenizer", LARGEST), once=True)
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return values


def _pairs(path: Path) -> list[tuple[str, str]]:
    """The merges in a file of at most `LARGEST` bytes, whose first line is a comment."""
    raw = read_bytes(path, "tokenizer", LARGEST)
    if path.suffix == ".gz":
        raw = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise ValueError(f"it is more than {LARGEST} bytes")
    text = raw.decode("utf-8")
    lines = text.strip().splitlines()[1:]
    return [(left, right) for left, _, right in (line.partition(" ") for line in lines) if right]


def _packaged() -> list[Path]:
    """The merges of installed packages, found without an import."""
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    return [
        Path(folder) / MERGES
        for spec in specs
        if spec is not None
        for folder in spec.submodule_search_locations or ()
    ]


def _cached() -> list[Path]:
    """CLIP's files in the cache of the hub."""
    import huggingface_hub

    names = ("vocab.json", "merges.txt")
    found = [huggingface_hub.try_to_load_from_cache(HUB, name) for name in names]
    return [Path(found[0]).parent] if all(isinstance(one, str) for one in found) else []


def _letters() -> list[str]:
    """The 256 bytes as printable letters, in the order of CLIP's vocabulary."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in own]
    return [*map(chr, own), *(chr(256 + i) for i in range(len(moved)))]
