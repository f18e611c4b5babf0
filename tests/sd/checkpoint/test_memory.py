"""A load reads each tensor once, as it is needed, and never holds two copies of the weights."""

import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sd.checkpoint import formats, load
from sd.checkpoint.tensor_source import Source
from tests.support import small_models
from tests.support.checkpoint_writers import left_over, whole_openclip
from tests.support.small_models import V2


class Watch:
    """Counts what is fetched, and how many of the tensors fetched are alive at the next fetch."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.alive: list[weakref.ref[Tensor]] = []
        self.most = 0

    def fetching(self, source: Source) -> Callable[[str, slice | None], Tensor]:
        def fetch(name: str, rows: slice | None) -> Tensor:
            self.most = max(self.most, sum(ref() is not None for ref in self.alive))
            tensor = source.fetch(name, rows).clone()
            self.counts[name] += 1
            self.alive.append(weakref.ref(tensor))
            return tensor

        return fetch


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_each_tensor_is_read_once_and_let_go(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = left_over(whole_openclip(small_models.single(V2)))
    path = tmp_path / f"model.{ending}"
    save_file(tensors, path) if ending == "safetensors" else torch.save(tensors, path)
    watch, plain = Watch(), formats.opened

    @contextmanager
    def opened(path: Path) -> Iterator[Source]:
        with plain(path) as source:
            yield replace(source, fetch=watch.fetching(source))

    monkeypatch.setattr(formats, "opened", opened)
    loaded = load(path, prediction="epsilon", dtype=torch.bfloat16)
    packed = {name for name in tensors if "in_proj" in name and "resblocks.3" not in name}
    assert {name for name, count in watch.counts.items() if count != 1} == packed
    assert {watch.counts[name] for name in packed} == {3}  # a third at a time
    unread = {line.name for line in loaded.account.unread} - {"betas", "alphas_cumprod"}
    assert not unread & watch.counts.keys()
    assert watch.most == 0
    assert all(ref() is None for ref in watch.alive)
    monkeypatch.undo()
    exact = load(path, prediction="epsilon")
    small_models.same(exact, V2)
    torch.testing.assert_close(exact.unet.bfloat16().state_dict(), loaded.unet.state_dict())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_needs_no_conversion_is_not_copied(dtype: torch.dtype, tmp_path: Path) -> None:
    """Its pages are the file's, read when they are used, and a change of them stays private."""
    save_file(
        {k: v.to(dtype) for k, v in small_models.single(V2).items()}, tmp_path / "m.safetensors"
    )
    loaded = load(tmp_path / "m.safetensors", prediction="epsilon", dtype=dtype)
    weights = [w for net in (loaded.unet, loaded.vae) for w in net.parameters()]
    assert len({w.untyped_storage().data_ptr() for w in weights}) == len(weights)
    mapped = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith("m.safetensors")
    ]
    assert all(any(a <= w.data_ptr() < b for a, b in mapped) for w in weights)
    before = (tmp_path / "m.safetensors").read_bytes()
    weights[0].zero_()
    assert (tmp_path / "m.safetensors").read_bytes() == before


def test_a_load_that_fails_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = small_models.single(V2)
    tensors["model.diffusion_model.out.2.bias"] = torch.zeros(7)
    save_file(tensors, tmp_path / "model.safetensors")
    watch, plain = Watch(), formats.opened

    @contextmanager
    def opened(path: Path) -> Iterator[Source]:
        with plain(path) as source:
            yield replace(source, fetch=watch.fetching(source))

    monkeypatch.setattr(formats, "opened", opened)
    with pytest.raises(ValueError, match="does not fit"):
        load(tmp_path / "model.safetensors", prediction="epsilon")
    assert not watch.counts


MEASURE = """
import sys, torch
from pathlib import Path
from sd.checkpoint import load, loader
from sd.checkpoint.component import Component

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

class Sampled(dict):
    peak = 0

def fill(network, part, dtype, device):
    tensors = {}
    for name, value in network.state_dict().items():
        tensors[name] = part.read(name, tuple(value.shape), dtype, device)
        Sampled.peak = max(Sampled.peak, anonymous())
    network.load_state_dict(tensors, strict=True, assign=True)
    Sampled.peak = max(Sampled.peak, anonymous())

path, kind, dtype = sys.argv[1:]
dtype = getattr(torch, dtype)
torch.zeros(1) + 1
before = anonymous()
if kind == "ours":
    loader.fill = fill
    model = load(path, dtype=dtype)
    peak = Sampled.peak
else:  # the whole file first, then the networks
    whole = torch.load(path, weights_only=True)
    torch.save(whole, path + ".2")
    model = load(path + ".2", dtype=dtype)
    peak = anonymous()
size = sum(p.numel() for n in (model.text_encoder, model.vae, model.unet) for p in n.parameters())
print(size, peak - before)
"""
LARGE = replace(
    small_models.V1,
    text=replace(small_models.V1.text, width=256, heads=4, intermediate=1024),
    vae=replace(small_models.V1.vae, channels=(128, 256, 256)),
    unet=replace(small_models.V1.unet, channels=(192, 384, 384), context_width=256),
)


@pytest.mark.slow
@pytest.mark.full_size
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_one_copy(tmp_path: Path) -> None:
    """Anonymous memory, which copies take and mapped pages do not; over a file of some 200 MB."""
    path = tmp_path / "model.ckpt"
    torch.save(small_models.single(LARGE), path)
    assert path.stat().st_size > 180e6
    root = Path(__file__).parents[3]

    def measured(kind: str, dtype: str) -> float:
        """Bytes at the peak over bytes of the weights in that type."""
        command = [sys.executable, "-c", MEASURE, str(path), kind, dtype]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        size, peak = map(int, done.stdout.split())
        return peak / (size * getattr(torch, dtype).itemsize)

    # The largest tensor is a few percent of the file, and torch itself takes a few megabytes.
    assert measured("ours", "float32") < 0.15  # mapped
    assert measured("ours", "float16") < 1.25
    assert measured("whole", "float16") > 2.5  # the alternative that this rejects
