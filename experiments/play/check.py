"""The tab Check: a sampler, ours or pasted code, is audited in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, final

import experiments
from experiments.common.sampling_options import Deterministic, Stochastic
from experiments.play.jobs import Tell
from sd.command_line.flags import FlagError, Words, validated

__all__ = ["EXAMPLE", "NAME", "Audited", "Settings", "check"]

LONGEST = 20_000
"""Characters of pasted code."""

PATIENCE = 300
"""Seconds after which an audit is ended."""

SCHEDULES = ("VPLinear", "VPCosine", "VE", "RectifiedFlow")
"""Schedules of `diffusion_math` by their names there."""

COLUMNS = ("check", "expected", "measured", "verdict", "note")
"""What the table shows of each check."""

NAME = "mine"
"""The name in the code that is audited."""

EXAMPLE = """\
import diffusion_math as dm
from diffusion_math.testing import Sampler

schedule = dm.VPLinear()

def sample(denoise, x, grid, noise):
    for t, s in zip(grid, grid[1:]):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x0 = denoise(x, t)
        x = alpha_s * x0 + sigma_s * (x - alpha_t * x0) / sigma_t
        yield x

mine = Sampler("my DDIM", schedule, sample, lambda n: dm.trailing(schedule, n), order=1)
"""
"""Code that can be pasted."""

OWN = """\
import diffusion_math as dm
from diffusion_math.testing import ours

mine = ours(dm.{schedule}(), ["{sampler}"])
"""


@validated
class Settings:
    """What the page asks for: one of our samplers, or code."""

    sampler: Deterministic | Stochastic = "dpmpp_2m"
    schedule: Literal["VPLinear", "VPCosine", "VE", "RectifiedFlow"] = "VPLinear"
    code: Annotated[str | None, Words()] = None

    def __post_init__(self) -> None:
        if self.code is not None and len(self.code) > LONGEST:
            got = len(self.code)
            raise FlagError(f"code: wanted at most {LONGEST} characters, got {got}")
        if self.code is None and self.sampler == "adaptive":
            said = "a solver of fixed steps, not adaptive, which picks its own"
            raise FlagError(f"sampler: wanted {said}")

    def program(self) -> str:
        """The Python file that is audited."""
        if self.code is not None:
            return self.code
        return OWN.format(schedule=self.schedule, sampler=self.sampler)


@final
@dataclass(frozen=True)
class Audited:
    """The rows of an audit, and its order plot: a PNG, or None where no order was measured."""

    rows: list[dict[str, Any]]
    plot: bytes | None


def check(settings: Settings, pasted_runs: bool, folder: Path, tell: Tell) -> None:
    """Audit the sampler by `diffusion-math audit` in a process of its own; tell what is `Audited`.

    Args:
        pasted_runs: whether code may be run.
        folder: where the files of the audit lie until its end.

    Raises ValueError for code that may not run, code that fails, and an audit that does not end
    within `PATIENCE` seconds.
    """
    if settings.code is not None and not pasted_runs:
        raise ValueError("pasted code is not run; start the playground with `--run-pasted-code`")
    with TemporaryDirectory(dir=folder) as own:
        file, out = Path(own, "pasted.py"), Path(own, "out")
        file.write_text(settings.program(), encoding="utf-8")
        words = ["--target", f"{file}:{NAME}", "--quick", "--out", str(out)]
        with _process([sys.executable, "-m", "experiments", "audit", *words], own) as process:
            said = _end(process, tell)
        if process.returncode not in (0, 1) or not (out / "audit.json").is_file():
            last = said.strip().rpartition("\n")[2]
            raise ValueError(last.removeprefix("error: ").replace(str(file), "the code") or "ended")
        plot = out / "audit-errors.png"
        rows = json.loads((out / "audit.json").read_text(encoding="utf-8"))
        tell(Audited(rows, plot.read_bytes() if plot.is_file() else None))


def _end(process: "subprocess.Popen[str]", tell: Tell) -> str:
    """What the process has said on its error stream, once it has ended."""
    for second in range(PATIENCE):
        try:
            return process.communicate(timeout=1)[1]
        except subprocess.TimeoutExpired:
            tell(f"audit, {second + 1} s")
    raise ValueError(f"the audit was ended after {PATIENCE} seconds")


@contextmanager
def _process(command: list[str], folder: str) -> Iterator["subprocess.Popen[str]"]:
    """A process in the folder that imports these packages; it and its children end with this."""
    paths = [str(Path(experiments.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    place = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **place, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
