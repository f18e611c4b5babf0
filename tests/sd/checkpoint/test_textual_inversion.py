"""Textual-inversion embeddings of every common kind, and one line for what is none."""

import json
import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import Tensor, nn

from sd.checkpoint import textual_inversion
from sd.text.tokenizer import Tokenizer, word_level

VECTORS = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
A1111 = {
    "string_to_token": {"*": 265},
    "string_to_param": {"*": VECTORS},
    "name": "what it was called once",
    "step": 500,
    "sd_checkpoint": None,
    "sd_checkpoint_name": None,
}
KINDS: dict[str, tuple[str, Any, str, Tensor]] = {
    "AUTOMATIC1111": ("cat-toy.pt", A1111, "cat-toy", VECTORS),
    "AUTOMATIC1111, trained": (
        "cat.pt", {"string_to_param": {"*": torch.nn.Parameter(VECTORS)}}, "cat", VECTORS
    ),
    "AUTOMATIC1111, safetensors": ("cat.safetensors", {"emb_params": VECTORS}, "cat", VECTORS),
    "half": ("cat.safetensors", {"emb_params": VECTORS.half()}, "cat", VECTORS.half().float()),
    "AUTOMATIC1111, a number for the star": (
        "cat.pt", {"string_to_param": {5: VECTORS}}, "cat", VECTORS
    ),
    "diffusers": ("learned_embeds.bin", {"<cat>": VECTORS[0].clone()}, "<cat>", VECTORS[:1]),
    "diffusers, several vectors": ("a.bin", {"<cat>": VECTORS}, "<cat>", VECTORS),
    "diffusers, safetensors": (
        "learned_embeds.safetensors", {"<cat>": VECTORS[1].clone()}, "<cat>", VECTORS[1:2]
    ),
}  # fmt: skip


def write(path: Path, values: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(values, path)
    else:
        torch.save(values, path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_reads(kind: str, tmp_path: Path) -> None:
    file, values, name, vectors = KINDS[kind]
    path = write(tmp_path / file, values)
    found = textual_inversion.read_embedding(path, width=8)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert found.name == name
    assert found.vectors.dtype == torch.float32
    assert torch.equal(found.vectors, vectors)


class Hostile:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


BAD: dict[str, tuple[str, Any, str]] = {
    "SDXL": (
        "a.safetensors",
        {"clip_l": torch.zeros(1, 8), "clip_g": torch.zeros(1, 16)},
        "an SDXL embedding, not one of Stable Diffusion v1 or v2",
    ),
    "a checkpoint": (
        "a.safetensors",
        {f"tensor{i}": torch.zeros(1) for i in range(9)},
        "no embedding: it holds 9 tensors",
    ),
    "two words": (
        "a.bin", {"<a>": VECTORS, "<b>": VECTORS}, "no embedding of one word: it names <a>, <b>"
    ),
    "nothing": ("a.bin", {}, "no embedding of one word: it names none"),
    "a list": ("a.bin", [1], "no embedding: it holds a list"),
    "no vectors": (
        "a.bin", {"<a>": torch.zeros(2, 3, 4)}, "<a> is (2, 3, 4), not vectors (count, width)"
    ),
    "a number": ("a.bin", {"<a>": 3}, "<a> is int, not vectors (count, width)"),
    "integers": ("a.bin", {"<a>": torch.zeros(8).int()}, "<a> is (8,), not vectors (count, width)"),
    "not finite": ("a.bin", {"<a>": torch.full((8,), torch.inf)}, "<a> is not finite"),
    "another width": ("a.bin", {"<a>": torch.zeros(9)}, "<a> is 9 wide, the text encoder 8"),
    "a number for a word": (
        "a.bin", {5: VECTORS}, "no embedding: what it holds is not called by words"
    ),
    "numbers for words": (
        "a.pt",
        {"string_to_param": {5: VECTORS, 6: VECTORS}},
        "no embedding: what it holds is not called by words",
    ),
    "more than the star": (
        "a.pt",
        {"string_to_param": {"*": VECTORS, "+": VECTORS}},
        "no embedding of one word: it names *, +",
    ),
    "parameters that are none": (
        "a.pt", {"string_to_param": 3}, "no embedding: what it holds is not called by words"
    ),
    "no numbers": (
        "a.safetensors", {"emb_params": torch.zeros(0, 8)},
        "emb_params is (0, 8), not vectors (count, width)",
    ),
    "shared": (
        "a.bin", {"<a>": torch.zeros(1, 1).expand(99, 8)}, "<a> claims 3168 bytes and shares fewer"
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested", "ignore:torch.quantize_per")
def test_tensors_without_numbers_are_refused(tmp_path: Path) -> None:
    """On no device, of many lengths, quantised, sparse, or of a shape beyond all numbers."""
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    quantised = torch.quantize_per_tensor(torch.zeros(2, 8), 0.1, 0, torch.qint8)
    path = tmp_path / "a.bin"
    for value in (torch.zeros(2, 8, device="meta"), nested, quantised, torch.eye(8).to_sparse()):
        torch.save({"<a>": value}, path)
        with pytest.raises(ValueError, match="checkpoint"):
            textual_inversion.read_embedding(path, width=8)
    entry = {"dtype": "F32", "shape": [2**62, 2**62, 0], "data_offsets": [0, 0]}
    head = json.dumps({"emb_params": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(ValueError, match="checkpoint"):
        textual_inversion.read_embedding(path, width=8)


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_embedding_has_its_line(kind: str, tmp_path: Path) -> None:
    file, values, line = BAD[kind]
    path = write(tmp_path / file, values)
    with pytest.raises(ValueError, match="checkpoint") as caught:
        textual_inversion.read_embedding(path, width=8)
    assert str(caught.value) == f"checkpoint {path}: {line}"


def test_a_hostile_embedding_is_refused_and_does_not_run(tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "cat.pt"
    torch.save({"string_to_param": {"*": Hostile(proof)}}, path)
    with pytest.raises(ValueError, match=r"its pickle names posix\.system, which is not run"):
        textual_inversion.read_embedding(path)
    assert not proof.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is missing"):
        textual_inversion.read_embedding(tmp_path / "cat.pt")


class Encoder(nn.Module):
    """What of a text encoder an embedding touches."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embeddings = nn.Module()
        self.embeddings.token_embedding = nn.Embedding(5, 8, dtype=dtype)


def model(dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    tokenizer = Tokenizer(word_level(("cat", "a")), 6)
    return SimpleNamespace(tokenizer=tokenizer, text_encoder=Encoder(dtype))


def teach(model: SimpleNamespace, folder: Path, name: str, file: str = "file.bin") -> str:
    return textual_inversion.add_embedding(model, write(folder / file, {name: VECTORS})).name


IDS = (5, 6, 7)
FORMS = {
    "composed, decomposed": ("caf\u00e9", "cafe\u0301"),
    "decomposed, composed": ("cafe\u0301", "caf\u00e9"),
    "case": ("<Toy-Cat>", "<toy-cat>"),
    "ligature": ("\ufb01sh", "fish"),
    "space around": (" cat-toy\n", "cat-toy"),
    "two words": ("toy  cat", "Toy   cat"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_word_is_known_in_every_form_that_the_vocabulary_takes_for_one(
    form: str, tmp_path: Path
) -> None:
    name, typed = FORMS[form]
    one = model()
    teach(one, tmp_path, name)
    assert one.tokenizer.unused_words == [one.tokenizer.typed(name)]
    for text in (f"a {typed}", f"{typed}, a cat"):
        assert IDS in [ids for _, ids in one.tokenizer.words_of(text)]
    assert one.tokenizer.unused_words == []
    with pytest.raises(ValueError, match="is known already"):
        teach(one, tmp_path, typed)


def test_words_that_the_tokenizer_has_by_itself_stay_as_they_are(tmp_path: Path) -> None:
    """An added token is told by its case, which is not lost beside a word that is learned."""
    one = model()
    rules = word_level(("cat", "a"))
    rules.add_tokens([AddedToken("<Dog>", normalized=False)])
    one.tokenizer = Tokenizer(rules, 6)
    teach(one, tmp_path, "<cat>")
    assert [ids for _, ids in one.tokenizer.words_of("a <Dog> <CAT>")] == [(2,), (5,), IDS]
    for name in ("<Dog>", "<|endoftext|>"):
        with pytest.raises(ValueError, match="is known already"):
            teach(one, tmp_path, name, "other.bin")


def test_a_word_of_signs_may_touch_others_and_one_of_letters_may_not(tmp_path: Path) -> None:
    one = model()
    teach(one, tmp_path, "<t>")
    teach(one, tmp_path, "cat", "other.bin")
    assert [ids for _, ids in one.tokenizer.words_of("a<t>a")][1] == IDS
    assert (8, 9, 10) not in [ids for _, ids in one.tokenizer.words_of("acat cats cat2")]


@pytest.mark.parametrize("name", ["", " \n", "a\x00b", "a\u200bb", "\x1b[2J", "a\tb", "\u00a0"])
def test_a_word_that_nobody_can_type_gives_way_to_the_name_of_the_file(
    name: str, tmp_path: Path
) -> None:
    one = model()
    with pytest.warns(UserWarning, match="cannot be typed; after its file it is 'Style'") as seen:
        assert teach(one, tmp_path, name, "Style.bin") == "Style"
    assert str(seen[0].message).isprintable()
    assert IDS in [ids for _, ids in one.tokenizer.words_of("a style")]
    with (
        pytest.warns(UserWarning, match="cannot be typed"),
        pytest.raises(ValueError, match=r"the word .* cannot be typed"),
    ):
        teach(model(), tmp_path, name, "\u200b.bin")


def test_a_half_of_a_surrogate_pair_is_no_word() -> None:
    tokenizer = Tokenizer.embedded()
    assert tokenizer.typed("caf\udce9") is None
    with pytest.raises(ValueError, match=r"the word 'caf\\udce9' cannot be typed"):
        tokenizer.learn("caf\udce9", IDS)


def test_vectors_that_a_narrow_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bin", {"<a>": 1e5 * torch.ones(1, 8)})
    one = model(torch.float16)
    with pytest.raises(ValueError, match=r"<a> is not finite in torch\.float16"):
        textual_inversion.add_embedding(one, path)
    assert one.tokenizer.unused_words == []
