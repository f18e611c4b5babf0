"""The engines side by side: `python -m benchmarks engines` writes engines.json, engines.md's table.

Time: one evaluation of the U-Net, all sides in turns. Error: the latents x_t of guided trajectories
against those of float32 PyTorch from the same noise, step by step. Accuracy: prompts of the
embedded model whose image shows them, by the rule-based reader.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from benchmarks import genai
from benchmarks.compare import in_turns
from benchmarks.engine_files import EIGHT as EIGHT_FILE
from benchmarks.engine_files import FLOAT32, full_size_files, random_unet
from benchmarks.network import diffusers_unet
from benchmarks.output import (
    beside,
    damaged,
    is_timed,
    read_json,
    require_page,
    write_results,
)
from benchmarks.packages import require_packages
from benchmarks.table import Table
from experiments.common.statistics import Interval, paired_difference, share_of
from sd.device import slow_bfloat16
from sd.engine import OpenVINO, compiled, with_engine
from sd.pipeline import TextToImage
from sd.shapes.accuracy import fresh_prompts, matches_prompt

Network: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

REFERENCE, FLOAT, HALF, EIGHT = (
    "PyTorch, float32",
    "OpenVINO, float32",
    "OpenVINO, bfloat16",
    "OpenVINO, 8 bits",
)
BATCHES = (2, 16)
PROMPTS, BATCH = 200, 50
"""Prompts of each kind, and images sampled at once."""
SPREAD = 2.0
"""Quartiles of a ratio further apart than this factor: other work on the machine decides it."""


def base() -> str:
    """The side that ratios are to: OpenVINO in bfloat16, or in float32 where a CPU imitates it."""
    return FLOAT if slow_bfloat16(torch.device("cpu")) else HALF


def sides() -> dict[str, tuple[str, torch.dtype]]:
    """Engine and dtype of each side here; what is not of 8 bits is in the dtype of `base`."""
    half = base() == HALF
    found = {REFERENCE: ("eager", torch.float32), FLOAT: ("openvino", torch.float32)}
    if half:
        found[HALF] = ("openvino", torch.bfloat16)
    found[EIGHT] = ("openvino-int8", torch.bfloat16 if half else torch.float32)
    return found


@dataclass(frozen=True)
class Time:
    """Medians of an evaluation in milliseconds, and quartiles of its ratio to that of `base`."""

    what: str
    side: str
    wall: float
    processor: float
    low: float
    ratio: float
    high: float
    processor_ratio: float


@dataclass(frozen=True)
class Quality:
    """Prompt accuracy with 95% intervals, and sqrt(mean |x - y|^2 / mean |y_end|^2) by step.

    lost, gained: prompts that the reference alone, and this side alone, shows; difference: the 95%
    interval of the accuracy's change over all prompts, paired by prompt and seed.
    """

    side: str
    seen: tuple[float, Interval]
    unseen: tuple[float, Interval]
    lost: int
    gained: int
    difference: Interval
    error: tuple[float, ...]


def run(rounds: int, out: Path, embedded: bool, full_size: bool, drop: bool = False) -> None:
    """Time, measure and write.

    Args:
        rounds: timings a side.
        out: an existing folder. Rows of its tables that are not measured now stay.
        embedded, full_size: whether to measure the embedded model, and to time Stable Diffusion.
        drop: drop rows that are not measured now, if their machine or versions differ.

    Raises ValueError, before any work, for missing packages, for files in `out` that no run wrote,
    and for rows that could not stay.
    """
    require_packages("diffusers", "nncf", "openvino")
    require_page(out / "engines.md")
    data: dict[str, Any] = {
        "machine": Table.of(()).machine,
        "versions": versions(),
        "rounds": rounds,
    }
    rest, known = last_measured(out / "engines.json", embedded, full_size, data, drop)
    times: list[Time] = []
    found: list[Quality] = []
    with torch.inference_mode():
        if embedded:
            pipelines = {name: _pipeline(*engine) for name, engine in sides().items()}
            for batch in BATCHES:
                times += embedded_times(pipelines, batch, rounds)
            found = qualities(pipelines)
        if full_size:
            times += full_size_times(min(rounds, 5))
    times, found = [*times, *rest], [*found, *known]
    body = lines(times, found)
    print("\n".join(body))
    data["times"], data["qualities"] = map(list, (map(asdict, times), map(asdict, found)))
    print(write_results(out, "engines", data, body))


def last_measured(
    path: Path, embedded: bool, full_size: bool, now: Mapping[str, Any], drop: bool
) -> tuple[list[Time], list[Quality]]:
    """What an earlier run wrote into `path` and this one does not measure; see `beside`."""
    last = read_json(path)
    if last is None:
        return [], []
    try:
        times = [Time(**one) for one in last["times"]]
        found = [Quality(**one) for one in last["qualities"]]
        lines(times, found)
        times = [one for one in times if not is_timed(one.what, embedded, full_size)]
        found = [] if embedded else found
        made = {name: last[name] for name in ("machine", "versions")}
        dict(made["versions"])
    except (LookupError, TypeError, ValueError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    kept = beside(path, [*times, *found], made, now, drop)
    return times[: len(kept)], found[: len(kept)]


def _pipeline(engine: str, dtype: torch.dtype) -> TextToImage:
    return with_engine(TextToImage.load("shapes", device="cpu", dtype=dtype), engine)


def embedded_times(pipelines: Mapping[str, TextToImage], batch: int, rounds: int) -> list[Time]:
    """The embedded U-Net of every engine, and diffusers' with its weights."""
    eager = pipelines[REFERENCE]
    networks: dict[str, Network] = {name: one.unet for name, one in pipelines.items()}
    peer = diffusers_unet(eager.unet)
    networks["diffusers, float32"] = lambda *given: peer(*given).sample
    torch.manual_seed(0)
    contexts = eager.encode_prompts(["", "a small red circle"])
    x = torch.randn(batch, *eager.config.latent_shape)
    context = contexts.repeat_interleave(batch // 2, dim=0)
    given = x, torch.full((batch,), 500.0), context
    with tempfile.TemporaryDirectory() as folder:
        if genai.installed():
            precision = "bf16" if base() == HALF else "f32"
            networks[base().replace("OpenVINO", "OpenVINO GenAI")] = genai.genai_unet(
                eager.unet, eager.config, given, Path(folder), precision
            )
        return timed(f"embedded U-Net, batch {batch}", networks, given, rounds)


def timed(
    what: str, networks: Mapping[str, Network], given: tuple[Tensor, ...], rounds: int
) -> list[Time]:
    """Each network's time on one input, in turns."""
    spent = in_turns(
        {name: lambda network=network: network(*given) for name, network in networks.items()},
        rounds,
    )
    rows = []
    for name, pairs in spent.items():
        walls, processor = ([pair[i] for pair in pairs] for i in (0, 1))
        ratios = [pair[0] / other[0] for pair, other in zip(pairs, spent[base()], strict=True)]
        work = [pair[1] / other[1] for pair, other in zip(pairs, spent[base()], strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        row = Time(
            what, name, 1e3 * statistics.median(walls), 1e3 * statistics.median(processor),
            low, ratio, high, statistics.median(work),
        )  # fmt: skip
        rows.append(row)
    return rows


def qualities(pipelines: Mapping[str, TextToImage], count: int = PROMPTS) -> list[Quality]:
    """Accuracy and trajectory error of each engine, at the embedded model's own settings."""
    prompts = [*fresh_prompts(0, count), *fresh_prompts(0, count, held_out=True)]
    found: list[Quality] = []
    reference: Tensor | None = None
    known: list[bool] = []
    for name, pipeline in pipelines.items():
        verdicts: list[bool] = []
        paths: list[Tensor] = []
        for start in range(0, len(prompts), BATCH):
            some = prompts[start : start + BATCH]
            states: list[Tensor] = []

            def watch(state: Any, states: list[Tensor] = states) -> None:
                states.append(state.x.clone())

            seeds = range(start, start + len(some))
            images = pipeline(some, seed=list(seeds), progress=False, watch=watch)
            pairs = zip(images, some, strict=True)
            verdicts += [matches_prompt(np.asarray(image), text) for image, text in pairs]
            paths.append(torch.stack(states))
        path = torch.cat(paths, dim=1)
        if reference is None:
            reference, known = path, verdicts
        both = list(zip(known, verdicts, strict=True))
        lost, gained = both.count((True, False)), both.count((False, True))
        change = paired_difference(verdicts, known)
        error = trajectory_error(path, reference)
        seen, unseen = share_of(verdicts[:count]), share_of(verdicts[count:])
        found.append(Quality(name, seen, unseen, lost, gained, change, error))
    return found


def trajectory_error(path: Tensor, reference: Tensor) -> tuple[float, ...]:
    """sqrt(mean |x_k - y_k|^2 / mean |y_end|^2), k >= 1, of states `(step, image, ...)`."""
    squares = (path - reference).double().square().flatten(1).mean(1)
    scale = reference[-1].double().square().mean()
    return tuple((squares / scale).sqrt().tolist()[1:])


def full_size_times(rounds: int) -> list[Time]:
    """Stable Diffusion v1.5's U-Net with random weights, on latents of 64 x 64, a guided pair."""
    unet = random_unet()
    torch.manual_seed(0)
    x, context = torch.randn(2, 4, 64, 64), torch.randn(2, 77, 768)
    given = x, torch.tensor(500.0), context
    files = full_size_files(unet, given)
    peer = diffusers_unet(unet)
    networks: dict[str, Network] = {
        REFERENCE: unet,
        "diffusers, float32": lambda *some: peer(*some).sample,
    }
    for name, (kind, dtype) in sides().items():
        if kind != "eager":
            path = EIGHT_FILE if kind == "openvino-int8" else FLOAT32
            engine = OpenVINO(unet, torch.float32)
            engine.request = compiled(files / path, "bf16" if dtype == torch.bfloat16 else "f32")
            networks[name] = engine
    return timed("v1.5 U-Net, 64 x 64, batch 2", networks, given, rounds)


def _ratio(one: Time) -> str:
    """Both ratios; of one that other work on the machine decides, the quartiles alone."""
    quartiles = f"[{one.low:.2f}, {one.high:.2f}]"
    if one.high > SPREAD * one.low:
        return f"inconclusive {quartiles} |"
    return f"{one.ratio:.2f} {quartiles} | {one.processor_ratio:.2f}"


def versions() -> dict[str, str]:
    """What is compared, by package."""
    named = ["nncf", *(["openvino-genai"] if genai.installed() else [])]
    return Table.of(()).versions | {name: version(name) for name in named}


def lines(times: list[Time], found: list[Quality]) -> list[str]:
    """The tables in Markdown."""
    named = ", ".join(f"{name} {number}" for name, number in versions().items())
    ratio = f"ratio to {base().replace(',', '')} [quartiles] | of processor time"
    head = f"| what | engine | ms | processor ms | {ratio} |"
    body = [f"{Table.of(()).machine}; {named}.", "", head, "| --- | --- | --- | --- | --- | --- |"]
    body += [
        f"| {one.what} | {one.side} | {one.wall:.3g} | {one.processor:.3g} | {_ratio(one)} |"
        for one in times
    ]
    if found:
        head = (
            "| engine | seen pairs | unseen pairs | lost, gained | change of both "
            "| error after 1 step | 5 | 15 | 25 |"
        )
        body += ["", head, "| --- " * 9 + "|"]
        for one in found:
            shares = (f"{p:.3f} [{a:.3f}, {b:.3f}]" for p, (a, b) in (one.seen, one.unseen))
            errors = (f"{one.error[k - 1]:.2g}" for k in (1, 5, 15, 25))
            change = "[{:+.3f}, {:+.3f}]".format(*one.difference)
            cells = (one.side, *shares, f"{one.lost}, {one.gained}", change, *errors)
            body.append(f"| {' | '.join(cells)} |")
    return body
