"""Layers of large feature maps strip by strip on a CPU: the same sums in a fraction of the memory.

A 3 x 3 convolution of a strip needs one more row on either side. Group norm needs two moments of
the whole map; with these it is pointwise. So neither the normalised map nor the library's reordered
copy of it is ever in memory as a whole.
"""

import ctypes
import os
from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["chunked_conv", "chunked_linear", "chunked_norm", "plus"]

Pointwise: TypeAlias = Callable[[Tensor], Tensor]

STRIP = 2**24
"""Bytes of a strip. A map of at most two strips is computed as a whole."""


def chunked_norm(norm: nn.GroupNorm, x: Tensor) -> Pointwise:
    """silu(norm(x)) as a function of any rows of `x`: each channel has a factor and a shift.

    norm(x)_c = g_c (x_c - mean_G) / sqrt(var_G + eps) + b_c, G being the group of channel c.
    Source: Wu & He 2018, arXiv:1803.08494, eq. 1.
    """
    if _whole(x.numel(), x):
        return lambda x: F.silu(norm(x))
    groups = x.reshape(len(x), norm.num_groups, -1).unbind(1)
    wide = torch.promote_types(x.dtype, torch.float32)
    moments = [torch.var_mean(group.to(wide), dim=-1, correction=0) for group in groups]
    variance, mean = (torch.stack(one, 1) for one in zip(*moments, strict=True))
    each = x.shape[1] // norm.num_groups
    factor = (variance + norm.eps).rsqrt().repeat_interleave(each, 1) * norm.weight
    shift = norm.bias - mean.repeat_interleave(each, 1) * factor
    factor, shift = (one.to(x.dtype)[..., None, None] for one in (factor, shift))
    return lambda x: F.silu(torch.addcmul(shift, x, factor), inplace=True)


def chunked_conv(layer: nn.Conv2d, x: Tensor, before: Pointwise, twice: bool = False) -> Tensor:
    """layer(before(x)) of a 3 x 3 convolution with one pixel of padding and stride 1.

    Args:
        before: acts on each pixel by itself.
        twice: each pixel of before(x) is first repeated, to twice the height and width.
    """

    def of(rows: Tensor) -> Tensor:
        y = before(rows)
        return layer(F.interpolate(y, scale_factor=2.0, mode="nearest") if twice else y)

    scale, height = (2 if twice else 1), x.shape[-2]
    size = x.numel() * scale**2
    if _whole(size, x):
        return of(x)
    rows = max(1, height * STRIP // (size * x.element_size()))
    out = x.new_empty(len(x), layer.out_channels, scale * height, scale * x.shape[-1])
    for top in range(0, height, rows):
        end = min(top + rows, height)
        low, high = max(top - 1, 0), min(end + 1, height)
        strip = of(x[..., low:high, :])
        inner = strip[..., scale * (top - low) : scale * (end - low), :]
        out[..., scale * top : scale * end, :] = inner
    _trim()
    return out


def plus(y: Tensor, layer: Pointwise, x: Tensor) -> Tensor:
    """y + layer(x), in place, for a layer that acts on each pixel of `x` by itself."""
    if _whole(x.numel(), x):
        return y + layer(x)
    rows = max(1, x.shape[-2] * STRIP // (x.numel() * x.element_size()))
    for sums, strip in zip(y.split(rows, -2), x.split(rows, -2), strict=True):
        sums += layer(strip)
    _trim()
    return y


def chunked_linear(layer: Pointwise, x: Tensor, width: int) -> Tensor:
    """layer(x) of a layer that acts on each token `(..., channel)` by itself.

    Args:
        width: the largest number of intermediate values for a token.
    """
    tokens = x.flatten(0, -2)
    if _whole(tokens.shape[0] * width, x):
        return layer(x)
    some = max(1, STRIP // (width * x.element_size()))
    return torch.cat([layer(part) for part in tokens.split(some)]).unflatten(0, x.shape[:-1])


def _whole(numbers: int | Tensor, x: Tensor) -> bool:
    """Whether to compute that many values of the dtype of x as a whole.

    That is so for few values, on a GPU (strips would make it wait), and while operations are
    recorded by autograd, the tracer or the compiler, where sizes may be tensors.
    """
    recorded = torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling()
    return recorded or x.device.type != "cpu" or int(numbers) * x.element_size() <= 2 * STRIP


def _trim() -> None:
    """Give the strips' memory back to the system: glibc keeps blocks below 32 MiB for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
