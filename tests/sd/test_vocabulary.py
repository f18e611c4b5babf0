"""CLIP's vocabulary: the rules against transformers' CLIPTokenizer, and the places it is found."""

import gzip
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd import vocabulary
from sd.tokenizer import END, START

transformers = pytest.importorskip("transformers")

MERGES = [
    ("c", "a"), ("ca", "t</w>"), ("t", "h"), ("th", "e</w>"), ("i", "n"), ("in", "g</w>"),
    ("s", "t"), ("1", "0</w>"), ("'", "s</w>"), ("o", "n</w>"), ("st", "r"), ("é", "e</w>"),
]  # fmt: skip
RULES = vocabulary.of_merges(MERGES)


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
        found = vocabulary.find(checkpoint, named, 8, None)
        return found.encode(["the cat"])[0].tolist()

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a: None)
    wanted = ids(tmp_path, folder)
    assert wanted[0] == RULES.token_to_id(START) and len(wanted) == 8
    with pytest.raises(ValueError, match=r"^tokenizer: .* has no vocabulary of its own; name one"):
        ids(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="wanted a vocabulary of CLIP's, found none at"):
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
    (package / vocabulary.MERGES).write_bytes(gzip.compress(text.encode()))
    spec = SimpleNamespace(submodule_search_locations=[str(package)])
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: spec if name == "open_clip" else None
    )
    assert ids(tmp_path / "model.safetensors") == wanted

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    cached = {name: str(folder / name) for name in ("vocab.json", "merges.txt")}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda _, name: cached[name])
    assert ids(tmp_path / "model.safetensors") == wanted
