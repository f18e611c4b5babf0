"""CLIP's vocabulary: the rules against transformers' CLIPTokenizer, and the places it is found."""

import gzip
import importlib.util
import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd.text import clip_vocabulary
from sd.text.tokenizer import END, LARGEST, START, Tokenizer, as_value_error

transformers = pytest.importorskip("transformers")

MERGES = [
    ("c", "a"), ("ca", "t</w>"), ("t", "h"), ("th", "e</w>"), ("i", "n"), ("in", "g</w>"),
    ("s", "t"), ("1", "0</w>"), ("'", "s</w>"), ("o", "n</w>"), ("st", "r"), ("é", "e</w>"),
]  # fmt: skip
RULES = clip_vocabulary.rules_of_merges(MERGES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vocab.json and merges.txt as a checkpoint's tokenizer/ has them."""
    place = tmp_path_factory.mktemp("tokenizer")
    (place / "vocab.json").write_text(json.dumps(RULES.get_vocab()), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
    (place / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def peer(folder: Path) -> "transformers.CLIPTokenizer":
    names = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    return transformers.CLIPTokenizer(vocab=names, merges=MERGES)


def test_the_order_is_clips() -> None:
    """256 bytes, the same as ends of words, the merges, start and end: CLIP's own ids."""
    ids = RULES.get_vocab()
    assert (ids["!"], ids["!</w>"], ids["a"], ids["ca"]) == (0, 256, 64, 512)
    assert (ids[START], ids[END]) == (512 + len(MERGES), 513 + len(MERGES))
    assert len(ids) == 514 + len(MERGES)


TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(["cat", "The", "cat's", "100", "strings", " ", "\t", "!?", "é", "猫"]))
    .map("".join),
)  # fmt: skip


@given(text=TEXTS)
def test_tokens_are_those_of_transformers(text: str, peer: "transformers.CLIPTokenizer") -> None:
    wanted = peer(text, add_special_tokens=False)["input_ids"]
    assert RULES.encode(text, add_special_tokens=False).ids == wanted


def test_places_in_their_order(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named place, the checkpoint's own folder, a package, the hub's cache; else one line."""

    def ids(checkpoint: Path, named: Path | None = None) -> list[int]:
        found = clip_vocabulary.find_tokenizer(checkpoint, named, 8, None)
        return found.encode(["the cat"])[0].tolist()

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a: None)
    wanted = ids(tmp_path, folder)
    assert wanted[0] == RULES.token_to_id(START) and len(wanted) == 8
    with pytest.raises(ValueError, match=r"^tokenizer: .* has no vocabulary of its own; name one"):
        ids(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="wanted CLIP's vocabulary, got none at"):
        ids(tmp_path, tmp_path / "nowhere")

    whole = tmp_path / "tokenizer.json"
    RULES.save(str(whole))
    assert ids(tmp_path, whole) == ids(tmp_path / "x", tmp_path) == wanted
    whole.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"is not a tokenizer\.json"):
        ids(tmp_path, whole)

    package = tmp_path / "open_clip"
    package.mkdir()
    text = "\n".join(["comment", *(" ".join(pair) for pair in MERGES)])
    (package / clip_vocabulary.MERGES).write_bytes(gzip.compress(text.encode()))
    spec = SimpleNamespace(submodule_search_locations=[str(package)])
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: spec if name == "open_clip" else None
    )
    assert ids(tmp_path / "model.safetensors") == wanted

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    cached = {name: str(folder / name) for name in ("vocab.json", "merges.txt")}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda _, name: cached[name])
    assert ids(tmp_path / "model.safetensors") == wanted


def words_of(folder: Path) -> Tokenizer:
    return clip_vocabulary.find_tokenizer(folder, folder, 12, None)


ADDED = ["<toy-cat>", "<toy-cat>_1", "<toy-cat>_2", "sks"]
PROMPTS = (
    "a <toy-cat> in the string", "<toy-cat>_1 on", "a<toy-cat>b", "sks cat", "asks",
)  # fmt: skip


def saved(folder: Path, kept: tuple[str, ...]) -> "transformers.CLIPTokenizer":
    """CLIP's tokenizer as transformers saves it with words that were added; then some files."""
    peer = transformers.CLIPTokenizer(vocab=RULES.get_vocab(), merges=MERGES)
    peer.add_tokens(ADDED)
    peer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(RULES.get_vocab()), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    ids = {word: peer.convert_tokens_to_ids(word) for word in ADDED}
    (folder / "added_tokens.json").write_text(json.dumps(ids))
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "special": False}
    decoder = {i: {"content": word, "single_word": False, **flags} for word, i in ids.items()}
    config = folder / "tokenizer_config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "added_tokens_decoder": decoder})
    )
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()
    return peer


@pytest.mark.parametrize(
    "kept",
    [
        ("tokenizer.json",),
        ("vocab.json", "merges.txt", "added_tokens.json"),
        ("vocab.json", "merges.txt", "tokenizer_config.json"),
        (
            "vocab.json",
            "merges.txt",
            "tokenizer_config.json",
            "added_tokens.json",
            "tokenizer.json",
        ),
    ],
    ids=["whole", "added tokens", "their flags", "all"],
)
def test_added_words_are_those_of_transformers_and_diffusers(
    kept: tuple[str, ...], tmp_path: Path
) -> None:
    """After textual inversion: a word of several vectors stands for all, as in diffusers."""
    from diffusers.loaders import TextualInversionLoaderMixin

    peer = saved(tmp_path, kept)
    found = words_of(tmp_path)
    assert found.vocab_size == len(peer) == 514 + len(MERGES) + len(ADDED)
    for prompt in PROMPTS:
        text = TextualInversionLoaderMixin().maybe_convert_prompt(prompt, peer)
        wanted = peer(text, add_special_tokens=False)["input_ids"]
        assert [i for _, ids in found.words_of(prompt) for i in ids] == wanted, prompt
        assert found.encode([prompt])[0, 1 : 1 + len(wanted)].tolist() == wanted
    first = found.encode(["<toy-cat>"])[0, 1:4].tolist()
    assert first == [514 + len(MERGES) + i for i in range(3)]
    assert found.encode(["<TOY-CAT>"])[0, 1:4].tolist() == first  # where diffusers takes one


def write(folder: Path, name: str, raw: bytes | dict[str, object]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(raw if isinstance(raw, bytes) else json.dumps(raw).encode())


NAMES = RULES.get_vocab()
MERGE_LINES = "\n".join(["#", *(" ".join(pair) for pair in MERGES)]).encode()
ZIPPED = gzip.compress(MERGE_LINES)
RULES_TEXT = json.loads(RULES.to_str())
DAMAGED: dict[str, tuple[str, bytes | dict[str, object]]] = {
    "not gzip": ("a.txt.gz", b"not gz"),
    "gzip cut short": ("a.txt.gz", ZIPPED[:-9]),
    "gzip with a wrong sum": ("a.txt.gz", ZIPPED[:-8] + bytes(8)),
    "gzip of no text": ("a.txt.gz", gzip.compress(b"\xff\xfe\xfd")),
    "gzip of too much": ("a.txt.gz", gzip.compress(bytes(LARGEST + 1))),
    "merges that are not UTF-8": ("a.txt", b"#\nc \xff\n"),
    "merges of unknown letters": ("a.txt", "#\n\u732b \u732b\n".encode()),
    "not UTF-8": ("tokenizer.json", b"\xff\xfe\xfd"),
    "no JSON": ("tokenizer.json", b"{"),
    "deep JSON": ("tokenizer.json", b"[" * 100_000),
    "no rules": ("tokenizer.json", b"[]"),
    "bytes that make the library panic": (
        "tokenizer.json",
        RULES_TEXT | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA" * 100}},
    ),
    "the same, deeper": (
        "tokenizer.json",
        RULES_TEXT | {"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": "AAAA" * 100}]}},
    ),
    "two words of one id": (
        "tokenizer.json",
        RULES_TEXT | {"model": RULES_TEXT["model"] | {"vocab": NAMES | {"ca": 0}}},
    ),
    "an id of two ids": ("vocab.json", {**NAMES, "ca": 0}),
    "a hole": ("vocab.json", {**NAMES, "ca": len(NAMES)}),
    "a negative id": ("vocab.json", {**NAMES, "ca": -1}),
    "an id of 2^31": ("vocab.json", {**NAMES, "ca": 2**31}),
    "an id of 2^64": ("vocab.json", {**NAMES, "ca": 2**64}),
    "an id that is a text": ("vocab.json", {**NAMES, "ca": "1"}),
    "no object": ("vocab.json", b"[1, 2]"),
    "a word twice": ("vocab.json", b'{"a": 0, "a": 1}'),
    "merges that do not fit": ("vocab.json", {"a": 0, START: 1, END: 2}),
    "an added word beyond the table": ("added_tokens.json", {"<cat>": len(NAMES) + 1}),
    "an added word in its midst": ("added_tokens.json", {"<cat>": 5}),
    "an added word of a negative id": ("added_tokens.json", {"<cat>": -1}),
    "added words that are none": ("added_tokens.json", b'{"<cat>": "x"}'),
    "added words in a list": ("added_tokens.json", b"[1]"),
    "an entry that is none": ("tokenizer_config.json", {"added_tokens_decoder": {"540": 3}}),
    "entries that are none": ("tokenizer_config.json", {"added_tokens_decoder": [3]}),
    "an entry of no number": (
        "tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "<cat>"}}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line(name: str, tmp_path: Path) -> None:
    file, raw = DAMAGED[name]
    place = tmp_path / "words"
    if file not in ("tokenizer.json", "a.txt", "a.txt.gz"):
        write(place, "vocab.json", dict(NAMES))
        write(place, "merges.txt", MERGE_LINES)
    write(place, file, raw)
    with pytest.raises(ValueError, match=r"\S") as caught:
        words_of(place if place.joinpath("vocab.json").exists() else place / file)
    assert "\n" not in str(caught.value)


def test_a_panic_is_an_error_and_a_stop_is_none() -> None:
    class Panic(BaseException):
        pass

    with pytest.raises(ValueError, match="it: broken"), as_value_error("it"):
        raise Panic("broken")
    for stop in (KeyboardInterrupt, SystemExit):
        with pytest.raises(stop), as_value_error("it"):
            raise stop


def test_a_small_file_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 MB of zeros in 16 KB the first 64 KB are read."""
    write(tmp_path, "a.txt.gz", gzip.compress(bytes(2**24)))
    monkeypatch.setattr(clip_vocabulary, "LARGEST", 2**16)
    tracemalloc.start()
    with pytest.raises(ValueError, match="it is more than 65536 bytes"):
        words_of(tmp_path / "a.txt.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22
