"""Ids of the hub: from the cache where it is there, one line where it is not to be had."""

import shutil
from pathlib import Path

import pytest

from sd.checkpoint import hub, load
from tests.support import small_models
from tests.support.small_models import V1

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for module in ("_snapshot_download", "file_download"):
        each = getattr(huggingface_hub, module)
        if hasattr(each, "HF_HUB_CACHE"):
            monkeypatch.setattr(each, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_an_id_is_read_from_the_cache(cache: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = cache / "models--someone--small"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    folder = small_models.write_folder(home / "snapshots" / commit, V1)
    assert hub.resolve("someone/small") == folder
    small_models.same(load("someone/small"), V1)
    file = "unet/diffusion_pytorch_model.safetensors"
    assert hub.resolve(f"someone/small/{file}") == folder / file


def test_an_id_of_one_network_is_read_from_the_cache(cache: Path) -> None:
    """As VAEs are published: config.json and weights at the top."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = cache / "models--someone--vae"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    whole = small_models.write_folder(cache / "whole", V1)
    (home / "snapshots").mkdir()
    (whole / "vae").rename(home / "snapshots" / commit)
    model = small_models.write_folder(cache / "model", V1)
    shutil.rmtree(model / "vae")
    small_models.same(load(model, vae="someone/vae"), V1)
    assert hub.resolve("someone/vae") == home / "snapshots" / commit
    (home / "snapshots" / commit / "config.json").unlink()
    with pytest.raises(ValueError, match="without model_index"):
        hub.resolve("someone/vae")


def test_what_is_fetched_is_what_is_read() -> None:
    bare = ["config.json", "diffusion_pytorch_model.safetensors"]
    half = ["diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model-00001-of-2"]
    other = ["README.md", "diffusion_pytorch_model.bin", "v1-5-pruned.safetensors", *half]
    model = ["model_index.json", "tokenizer/vocab.json", "unet/diffusion_pytorch_model.safetensors"]
    asked = [*bare, *other, *model, "safety_checker/model.safetensors"]
    taken = huggingface_hub.utils.filter_repo_objects(
        asked, allow_patterns=hub.file_patterns((None,))
    )
    assert list(taken) == [*bare, *model]


def test_an_id_that_is_not_to_be_had_says_what_to_do(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"^checkpoint someone/other: no such file") as caught:
        load("someone/other")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(
        "; where there is a network, run hf download someone/other, or give the path of a copy"
    )


@pytest.mark.parametrize("path", ["a/b/c/d", "weights/model.safetensors", "model.ckpt", "a b/c"])
def test_other_paths_are_left_alone(path: str) -> None:
    assert hub.resolve(path) == Path(path)


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "someone" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("someone/small") == Path("someone/small")
