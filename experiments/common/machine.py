"""The machine an experiment ran on: what it is, its clock's fences, its memory."""

import os
import platform
import re
import sys
from pathlib import Path

import torch

MIB = 2**20


def describe(devices: list[str]) -> dict[str, str]:
    """Processor, cores, memory, GPUs, system and versions, as text."""
    machine = {"processor": _processor(), "cores": str(cores())}
    machine["threads"] = str(torch.get_num_threads())
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        machine["memory"] = f"{memory:.0f} GiB"
    for name in devices:
        if name.startswith("cuda"):
            machine["GPU"] = torch.cuda.get_device_name(torch.device(name))
        elif name == "mps":
            machine["GPU"] = "Apple's, by Metal"
    machine["system"] = f"{platform.system()} {platform.machine()}"
    machine["Python"] = platform.python_version()
    machine["torch"] = str(torch.__version__)
    return machine


def synchronize(where: torch.device) -> None:
    """Wait until the device has done all it was asked to."""
    if where.type != "cpu":
        torch.accelerator.synchronize(where)


def reset_peak(where: torch.device) -> None:
    """Count peak memory from here on, where the device can."""
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)


def peak_memory(where: torch.device) -> tuple[float, str]:
    """Peak memory in MiB, and of what: tensors on the GPU, or the whole process on a CPU."""
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / MIB, "tensors"
    if where.type == "mps":
        return torch.mps.driver_allocated_memory() / MIB, "driver, at the end"
    try:
        import resource
    except ImportError:  # Windows
        return float("nan"), "not known"
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest * (1 if sys.platform == "darwin" else 1024) / MIB, "process so far"


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    text = listing.read_text(encoding="utf-8", errors="replace") if listing.exists() else ""
    found = re.search(r"^model name.*?: *(.*?) *$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
