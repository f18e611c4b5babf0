"""Units of a sweep, which other processes can import."""

import os
import time
import warnings

import torch


def sample(seed: int) -> list[float]:
    """Normals of a seed; larger seeds end sooner."""
    time.sleep(0.05 * (5 - seed))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, generator=generator, dtype=torch.float64).tolist()


def fails(seed: int) -> int:
    """An error for seed 3, a warning for seed 1."""
    if seed == 3:
        raise ZeroDivisionError("no way")
    if seed == 1:
        warnings.warn("odd", UserWarning, stacklevel=1)
    return seed


def dies(seed: int) -> int:
    """The end of the process for seed 2."""
    if seed == 2:
        os._exit(9)
    return seed


def where(seed: int) -> int:
    """The process that it runs in."""
    time.sleep(0.3)
    return os.getpid()
