"""`python -m benchmarks scale`: costs against sizes as scale.json, scale.md and scale.png."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.scale import network, traffic
from benchmarks.scale.network import BACKWARD
from benchmarks.scale.timings import Scaling, cases, measured
from benchmarks.scale.training import FLOAT, Device, Training, table
from experiments.common.machine import describe
from experiments.output.files import to_json, utf8, write_files
from experiments.output.page import markdown
from experiments.output.result import Figure, Heading, Part, Result, Table
from experiments.plots import BLUE, GRAY, ORANGE, png
from experiments.plots.charts import Axis, Chart, Series, side_by_side
from sd.command_line.terminal import say
from sd.config import SHAPES_CONFIG, V15
from sd.pipeline import TextToImage

BATCH = 2048
"""Examples in a step of Stable Diffusion v1.5's training, by its model card."""
COUNTS = [2**k for k in range(11)]
PROCESSES = (1, 2, 4)
SIDE, TOKENS = 64, 77
GIB, GB = 2**30, 10**9
MEMORY = 80
"""GiB of an A100 or H100, for the figure."""


def run(rounds: int, out: Path) -> None:
    """Measure, model, check and write into an existing folder."""
    scalings = measured(list(cases(TextToImage.load(device="cpu"))), rounds)
    training = Training.of(V15.unet, SIDE, TOKENS)
    devices = table(training, BATCH, COUNTS)
    processes = {count: _processes(count) for count in PROCESSES}
    checked = checks(training, processes)
    figure = Figure("scale.png", png(_figure(scalings, devices)), CAPTION, ALT)
    parts = _parts(scalings, devices, processes, checked, figure)
    data = {
        "machine": describe([]),
        "rounds": rounds,
        "measured": [asdict(one) for one in scalings],
        "processes": processes,
        "training": asdict(training),
        "devices": [asdict(one) for one in devices],
        "checks": checked,
    }
    page = utf8(markdown("Cost against size", [Result("scale", "Cost", (), parts, {})]))
    files = {"scale.json": to_json(data), "scale.md": page, figure.name: figure.image}
    for path in write_files(out, files):
        say(str(path))


def _processes(count: int) -> list[dict[str, Any]]:
    """What `benchmarks.scale.traffic` finds in each of several processes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc_per_node={count}", "-m", "benchmarks.scale.traffic", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return [json.loads(Path(folder, f"{k}.json").read_bytes()) for k in range(count)]


def checks(training: Training, processes: dict[int, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each model at a measured point: a name, the measured value and the modelled one."""
    own = SHAPES_CONFIG
    sizes = own.unet, own.latent_shape[-1], own.text.context_length
    small = Training(0, 0, 0, **network.weights(traffic.CONFIG))
    two, last = processes[2], processes[2][-1]
    flops = [network.counted(V15.unet, SIDE, TOKENS, backward) for backward in (False, True)]
    kept = [network.saved(*sizes, 4, fake) for fake in (False, True)]
    rows = [
        ("FLOP of a forward pass of v1.5", flops[0], training.forward),
        ("FLOP of forward and backward pass", flops[1], (1 + BACKWARD) * training.forward),
        ("bytes kept for the backward pass, embedded U-Net, batch 4", *kept),
        ("bytes of a checkpoint: weights, AdamW, EMA",
         processes[1][0]["checkpoint"], 4 * FLOAT * small.all),
        ("bytes held, one process", processes[1][0]["replicated"]["held"], small.state(1, False)),
        ("bytes held by one of two, FSDP", last["sharded"]["held"], small.state(2, True)),
        ("bytes sent a step by one of two, data parallel",
         two[1]["replicated"]["sent"], small.traffic(2, False)),
        ("bytes sent a step by one of two, FSDP on gloo",
         two[1]["sharded"]["sent"], small.traffic(2, True, traffic.GLOO_SCATTER)),
    ]  # fmt: skip
    return [
        {"name": name, "measured": found, "modelled": wanted, "ratio": found / wanted}
        for name, found, wanted in rows
    ]


CAPTION = (
    "Left: CPU seconds over those of the smallest size, against size over the smallest, on "
    "logarithmic axes. Middle: memory of a GPU in a training step "
    "of Stable Diffusion v1.5's U-Net (512 x 512, batch 2,048), against the number of GPUs; the "
    "line is 80 GiB. Right: bytes that a GPU sends in a step. Middle and right are modelled."
)
ALT = "Lines of relative seconds by size; lines of memory and of traffic against the GPUs."


def _figure(scalings: Sequence[Scaling], devices: Sequence[Device]) -> Any:
    times = [
        Series(f"{one.name}: {one.exponent:.2f}", [n / one.sizes[0] for n in one.sizes],
               [s / one.seconds[0] for s in one.seconds], None, None, style)
        for one, style in zip(scalings, ("-", "--", ":", "-.", "-", "--"), strict=True)
    ]  # fmt: skip
    counts = [one.devices for one in devices]

    def lines(pairs: Sequence[tuple[str, str, str]], unit: float) -> list[Series]:
        return [
            Series(label, counts, [getattr(one, name) / unit for one in devices], None, ink)
            for label, name, ink in pairs
        ]

    held = lines([("data parallel", "replicated", ORANGE), ("FSDP", "sharded", BLUE)], GIB)
    limit = Series("80 GiB", counts, [MEMORY] * len(counts), None, GRAY, "--", "")
    sent = lines([("data parallel", "reduced", ORANGE), ("FSDP", "gathered", BLUE)], GB)
    gpus = Axis("GPUs", scale="log")
    return side_by_side(
        [
            Chart("Measured", Axis("size, relative", scale="log"),
                  Axis("CPU seconds, relative", scale="log"), times, legend="upper left"),
            Chart("Memory (model)", gpus, Axis("GiB a GPU", scale="log"), [*held, limit],
                  legend="upper right"),
            Chart("Traffic (model)", gpus, Axis("GB sent a step by a GPU"), sent,
                  legend="lower right"),
        ],
        5.4, 5.2,
    )  # fmt: skip


def _parts(
    scalings: Sequence[Scaling],
    devices: Sequence[Device],
    processes: dict[int, list[dict[str, Any]]],
    checked: Sequence[dict[str, Any]],
    figure: Figure,
) -> tuple[Part, ...]:
    fitted = tuple(
        (one.name, one.what, f"{one.sizes[0]:,} to {one.sizes[-1]:,}",
         f"{1e3 * one.seconds[0]:.3g} to {1e3 * one.seconds[-1]:.4g}",
         f"{one.exponent:.2f} ({one.low:.2f}, {one.high:.2f})")
        for one in scalings
    )  # fmt: skip
    shared = tuple(
        (str(count), *(f"{max(one[way]['cpu'] for one in found):.3f}" if way in found[0] else "–"
                       for way in ("replicated", "sharded")))
        for count, found in processes.items()
    )  # fmt: skip
    modelled = tuple(
        (f"{one.devices:,}", f"{one.examples:,g}", f"{one.flop / 1e12:,.1f}",
         f"{one.replicated / GIB:,.1f}", f"{one.sharded / GIB:,.1f}",
         f"{one.reduced / GB:.2f}", f"{one.gathered / GB:.2f}")
        for one in devices
    )  # fmt: skip
    agreed = tuple(
        (one["name"], f"{one['measured']:,.0f}", f"{one['modelled']:,.0f}", f"{one['ratio']:.4f}")
        for one in checked
    )
    return (
        figure,
        Heading("Measured"),
        Table(("size", "computation", "range", "CPU, ms", "exponent (95% interval)"), fitted,
              f"torch {torch.__version__}, one thread."),
        Table(("processes", "data parallel", "FSDP"), shared,
              "CPU seconds of a process in a training step of one batch, the largest of all."),
        Heading("Modelled"),
        Table(("GPUs", "examples a GPU", "TFLOP", "GiB, data parallel", "GiB, FSDP",
               "GB sent, data parallel", "GB sent, FSDP"), modelled,
              "A GPU in a training step of Stable Diffusion v1.5's U-Net."),
        Heading("Models against measured points"),
        Table(("quantity", "measured", "modelled", "ratio"), agreed, "Counted in this run."),
    )  # fmt: skip
