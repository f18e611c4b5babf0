"""Stable Diffusion v1.5 at full size, random weights: ours, diffusers, the engine alone."""

import copy
import gc
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks import cpp
from benchmarks.compare import Row, compare
from diffusion_math.noise import start_noise
from sd import checkpoint
from sd.config import V15
from sd.engine import OpenVINO
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.text.conditioning import rows
from sd.text.tokenizer import Tokenizer, word_level
from sd.weights import blank

PROMPT, SIDE, STEPS, SCALE = "word1 word7", 512, 4, 7.5
PEAKS = ("ours", "low memory", "diffusers")
"""Whose memory is measured; the second is ours with `low_memory`."""
NETWORKS = {"text_encoder": (TextEncoder, "text"), "vae": (VAE, "vae"), "unet": (UNet, "unet")}


def full_size_rows(rounds: int) -> list[Row]:
    """Text encoder, guided U-Net step, decoder and whole picture, in float32 and bfloat16.

    The pictures' times differ (trailing, leading), so of these the time alone is compared.
    stable-diffusion.cpp is a peer of the whole picture where it is installed.
    """
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write(folder)
        for dtype in (torch.float32, torch.bfloat16):
            found += _rows(folder, dtype, rounds)
            gc.collect()
    return found


def _rows(folder: Path, dtype: torch.dtype, rounds: int) -> Iterator[Row]:
    name = str(dtype).removeprefix("torch.")
    off = 1e-3 if dtype == torch.float32 else 0.2
    pipeline, peer = TextToImage.load(folder, device="cpu", dtype=dtype), _peer(folder, dtype)
    tokens = torch.cat(_tokens(folder))
    contexts = pipeline.encode_prompts(["", PROMPT])
    denoise = pipeline.denoiser((contexts[:1], contexts[1:]), SCALE)
    x = start_noise([0], (4, SIDE // 8, SIDE // 8), torch.float32)
    t = torch.tensor(500.0, dtype=torch.float64)
    z = 0.2 * x.to(dtype)

    def guided(network: Callable[..., Tensor]) -> Tensor:
        own = replace(pipeline, unet=network)
        return own.denoiser((contexts[:1], contexts[1:]), SCALE)(x, t)

    parts: list[tuple[str, Callable[[], Tensor], Callable[[], Tensor]]] = [
        (
            "text encoder, two prompts",
            lambda: pipeline.text_encoder(tokens),
            lambda: peer.text_encoder(tokens).last_hidden_state,
        ),
        (
            "guided U-Net step",
            lambda: denoise(x, t),
            lambda: guided(lambda *given: peer.unet(*given).sample),
        ),
        (
            "VAE decoder",
            lambda: pipeline.vae.decode(z),
            lambda: peer.vae.decode(z / peer.vae.config.scaling_factor).sample,
        ),
    ]
    for what, ours, theirs in parts:
        yield compare(f"v1.5: {what}, {name}", "diffusers", ours, theirs, rounds, 1, off)
    peaks = [f"{who} {_peak(who, folder, name) / 1e9:.2f} GB" for who in PEAKS]
    whole = f"v1.5: image in {STEPS} steps, {name}"
    row = compare(
        whole, "diffusers", lambda: _ours(pipeline), lambda: _theirs(peer), rounds, 1, torch.inf
    )
    yield replace(row, memory=", ".join(peaks))
    del peer
    if dtype == torch.float32 and cpp.installed():
        drawn = cpp.cpp_image(folder, PROMPT, STEPS, SCALE, SIDE)
        yield compare(whole, cpp.name(), lambda: _ours(pipeline), drawn, rounds, 1, torch.inf)
        del drawn
    if importlib.util.find_spec("openvino") is None:
        return
    engine, unet = OpenVINO(copy.deepcopy(pipeline.unet), dtype), pipeline.unet
    given = [torch.cat([x, x]), (t - 1).float().reshape(1), contexts.float()]
    label = f"v1.5: guided U-Net step, {name}, OpenVINO"
    yield compare(
        label, "our eager", lambda: guided(engine), lambda: guided(unet), rounds, 1, 5 * off
    )
    assert engine.request is not None
    alone = [one.numpy() for one in given]
    yield compare(
        label,
        "OpenVINO alone",
        lambda: engine(*given),
        lambda: torch.from_numpy(next(iter(engine.request.infer(alone).values())).copy()),
        rounds,
        1,
        off,
    )


def _write(folder: Path) -> None:
    """A checkpoint as diffusers lays it out."""
    networks = {
        name: blank(kind, getattr(V15, numbers)).to_empty(device="cpu")
        for name, (kind, numbers) in NETWORKS.items()
    }
    generator = torch.Generator().manual_seed(0)
    for network in networks.values():
        for name, weight in network.named_parameters():
            fan = weight[0].numel() if weight.ndim > 1 else 25
            weight.data.normal_(0, fan**-0.5, generator=generator)
            if "norm" in name and name.endswith("weight"):
                weight.data.add_(1)
    checkpoint.save_folder(folder, SimpleNamespace(config=V15, **networks))
    words = word_level([f"word{i}" for i in range(V15.text.vocab_size - 3)])
    (folder / "tokenizer").mkdir()
    words.save(str(folder / "tokenizer" / "tokenizer.json"))


def _tokens(folder: Path) -> list[Tensor]:
    words = Tokenizer.from_file(folder / "tokenizer" / "tokenizer.json", V15.text.context_length)
    return [rows(words, prompt).tokens for prompt in ("", PROMPT)]


def _peak(who: str, folder: Path, dtype: str) -> int:
    """Bytes that a process of its own held at most to draw one picture."""
    command = [sys.executable, "-m", "benchmarks.full_size", who, str(folder), dtype]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def _peer(folder: Path, dtype: torch.dtype) -> SimpleNamespace:
    """diffusers' networks and pipeline, read from the same folder."""
    import diffusers
    import transformers

    kinds = {
        "text_encoder": transformers.CLIPTextModel,
        "vae": diffusers.AutoencoderKL,
        "unet": diffusers.UNet2DConditionModel,
    }
    found = {
        name: kind.from_pretrained(folder / name, torch_dtype=dtype).eval()
        for name, kind in kinds.items()
    }
    scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler", clip_sample=False)
    pipeline = diffusers.StableDiffusionPipeline(
        found["vae"], None, None, found["unet"], scheduler, None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return SimpleNamespace(**found, pipeline=pipeline, tokens=_tokens(folder))


def _ours(pipeline: TextToImage) -> Tensor:
    (drawn,) = pipeline(
        PROMPT, steps=STEPS, solver="ddim", guidance_scale=SCALE, height=SIDE, width=SIDE,
        progress=False,
    )  # fmt: skip
    return torch.tensor(drawn.getextrema(), dtype=torch.float64)


def _theirs(peer: SimpleNamespace) -> Tensor:
    negative, positive = (peer.text_encoder(tokens).last_hidden_state for tokens in peer.tokens)
    (drawn,) = peer.pipeline(
        prompt_embeds=positive, negative_prompt_embeds=negative, num_inference_steps=STEPS,
        guidance_scale=SCALE, height=SIDE, width=SIDE,
    ).images  # fmt: skip
    return torch.tensor(drawn.getextrema(), dtype=torch.float64)


def main(who: str, folder: Path, dtype: str) -> None:
    """Draw one picture and print the largest memory that this process held, in bytes."""
    kind = getattr(torch, dtype)
    with torch.inference_mode():
        if who == "diffusers":
            _theirs(_peer(folder, kind))
        else:
            low = who == "low memory"
            _ours(TextToImage.load(folder, device="cpu", dtype=kind, low_memory=low))
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    line = next(line for line in status if line.startswith("VmHWM"))
    sys.stdout.write(f"{int(line.split()[1]) * 1024}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
