"""Engines beside the eager path: the same numbers, at every size, and clear refusals."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.generate.png_metadata import made_with
from sd import engine
from sd.digest import model_digest
from sd.engine import with_engine
from sd.pipeline import TextToImage

PROMPT = "a large red circle on a white background"


def drawn(pipeline: TextToImage, **call: object) -> tuple[torch.Tensor, np.ndarray]:
    ends: list[torch.Tensor] = []
    (picture,) = pipeline(
        PROMPT, seed=1, steps=3, progress=False, watch=lambda state: ends.append(state.x), **call
    )
    return ends[-1], np.asarray(picture, dtype=float)


@pytest.fixture(scope="module")
def eager() -> TextToImage:
    return TextToImage.load("shapes", device="cpu")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the tracer's
def test_openvino_draws_the_same_picture(eager: TextToImage) -> None:
    """At two sizes and without guidance; float32 sums in another order."""
    pytest.importorskip("openvino")
    pipeline = with_engine(TextToImage.load("shapes", device="cpu"), "openvino")
    for call in ({}, {"height": 48, "width": 72}, {"guidance_scale": 1}):
        (x, picture), (wanted, reference) = drawn(pipeline, **call), drawn(eager, **call)
        assert (x - wanted).abs().max() < 1e-4 * wanted.abs().max()
        assert np.abs(picture - reference).max() <= 1  # of 255, where rounding crosses a half
        other, _ = drawn(eager, **call, clip_skip=0)
        assert (other - wanted).abs().max() > 1e-3 * wanted.abs().max()


class Interrupted:
    """A compilation that is interrupted once."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, network: torch.nn.Module, *_: object) -> "Interrupted":
        self.calls += 1
        if self.calls == 1:
            raise KeyboardInterrupt
        return self

    def infer(self, given: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": 2 * given[0]}


def test_an_interrupted_first_call_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = Interrupted()
    monkeypatch.setattr(engine, "_compiled", compiled)
    network = engine.OpenVINO(torch.nn.Identity(), torch.float32)
    x = torch.ones(1, 3)
    with pytest.raises(KeyboardInterrupt):
        network(x)
    for _ in range(2):
        assert torch.equal(network(x), 2 * x)
    assert compiled.calls == 2


def test_compile_wants_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any work: torch.compile says so after a minute, in a page of text."""
    monkeypatch.setenv("CXX", "ccache-of-nobody g++")
    with pytest.raises(ValueError, match=r"^engine: wanted a C\+\+ compiler .*, got 'ccache-of-no"):
        engine.require_engine("compile", torch.device("cpu"), torch.float32)
    monkeypatch.setenv("CXX", f"{sys.executable} -c")
    engine.require_engine("compile", torch.device("cpu"), torch.float32)
    engine.require_engine("compile", torch.device("cuda"), torch.float32)


def test_one_string_is_not_many_prompts(eager: TextToImage) -> None:
    with pytest.raises(ValueError, match="calibration: wanted a sequence of texts, got 'red'"):
        with_engine(eager, "openvino-int8", "red")
    with pytest.raises(ValueError, match="prompts: wanted a sequence of texts, got 'red'"):
        eager.encode_prompts("red")


COMPILED = """
from sd.engine import with_engine
from sd.pipeline import TextToImage

pipeline = TextToImage.load("shapes", device="cpu")
ends = []
for own in (pipeline, with_engine(pipeline, "compile")):
    prompt = "a large red circle on a white background"
    own(prompt, seed=1, steps=3, progress=False, watch=lambda state: ends.append(state.x))
    (picture,) = own(prompt, seed=1, steps=3, progress=False)
wanted, found = ends[3], ends[7]
print(float((found - wanted).abs().max() / wanted.abs().max()))
"""


@pytest.mark.slow
def test_compiled_networks_draw_the_same_picture() -> None:
    """In a process of its own: the tests' checker of shapes cannot be compiled."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILED], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_openvino_in_bfloat16(eager: TextToImage) -> None:
    """Nearer to float32 than a picture of another seed is, by far; and no float32 in disguise."""
    pytest.importorskip("openvino")
    half = TextToImage.load("shapes", device="cpu", dtype=torch.bfloat16)
    pipeline = with_engine(half, "openvino")
    (x, _), (wanted, _) = drawn(pipeline), drawn(eager)
    assert 1e-4 < float((x - wanted).std() / wanted.std()) < 0.1
    picture = eager(PROMPT, steps=1, progress=False)[0]
    assert drawn(pipeline, image=picture, strength=0.5)[1].shape == (64, 64, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_openvino_in_8_bits(eager: TextToImage) -> None:
    """Another rounding of the same image, also at a size that it was not calibrated at."""
    pytest.importorskip("nncf")
    given = TextToImage.load("shapes", device="cpu")
    pipeline = with_engine(given, "openvino-int8", ["a small green star", "a blue square"])
    for call in ({}, {"height": 48, "width": 72}):
        (x, _), (wanted, _) = drawn(pipeline, **call), drawn(eager, **call)
        assert 1e-3 < float((x - wanted).norm() / wanted.norm()) < 0.5  # of another seed: 1.4
    assert model_digest(pipeline) == model_digest(eager)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [pytest.param("openvino", marks=pytest.mark.slow), "compile"])
def test_the_digest_is_the_weights_not_the_engines(name: str, eager: TextToImage) -> None:
    """Also when the engine has used them up; without what was kept it would be another's."""
    pytest.importorskip("openvino")
    pipeline = with_engine(TextToImage.load("shapes", device="cpu"), name)
    assert model_digest(pipeline) == model_digest(eager) == made_with(pipeline)["weights"]
    if name == "openvino":
        drawn(pipeline)
        assert model_digest(pipeline) == model_digest(eager)
    assert model_digest(replace(pipeline, digest=None)) != model_digest(eager)
    half = with_engine(TextToImage.load("shapes", device="cpu", dtype=torch.bfloat16), name)
    assert model_digest(half) != model_digest(eager)


def test_refusals(eager: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_engine(eager, "eager") is eager
    with pytest.raises(ValueError, match=r"engine: wanted one of \('eager', 'openvino', 'openv"):
        with_engine(eager, "tensorrt")
    with pytest.raises(ValueError, match="engine: wanted float32 or bfloat16 with openvino"):
        with_engine(replace(eager, dtype=torch.float64), "openvino")
    with pytest.raises(ValueError, match="engine: wanted device cpu with openvino, got cuda"):
        with_engine(replace(eager, device=torch.device("cuda")), "openvino")
    with pytest.raises(ValueError, match="calibration: wanted openvino-int8 with it, got 'compil"):
        with_engine(eager, "compile", ["a red circle"])
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install diffusion-math\[openvino\], got no such"):
        with_engine(eager, "openvino")
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: name == "openvino" or None)
    wanted = r"engine: wanted nncf, by pip install diffusion-math\[openvino-int8\], got no such"
    with pytest.raises(ValueError, match=wanted):
        with_engine(eager, "openvino-int8")
