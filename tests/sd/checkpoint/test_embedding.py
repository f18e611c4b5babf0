"""Textual-inversion embeddings of every common kind, and one line for what is none."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sd.checkpoint import embedding

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
    found = embedding.read(path, width=8)
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
    "shared": (
        "a.bin", {"<a>": torch.zeros(1, 1).expand(99, 8)}, "<a> claims 3168 bytes and shares fewer"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_embedding_has_its_line(kind: str, tmp_path: Path) -> None:
    file, values, line = BAD[kind]
    path = write(tmp_path / file, values)
    with pytest.raises(ValueError, match="checkpoint") as caught:
        embedding.read(path, width=8)
    assert str(caught.value) == f"checkpoint {path}: {line}"


def test_a_hostile_embedding_is_refused_and_does_not_run(tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "cat.pt"
    torch.save({"string_to_param": {"*": Hostile(proof)}}, path)
    with pytest.raises(ValueError, match=r"its pickle asks for posix\.system, which is not run"):
        embedding.read(path)
    assert not proof.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is missing"):
        embedding.read(tmp_path / "cat.pt")
