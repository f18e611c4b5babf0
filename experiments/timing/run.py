"""Runs X3: times an image on every device and precision, and measures how they differ."""

import copy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from tqdm import tqdm

from diffusion_math.noise import start_noise
from diffusion_math.solvers.registry import SOLVERS
from experiments import plots
from experiments.common.machine import describe, peak_memory, reset_peak, synchronize
from experiments.common.model import load
from experiments.common.model_options import Model, Precision
from experiments.common.sampling_options import scale_of
from experiments.common.statistics import Interval, median_interval
from experiments.output.result import Figure, Measurement, Part, Result, estimated, table
from experiments.plots.gallery import stacked_bars
from experiments.timing import Config, device_drift
from sd import device as devices
from sd.engine import require_engine
from sd.nonfinite import vae_dtype
from sd.pipeline import TextToImage

DTYPES: dict[str, tuple[Precision, ...]] = {
    "cpu": ("float32", "bfloat16"),
    "cuda": ("float32", "bfloat16", "float16"),
    "mps": ("float32", "float16"),
}
MOST_SECONDS = 1.5
"""Largest time of one image on a CPU, with the model loaded."""
MOST_SECONDS_COLD = 8.0
"""Largest time of `generate` in a fresh process, from the start to the file."""

Timed = tuple[float, Interval]
"""Median and its interval, in milliseconds."""


@dataclass(frozen=True)
class Measured:
    """One device and precision: each part's time, and the peak memory in MiB."""

    device: str
    dtype: str
    text_encoder: Timed
    unet_step: Timed
    decode: Timed
    image: Timed
    memory: float
    memory_of: str
    distilled: Timed | None = None

    @property
    def label(self) -> str:
        return f"{self.device}, {self.dtype}"


def run(config: Config, pipeline: TextToImage | None = None) -> Result:
    chosen = config.model.device
    names = devices.available() if chosen == "auto" else [str(devices.pick(chosen))]
    cold = config.cold_start and pipeline is None
    jobs, refused = _jobs(config.model, names)
    measured: list[Measured] = []
    trajectories: list[device_drift.Trajectory] = []
    for name, dtype in tqdm(jobs, unit="setting", disable=None):
        try:
            one, path, call = _setting(config, pipeline, name, dtype)
        except (RuntimeError, NotImplementedError, FloatingPointError) as error:
            refused.append(f"{name}, {dtype}: {str(error).splitlines()[0]}")
        else:
            measured.append(one)
            trajectories.append(path)
    if not measured:
        raise ValueError(f"--device: nothing could be timed; {'; '.join(refused)}")
    started = _cold_starts(config) if cold else []
    first = next((one for one in trajectories if one.label == "cpu, float32"), trajectories[0])
    found = [device_drift.drift(one, first) for one in trajectories if one is not first]
    steps = call["steps"]
    what = f"{steps} steps, guidance {'off' if call['guidance_scale'] == 1 else 'on'}"
    rows = (*_rows(what, measured, started), *device_drift.rows(found))
    machine = describe(names)
    data: dict[str, Any] = {
        "settings": config,
        "machine": machine,
        "milliseconds": measured,
        "drift": found,
        "refused": refused,
        "cold_start_seconds": started,
    }
    nfe = steps * SOLVERS[call["solver"]].calls
    parts = (*_parts(nfe, what, config, measured, refused, machine), *device_drift.parts(found))
    return Result("timing", "X3: time on every device", rows, parts, data)


def _jobs(model: Model, names: list[str]) -> tuple[list[tuple[str, Precision]], list[str]]:
    """What is timed, (device, precision), and what the engine refuses; ValueError for all of it."""
    jobs, refused = [], []
    for name in names:
        for dtype in DTYPES[name.partition(":")[0]]:
            where, kind = torch.device(name), getattr(torch, dtype)
            try:
                require_engine(model.engine, where, kind, model.low_memory)
            except ValueError as error:
                refused.append(f"{name}, {dtype}: {error}")
            else:
                jobs.append((name, dtype))
    if not jobs:
        raise ValueError(refused[0])
    return jobs, refused


def _setting(
    config: Config, pipeline: TextToImage | None, name: str, dtype: Precision
) -> tuple[Measured, device_drift.Trajectory, dict[str, Any]]:
    """The model, or a copy of this one, on one device in one precision: times, path, arguments."""
    where, kind = torch.device(name), getattr(torch, dtype)
    model = replace(config.model, device=name, dtype=dtype)
    if pipeline is None:
        own = load(model)
    else:
        moved = {
            part: copy.deepcopy(getattr(pipeline, part)).to(where, own_kind)
            for part, own_kind in (("text_encoder", kind), ("vae", vae_dtype(kind)), ("unet", kind))
        }
        own = replace(pipeline, device=where, dtype=kind, **moved)
    one, call = _measure(config, own, name, dtype), config.sampling.call(own)
    if pipeline is None and model.weights == "shapes" and not (model.lora or model.embedding):
        few = load(replace(model, weights="shapes-distilled"))
        image = _timed(
            lambda: few(config.prompt, progress=False), where, config.repeats, config.warmup
        )
        one = replace(one, distilled=image)
    return one, device_drift.trajectory(one.label, own, config.prompt, **call), call


def _measure(config: Config, own: TextToImage, name: str, dtype: str) -> Measured:
    """The time of each part and of a whole image, on one device in one precision."""
    where = own.device
    reset_peak(where)
    scale = scale_of(config.sampling.guidance_scale, own)
    pair = own.encode_prompts([""]), own.encode_prompts([config.prompt])
    denoise = own.denoiser(pair, scale)
    x = start_noise([0], own.config.latent_shape).to(where)
    t = torch.tensor(own.schedule.T / 2, dtype=torch.float64)
    call = config.sampling.call(own)

    @torch.no_grad()
    def step() -> None:
        denoise(x, t)

    def timed(work: Callable[[], Any]) -> Timed:
        return _timed(work, where, config.repeats, config.warmup)

    return Measured(
        name,
        dtype,
        timed(lambda: (own.encode_prompts([""]), own.encode_prompts([config.prompt]))),
        timed(step),
        timed(lambda: own.decode(x)),
        timed(lambda: own(config.prompt, progress=False, **call)),
        *peak_memory(where),
    )


def _timed(work: Callable[[], Any], where: Any, repeats: int, warmup: int) -> Timed:
    """Median milliseconds of the work, device synchronised before and after each run."""
    for _ in range(warmup):
        work()
    seconds = []
    for _ in range(repeats):
        synchronize(where)
        start = time.perf_counter()
        work()
        synchronize(where)
        seconds.append(time.perf_counter() - start)
    middle, (low, high) = median_interval(seconds)
    return 1e3 * middle, (1e3 * low, 1e3 * high)


def _cold_starts(config: Config) -> list[float]:
    """Seconds that `generate` takes in a fresh process on the CPU, imports and loading included."""
    seconds = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "experiments", "generate", "--out", folder]
            command += ["--device", "cpu", *replace(config.model, dtype="float32").flags()]
            command += ["--low-memory"] if config.model.low_memory else []
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds.append(time.perf_counter() - start)
        if done.returncode != 0:
            raise ValueError(f"generate in a fresh process failed: {done.stderr.strip()}")
    return seconds


def _rows(what: str, measured: list[Measured], started: list[float]) -> tuple[Measurement, ...]:
    """The time of an image on a CPU against its bound, at other settings, and the cold start."""
    first = next((m for m in measured if m.device == "cpu"), measured[0])
    rows = []
    for one in (first, *(m for m in measured if m is not first)):
        middle, (low, high) = one.image
        claim = f"Seconds for one image on {one.label}: {what}"
        main = one is first
        bound = f", at most {MOST_SECONDS:g}" if main and one.device == "cpu" else ""
        name = "timing" if main else f"timing-{one.device}-{one.dtype}"
        text = f"{'X3: ' if main else ''}{claim}, model loaded{bound}"
        found = middle / 1e3, (low / 1e3, high / 1e3)
        rows.append(estimated(name, text, found, most=MOST_SECONDS if bound else None))
    if started:
        rows.append(
            estimated(
                "timing-cold-start",
                "Seconds of `generate` in a fresh process on the CPU, from the start to the file, "
                f"at most {MOST_SECONDS_COLD:g} (interval: the range of {len(started)} starts)",
                median_interval(started),
                most=MOST_SECONDS_COLD,
            )
        )
    return tuple(rows)


def _parts(
    nfe: int,
    what: str,
    config: Config,
    measured: list[Measured],
    refused: list[str],
    machine: dict[str, str],
) -> tuple[Part, ...]:
    bars = {
        "text encoder": [m.text_encoder[0] for m in measured],
        f"U-Net, NFE {nfe}": [nfe * m.unet_step[0] for m in measured],
        "VAE decode": [m.decode[0] for m in measured],
    }
    parts = [sum(column) for column in zip(*bars.values(), strict=True)]
    other = [max(0.0, m.image[0] - s) for m, s in zip(measured, parts, strict=True)]
    bars["solver, other"] = other
    share = min(1.0, nfe * measured[0].unet_step[0] / measured[0].image[0])
    spread = "95% intervals" if config.repeats >= 6 else "their ranges"
    title = f"Time of one image, {what}"
    chart = stacked_bars([m.label for m in measured], bars, "milliseconds (median)", title)
    distilled: dict[str, Callable[[Measured], str]] = {}
    if measured[0].distilled:
        calls = "whole image by `shapes-distilled`"
        distilled[calls] = lambda one: _text(one.distilled) if one.distilled else "–"
    lines: list[Part] = [
        "The machine: " + "; ".join(f"{key} {value}" for key, value in machine.items()) + ".",
        Figure(
            "timing-parts.png",
            plots.png(chart),
            f"Median time of one image by part, in milliseconds. On {measured[0].label} the U-Net "
            f"takes {share:.0%} of it. With guidance, one evaluation runs the U-Net on a batch of "
            "two: the conditional and the unconditional input.",
            "Stacked bars of milliseconds for each device and precision.",
        ),
        table(
            measured,
            {
                "device, precision": lambda one: one.label,
                "text encoder": lambda one: _text(one.text_encoder),
                "U-Net, NFE 1": lambda one: _text(one.unet_step),
                "VAE decode": lambda one: _text(one.decode),
                "whole image": lambda one: _text(one.image),
                **distilled,
                "peak memory": lambda one: f"{one.memory:,.0f} MiB ({one.memory_of})",
            },
            f"Medians of {config.repeats} runs in milliseconds with {spread}, after "
            f"{config.warmup} warm-up runs; the device is synchronised around every run.",
        ),
    ]
    if not any(m.device.startswith(("cuda", "mps")) for m in measured):
        lines.append("No GPU was found: the lecture's comparison of a GPU with the CPU needs one.")
    if refused:
        lines.append("These settings did not run: " + "; ".join(refused) + ".")
    return tuple(lines)


def _text(part: Timed) -> str:
    middle, (low, high) = part
    a, b, c = (f"{one:,.0f}" if one >= 100 else f"{one:.3g}" for one in (middle, low, high))
    return f"{a} [{b}, {c}]"
