"""The models of cost: FLOP, stored bytes, memory and traffic, against torch's counts and limits."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale import network, traffic
from benchmarks.scale.timings import exponent
from benchmarks.scale.training import Training, table
from sd.config import SHAPES_CONFIG, V15, UNetConfig

ROOT = Path(__file__).resolve().parents[2]
SMALL = replace(SHAPES_CONFIG.unet, channels=(16, 32), heads=2, groups=4, context_width=24)
DEEP = replace(
    SMALL, channels=(16, 32, 48), attention=(False, True, True), layers_per_block=1, in_channels=9
)
EXAMPLE = Training(forward=10, kept=100, copies=80, all=40, largest=8, rest=4)


@pytest.mark.parametrize("config", [SMALL, DEEP])
@pytest.mark.parametrize(("side", "tokens"), [(8, 3), (12, 24)])
def test_the_formula_of_flop_is_what_torch_counts(
    config: UNetConfig, side: int, tokens: int
) -> None:
    """Exactly, forward; the backward pass has no gradient of the inputs."""
    forward = network.flop(config, side, tokens)
    assert network.counted(config, side, tokens, False) == forward
    both = network.counted(config, side, tokens, True)
    assert 2.8 * forward < both < (1 + network.BACKWARD) * forward


@pytest.mark.slow
def test_stable_diffusion_by_the_formula() -> None:
    assert network.flop(V15.unet, 64, 77) == network.counted(V15.unet, 64, 77, False)
    assert network.weights(V15.unet)["all"] == 859_520_964


def test_fake_tensors_keep_what_real_ones_keep() -> None:
    """Bytes for the backward pass are affine in the batch."""
    sizes = [network.saved(SMALL, 8, 3, batch) for batch in (1, 2, 4)]
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])
    assert network.saved(SMALL, 8, 3, 4, fake=False) == pytest.approx(sizes[2], rel=0.02)


def test_memory_and_traffic_at_the_ends() -> None:
    """By hand: one device; many; FSDP has the N-th part of the state, and sends 3/2 as much."""
    assert EXAMPLE.state(1, False) == EXAMPLE.state(1, True) == 5 * 4 * 40
    assert EXAMPLE.state(8, False) == 6 * 4 * 40 and EXAMPLE.state(8, True) == 5 * 4 * 40 / 8
    assert EXAMPLE.memory(1, 3, False) == EXAMPLE.memory(1, 3, True) == 800 + 80 + 300
    assert EXAMPLE.memory(4, 3, True) == 200 + 80 + 300 + 4 * (4 + 16)
    assert EXAMPLE.traffic(1, False) == EXAMPLE.traffic(1, True) == 0
    assert EXAMPLE.traffic(2, False) == 4 * 40
    ratio = EXAMPLE.traffic(1024, True) / EXAMPLE.traffic(1024, False)
    assert ratio == pytest.approx((3 - 4 / 40) / 2)
    rows = table(EXAMPLE, 64, [1, 4, 16])
    assert [one.examples for one in rows] == [64, 16, 4]
    assert all(one.flop * one.devices == 3 * 10 * 64 for one in rows)


def test_an_exponent_is_found_with_its_interval() -> None:
    sizes = [2.0**k for k in range(6)]
    assert exponent(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx((1.5, 1.5, 1.5))
    noisy = [n * math.exp(0.1 * (-1) ** k) for k, n in enumerate(sizes)]
    value, low, high = exponent(sizes, noisy)
    assert low < 1 < high and high - low > 0.05 and low < value < high
    with pytest.raises(ValueError, match="at least 3, got 2"):
        exponent(sizes[:2], noisy[:2])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_two_processes_send_and_hold(tmp_path: Path) -> None:
    """By the system's count of bytes written, and by the tensors that Python holds."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", "-m", "benchmarks.scale.traffic", str(tmp_path)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / f"{rank}.json").read_bytes()) for rank in range(2)]
    model = Training(0, 0, 0, **network.weights(traffic.CONFIG))
    for one in found:
        sent = [one[how]["sent"] for how in ("replicated", "sharded")]
        wanted = [model.traffic(2, False), model.traffic(2, True, traffic.GLOO_SCATTER)]
        assert sent == pytest.approx(wanted, rel=0.01)
        assert one["sharded"]["held"] == pytest.approx(model.state(2, True), rel=0.1)
