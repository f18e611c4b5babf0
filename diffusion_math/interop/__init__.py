"""The solvers where other libraries expect their own."""

from typing import TYPE_CHECKING, Any

from diffusion_math.interop.k_diffusion import SAMPLERS

if TYPE_CHECKING:
    from diffusion_math.interop.diffusers_scheduler import DiffusersScheduler

__all__ = ["SAMPLERS", "DiffusersScheduler"]


def __getattr__(name: str) -> Any:
    """Import what needs another library only where it is used."""
    if name != "DiffusersScheduler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from diffusion_math.interop import diffusers_scheduler
    except ModuleNotFoundError as missing:
        if missing.name != "diffusers":
            raise
        wanted = 'diffusers: wanted by DiffusersScheduler; pip install "diffusion-math[diffusers]"'
        raise ImportError(wanted) from None
    return diffusers_scheduler.DiffusersScheduler
