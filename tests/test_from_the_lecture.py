"""docs/from-the-lecture.md holds: names, arguments, commands and links exist, figures are right."""

import importlib
import inspect
import re
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion_math.denoiser import from_eps
from diffusion_math.grid import leading
from diffusion_math.sample import final
from diffusion_math.schedule import Discrete
from diffusion_math.solvers.one_step import ddpm
from sd import loading
from sd.config import V15
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from tests.support.commands import complaint

PAGE = Path(__file__).resolve().parents[1] / "docs" / "from-the-lecture.md"
THEIRS = """
attention.py clip.py ddpm.py decoder.py diffusion.py encoder.py model_loader.py model_converter.py
pipeline.py interface.py demo.ipynb
SelfAttention CrossAttention CLIP CLIPEmbedding CLIPLayer VAE_Encoder VAE_Decoder VAE_ResidualBlock
VAE_AttentionBlock Diffusion UNET TimeEmbedding UNET_ResidualBlock UNET_AttentionBlock Upsample
SwitchSequential DDPMSampler load_from_standard_weights preload_models_from_standard_weights
generate rescale get_time_embedding alphas_cumprod set_inference_timesteps _get_previous_timestep
_get_variance step add_noise set_strength
prompt uncond_prompt input_image strength do_cfg cfg_scale sampler_name n_inference_steps models
seed device idle_device tokenizer
"""


def names(text: str) -> list[str]:
    """Our dotted names in backticks."""
    return re.findall(r"`((?:diffusion_math|sd|experiments)(?:\.\w+)+)`", text)


def missing(name: str) -> bool:
    """Whether a dotted name is neither a module nor in one; a dataclass's field counts."""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:k]))
        except ModuleNotFoundError:
            continue
        for part in parts[k:]:
            fields = getattr(found, "__dataclass_fields__", {})
            if not hasattr(found, part) and part not in fields:
                return True
            found = getattr(found, part, None)
        return False
    return True


def keywords(text: str) -> set[str]:
    """Our arguments: `name=` in backticks, and those of calls that are written out."""
    return {
        word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"(\w+)=", code)
    }


def commands(text: str) -> list[list[str]]:
    """What follows `python -m`, in blocks and in backticks; `diffusion-math` is `experiments`."""
    text = text.replace("diffusion-math ", "python -m experiments ")
    blocks = re.findall(r"(?m)^\.venv/bin/python -m (.+)$", text)
    return [shlex.split(line) for line in blocks + re.findall(r"`python -m ([^`]+)`", text)]


def broken(text: str, page: Path) -> list[str]:
    """Links to files or headings that are not there."""
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    slugs = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    return [
        link
        for link in links
        if not (link[1:] in slugs if link[0] == "#" else (page.parent / link).exists())
    ]


@pytest.fixture(scope="module")
def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_our_names_exist(text: str) -> None:
    assert len(names(text)) > 40
    assert [name for name in names(text) if missing(name)] == []
    assert missing("sd.pipeline.TextToImage.lode") and missing("sd.pipelines")
    assert not missing("sd.pipeline.TextToImage.unet")


def test_our_arguments_exist(text: str) -> None:
    ours = {
        name
        for function in (TextToImage.__call__, TextToImage.load, loading.load_model)
        for name in inspect.signature(function).parameters
    }
    assert len(keywords(text)) > 12
    assert keywords(text) - ours == set()
    assert keywords("`seeds=` and `x(steps=5, way=1)`") - ours == {"seeds", "way"}


def test_commands_can_be_given(text: str) -> None:
    assert len(commands(text)) > 8
    assert [why for why in map(complaint, commands(text)) if why] == []
    wrong = "`diffusion-math cfg --scale 3`, `diffusion-math cgf`, `python -m sd.x`"
    assert all(map(complaint, commands(wrong)))
    inline = set(re.findall(r"`--([\w-]+)[^`]*`", text))
    flags = {one.replace("_", "-") for one in inspect.signature(_config("generate")).parameters}
    model = importlib.import_module("experiments.common.model_options").Model
    flags |= {one.replace("_", "-") for one in inspect.signature(model).parameters}
    assert inline and inline <= flags


def _config(name: str) -> Callable[..., object]:
    found: Callable[..., object] = importlib.import_module(f"experiments.{name}").Config
    return found


def test_all_of_the_practical_is_mapped(text: str) -> None:
    said = set(re.findall(r"`([\w.]+)`", text))
    assert [name for name in THEIRS.split() if name not in said] == []


def test_links_and_ids(text: str) -> None:
    assert broken(text, PAGE) == []
    assert broken("# A b\n[x](#a-b) [y](#c) [z](nowhere.md)", PAGE) == ["#c", "nowhere.md"]
    claims = (PAGE.parent / "claims.md").read_text(encoding="utf-8")
    ids = set(re.findall(r"\b[CE]\d+\b|\bX\d\b", text))
    assert {"E3", "E4", "E5", "E8", "C29", "C33", "X1", "X2", "X3"} <= ids
    assert [one for one in ids if f"| {one} |" not in claims] == []


def practical(x: Tensor, eps: Callable[[Tensor, int], Tensor], steps: int, z: Tensor) -> Tensor:
    """The practical's walk: timesteps from 0, the previous one a stride below, DDPM eqs. 7 and 15.

    z: the noise of each step, `(steps, *x.shape)`.
    """
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    abar = torch.cumprod(1 - roots**2, 0)
    stride = 1000 // steps
    for k in range(steps):
        now = (steps - 1 - k) * stride
        at = abar[now]
        before = abar[now - stride] if now >= stride else torch.ones((), dtype=torch.float64)
        beta = 1 - at / before
        x0 = (x - (1 - at).sqrt() * eps(x, now)) / at.sqrt()
        x = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x) / (1 - at)
        if now > 0:
            variance = (1 - before) / (1 - at) * beta
            assert variance > 1e-20, "the clamp acts"
            x = x + variance.sqrt() * z[k]
    return x


@pytest.mark.parametrize("steps", [1, 30, 50])
def test_its_sampler_is_ddpm_on_the_leading_grid(steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, *z = torch.randn(steps + 1, 2, 3, generator=generator, dtype=torch.float64)
    schedule = Discrete.scaled_linear()
    grid = leading(schedule, steps)

    def network(x_t: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(x_t) * (1 + time[:, None]) / 1000

    def noise(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return z[int((grid > t).sum())]

    def theirs(x_t: Tensor, now: int) -> Tensor:
        return network(x_t, torch.full((2,), float(now), dtype=torch.float64))

    assert (grid[:-1] - 1).tolist() == [k * (1000 // steps) for k in reversed(range(steps))]
    end = final(ddpm(schedule), from_eps(network, schedule), x, grid, noise)
    wanted = practical(x, theirs, steps, torch.stack(z))
    # Theirs cancels in 1 - at / before, a few hundred roundings in all; the walk adds them up.
    torch.testing.assert_close(end, wanted, rtol=1e-9, atol=1e-9)
    shifted = practical(x, lambda x_t, now: theirs(x_t, now + 1), steps, torch.stack(z))
    assert (shifted - wanted).abs().max() > 1e-6


def test_figures(text: str) -> None:
    schedule = Discrete.scaled_linear()
    for t in (981, 1000):
        assert f"{float(schedule(t)[0]):.3f}" in text
    assert int(50 * 0.58) == 28 and "50 x 0.58 gives 28" in text
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, 1000)
    abar = torch.cumprod(1 - roots**2, 0)
    off = 0.0
    for t, s in pairwise(leading(schedule, 50)[:-1].int().tolist()):
        at, before = abar[t - 1], abar[s - 1]
        fresh = -torch.expm1(schedule.log_snr(t) - schedule.log_snr(s))
        exact = schedule(s)[1] ** 2 * fresh
        off = max(off, abs(float((1 - before) / (1 - at) * (1 - at / before) / exact) - 1))
    assert 1e-5 < off < 3e-5 and "up to 3e-5" in text


def test_memory(text: str) -> None:
    """4 bytes a weight, or 2 with the VAE's 4."""
    with torch.device("meta"):
        made = [TextEncoder(V15.text), UNet(V15.unet), VAE(V15.vae)]
    text_encoder, unet, vae = (sum(w.numel() for w in one.parameters()) / 1e9 for one in made)
    whole, half = 4 * (text_encoder + unet + vae), 2 * (text_encoder + unet) + 4 * vae
    assert f"{whole:.1f} GB in float32 and {half:.1f} GB" in text
