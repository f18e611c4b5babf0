"""`assert_average`: a moving average of parameters, the decay that it realises at every step."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from diffusion_math.checks import Number, checked, require, whole
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.coarse import UncheckedWarning
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.probes import guarded, name_of, tensor, unchanged
from diffusion_math.testing.mistakes.table import Table

__all__ = ["Profile", "assert_average"]

Profile: TypeAlias = Number | Callable[[int], Number]
"""The decay d_n of the n-th update, n = 1, 2, ...: one number, or a function of n."""

LATE = 10**6
"""An update after any warm-up."""

STUCK = "github.com/huggingface/diffusers/issues/1864"
EVERY = "github.com/lucidrains/denoising-diffusion-pytorch/issues/44"
BIAS = "arXiv:1412.6980, section 3"
DEBIASED = "github.com/karpathy/nanochat/pull/818"


@checked
def assert_average(
    start: Callable[..., Any],
    decay: Profile,
    *,
    steps: int | None = None,
    every: int = 1,
    first: int | None = None,
    debiased: bool = False,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check an average A of parameters W: A_n = d_n A_(n-1) + (1 - d_n) W_n, A_0 = W_0.

    The parameters are unit vectors, another one after each training step, so the average holds the
    weight of each. From these d_n and the weight of W_n are read off at every step.

    Args:
        start: takes W_0, a vector, and returns `update`; `update(W_n)` is called after each
            training step and returns the average, like W_n. Both leave what they are given as it
            is.
        decay: d_n, or a function of the number of the update, which counts from 1 to any.
        steps: the number of training steps; by default 30, or as many as the decay takes to its
            last value, up to 1000. With fewer steps than that, `UncheckedWarning` says how many.
        every: the average is updated after each `every`-th step, and stays as it is between.
        first: the step of the first update, in 1 .. every; by default `every`. A decay of 0 copies
            W_n.
        debiased: A_0 = 0 instead, and A_n / (1 - d_1 ... d_n) is returned.
        dtype: that of W.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it;
    AssertionError for what is no such average; ValueError for arguments that are none.
    Source: Polyak and Juditsky (1992), doi:10.1137/0330046; bias correction: arXiv:1412.6980,
    section 3; power-function profiles d_n = (1 - 1/n)^(gamma + 1): arXiv:2312.02696, eq. 2.

    >>> import torch
    >>> from diffusion_math.testing import assert_average
    >>> def start(w):
    ...     kept = [w.clone()]
    ...     def update(w):
    ...         kept[0] = 0.9 * kept[0] + 0.1 * w
    ...         return kept[0]
    ...     return update
    >>> assert_average(start, 0.9)
    >>> assert_average(start, lambda n: min(0.9, (1 + n) / (10 + n)))
    Traceback (most recent call last):
    ...
    diffusion_math.testing.mistakes.diagnosis.MistakeError: start: wrong
      the decay differs at 79 of 82 indices, most at step 1: got 0.9, expected 0.181818 ...
      the weight of the new parameters differs at 79 of 82 indices, most at step 1: ...
      diagnosis: there is no warm-up: the decay of late updates is used at every step
    ...
    """
    if steps is not None:
        whole("steps", steps, 3)
    whole("every", every, 1, steps)
    first = every if first is None else first
    whole("first", first, 1, every)

    def claimed(n: int) -> float:
        try:
            return float(decay(n) if callable(decay) else decay)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise ValueError(f"decay: wanted a number at update {n}, got {said}") from error

    subject = name_of(start, "start")
    steps = _enough(subject, claimed, steps, every, first)
    decays = [claimed(n) for n in (*range(1, steps + 2), LATE)]
    bounded = all(0 <= d <= 1 for d in decays)
    require(bounded, "decay", "numbers in [0, 1] at every update", decays[:3])
    starts = not debiased or (first == 1 and decays[0] < 1)
    require(starts, "first", "1, and a decay below 1, where a bias is corrected", first)
    table = _table(decays, steps, every, first, debiased)
    found, eps = _measured(subject, start, steps, every, dtype)
    if debiased:  # 1 - d_1 may be rounded, and is divided by
        eps = max(eps, min(eps / max(1 - decays[0], eps), 3e-4))
    right = _fields("right", table.columns)
    for name, value in found.items():  # d or 1 - d is rounded, and is not always what is stored
        near = (value - right[name]).abs() <= 4 * eps
        found[name] = torch.where(near, right[name], value)
    compare(
        subject,
        found,
        partial(_fields, "right"),
        table,
        table.rows,
        eps=eps,
        known=[Mistake.of(name, partial(_fields, name), of) for name, of in KNOWN.items()],
        right="A_n = d_n A_(n-1) + (1 - d_n) W_n"
        + (", A_0 = 0, divided by 1 - d_1 ... d_n (arXiv:1412.6980)" if debiased else ""),
    )


USUAL, MOST = 30, 1000
"""Training steps by default, and at most where nobody asks for more."""


def _enough(
    subject: str, decay: Callable[[int], float], steps: int | None, every: int, first: int
) -> int:
    """The number of steps; warns where the decay's last value comes later."""
    last = decay(LATE)
    if any(decay(n) != last for n in (LATE // 2, *range(LATE - USUAL, LATE))):  # it never stays
        return max(USUAL, 2 * every) if steps is None else steps
    low, high = 0, LATE // 2
    while high - low > 1:  # the last update of another decay, and the first of the last one
        middle = (low + high) // 2
        low, high = (low, middle) if decay(middle) == last else (middle, high)
    enough = first + (high + 1) * every
    if steps is None:
        steps = max(USUAL, 2 * every, enough if enough <= MOST else 0)
    if steps < enough:
        said = f"the decay is {last:g} from update {high} on: steps={enough} looks at it"
        warnings.warn(f"{subject}: {said}", UncheckedWarning, stacklevel=3)
    return steps


COPIES = "pytorch.org/docs/stable/optim.html, AveragedModel"

KNOWN: Mapping[str, str] = {
    "the decay is that of the update before": "",
    "the decay is that of the next update": "",
    "there is no warm-up: the decay of late updates is used at every step": "",
    "the decay never rises again: its least value so far is kept": STUCK,
    "d and 1 - d are exchanged": STUCK,
    "every step is an update": EVERY,
    "the warm-up counts training steps, not updates": "",
    "the first update is at step 1: steps are counted from 0": EVERY,
    "the first update is at step `every`": EVERY,
    "the update comes before the training step": "",
    "the average is updated twice a step": "",
    "the first update copies the parameters, as if its decay were 0": COPIES,
    "the average starts at 0, and its bias is not corrected": BIAS,
    "the bias is corrected where there is none": BIAS,
    "the average starts at W_0, and no bias is corrected": BIAS,
    "the correction of the bias is that of the next step: 1 - d^(n + 1)": DEBIASED,
}
"""Mistakes in an average, each with a source where one is known."""

LARGEST = 256
"""Parameters at most: each is 1 after one step of so many."""

LIVE = "parameters that it is given are changed in place: the average shares their memory"

Three: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""d_n, the weight of W_n and that of W_(n-1)."""


def _fields(name: str, at: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        "decay": at[f"{name}: kept"],
        "weight of the new parameters": 1 - at[f"{name}: rest"],
        "weight of the parameters before the step": at[f"{name}: late"],
    }


def _table(decays: list[float], steps: int, every: int, first: int, debiased: bool) -> Table:
    """The right average, and each of `KNOWN`, by their weights at each step."""
    n = torch.arange(1, steps + 1, device="cpu")
    by_number = torch.tensor([decays[0], *decays], dtype=torch.float64, device="cpu")

    def when(number: Tensor, start: int = first) -> Tensor:
        """The decay of these updates, at the steps where there is one."""
        updated = (n >= start) & ((n - start) % every == 0)
        return torch.where(updated, by_number[number.clamp(min=0)], 1.0)

    def number(start: int) -> Tensor:
        """Of the last update at each step."""
        return (n - start).div(every, rounding_mode="floor") + 1

    update = number(first)
    right = when(update)
    of = _debiased if debiased else _plain
    updated, start = (n >= first) & ((n - first) % every == 0), n == 1
    exchanged = torch.where(updated, 1 - right, 1.0)
    zero = torch.zeros_like(right)
    averages: Iterable[Three] = (
        of(when(update - 1)),
        of(when(update + 1)),
        of(when(torch.full_like(n, steps + 2))),
        of(torch.where(right < 1, right.cummin(0).values, 1.0)),
        (exchanged, 1 - exchanged, zero),
        of(by_number[n]),
        of(when(n)),
        of(when(number(1), 1)),
        of(when(number(every), every)),
        (torch.where(start, 1.0, right), zero, torch.where(start, 0.0, 1 - right)),
        of(right**2),
        of(torch.where(n == first, 0.0, right)),
        (torch.where(start, 0.0, right), 1 - right, zero),
        _debiased(right),
        _plain(right),
        _debiased(right, by_number[1]),
    )
    columns: dict[str, Tensor] = {}
    for name, (kept, fresh, late) in zip(("right", *KNOWN), (of(right), *averages), strict=True):
        columns |= {f"{name}: kept": kept, f"{name}: rest": 1 - fresh, f"{name}: late": late}
    return Table(tuple(f"step {k}" for k in n.tolist()), columns)


def _plain(decay: Tensor) -> Three:
    return decay, 1 - decay, torch.zeros_like(decay)


def _debiased(decay: Tensor, further: Tensor | None = None) -> Three:
    """Of A_n / (1 - d_1 ... d_n) with A_0 = 0; `further`: with one decay more in each product."""
    products = torch.cat([torch.ones(1, dtype=torch.float64, device="cpu"), decay.cumprod(0)])
    products = products if further is None else products * further
    now, before = 1 - products[1:], 1 - products[:-1]
    kept = decay * before / now
    kept[0] = 0.0  # A_0 = 0
    return kept, (1 - decay) / now, torch.zeros_like(decay)


def _measured(
    subject: str, start: Callable[..., Any], steps: int, every: int, dtype: torch.dtype
) -> tuple[dict[str, Tensor], float]:
    """d_n, the weight of W_n and that of W_(n-1) beside it, at each step."""
    size = min(steps + 1, max(LARGEST, every + 2))
    unit = torch.eye(size, dtype=dtype, device="cpu")
    held: dict[int, Tensor] = {}  # W_0 and the last two, as they were given

    def given(n: int) -> Tensor:
        held.pop(n - 2 if n > 2 else -1, None)
        held[n] = unit[n % size].clone()
        return held[n]

    started = guarded(subject, lambda: start(given(0)))()
    assert callable(started), (
        f"{subject}: wanted `update`, a function, got {type(started).__name__}"
    )
    average, eps = unit[0].double(), 2.0**-52
    rows: list[tuple[Tensor, ...]] = []
    for n in range(1, steps + 1):
        result = guarded(subject, partial(lambda n: started(given(n)), n))()
        assert result is not None, f"{subject}: wanted `update` to return the average, got None"
        now, before_it = n % size, (n - 1) % size
        found, eps = tensor(subject, result, unit[now : now + 1])
        found = found[0].clone()  # the average may be changed in place
        for k, one in held.items():
            kept = unchanged(one, unit[k % size]) or unchanged(one, unit[now])  # trained further
            assert kept, f"{subject}: {LIVE} (step {n})"
        others = torch.ones(size, dtype=torch.bool, device="cpu")
        others[[now, before_it]] = False
        earlier = bool(average[others].norm() > 0)
        part = others if earlier else torch.arange(size, device="cpu") != now
        square = average[part].square().sum()
        rest = (found[part] * average[part]).sum() / square if square > 0 else square
        left = found - rest * average
        late = left[before_it] if earlier else torch.zeros((), device="cpu")
        late = torch.where(late.abs() <= 64 * eps * found[before_it].abs(), 0.0, late.double())
        fresh = left[now].clone()
        left[now] = 0
        left[before_it] -= late
        off = float(left.abs().max())
        assert off <= 64 * eps, (
            f"{subject}: after step {n} the average is no d A + c W of the average before it and "
            f"of the parameters (off by {off:.3g}, tolerance {64 * eps:.2g})"
        )
        rows.append((rest, fresh, late))
        average = found
    decay, fresh, late = torch.tensor(rows, dtype=torch.float64, device="cpu").T
    return {
        "decay": decay,
        "weight of the new parameters": fresh,
        "weight of the parameters before the step": late,
    }, eps
