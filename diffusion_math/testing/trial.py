"""A short run of a sampler, to see how it computes: its states, its dtypes, its use of noise."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diffusion_math.testing.problems import MIXTURE, starts
from diffusion_math.testing.sampler import Sampler

__all__ = ["Trial", "holds", "trial"]

COUNTS = (4, 8, 2)
"""Numbers of steps; a sampler may refuse the first."""


@final
@dataclass(frozen=True, eq=False)
class Trial:
    """What a run on a mixture showed.

    Attributes:
        states: the states, as the sampler gave them back.
        inputs: what the denoiser was evaluated at after the start.
        narrow: the dtypes below float64 that the sampler's own arithmetic had an operand of. A
            float32 operand of at most 11 significant bits does not count: it is a constant.
        calls: evaluations of the noise.
    """

    states: list[Tensor]
    inputs: list[Tensor]
    narrow: frozenset[torch.dtype]
    calls: int


def trial(sampler: Sampler, seed: int = 0) -> Trial | None:
    """A run with noise from this seed, or None where no number of `COUNTS` can be run."""
    for n in COUNTS:
        try:
            return _run(sampler, n, seed)
        except Exception:  # code that is audited may raise anything; the checks tell of it
            continue
    return None


def holds(dtype: torch.dtype, x: Tensor) -> bool:
    """Whether a tensor's entries, not all of them 0, are numbers of a dtype."""
    exact = x.detach().double()
    return bool(exact.count_nonzero() > 0) and torch.equal(exact.to(dtype).double(), exact)


def _run(sampler: Sampler, n: int, seed: int) -> Trial:
    grid, inputs, calls = sampler.times(n), list[Tensor](), 0
    exact, generator = MIXTURE.denoiser(sampler.schedule), torch.Generator().manual_seed(seed)
    operands = _Operands()

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        inputs.append(x.clone())
        return operands.unseen(lambda: exact(x, t))

    def noise(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        normal = torch.randn(x.shape, generator=generator, dtype=torch.float64, device="cpu")
        return operands.unseen(lambda: normal.to(x.dtype))

    x = sampler.schedule(grid[0])[1] * starts()
    with operands:
        states = sampler.states(denoise, x, grid, noise)
    return Trial(states, inputs[1:], frozenset(operands.dtypes), calls)


@final
class _Operands(TorchFunctionMode):
    """Within, the dtypes below float64 of what torch's functions are given."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()
        self.paused = False

    def unseen(self, work: Callable[[], Tensor]) -> Tensor:
        """The result of work that is not the sampler's own."""
        self.paused = True
        try:
            return work()
        finally:
            self.paused = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not self.paused:
            for one in _tensors((*args, *(kwargs or {}).values())):
                if one.dtype not in self.dtypes and _computed(one):
                    self.dtypes.add(one.dtype)
        return func(*args, **(kwargs or {}))


def _tensors(arguments: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments and in their lists; numpy's scalars as tensors."""
    for one in arguments:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, np.floating):
            yield torch.from_numpy(np.asarray(one))
        elif isinstance(one, Sequence) and not isinstance(one, str):
            yield from _tensors(one)


def _computed(x: Tensor) -> bool:
    """Whether a tensor is of float32 or less, and no constant of a few bits."""
    few = (torch.bfloat16, torch.float16)
    narrow = x.is_floating_point() and torch.finfo(x.dtype).bits < 64 and x.numel() > 0
    return narrow and bool((x != 0).any()) and not any(holds(dtype, x) for dtype in few)
