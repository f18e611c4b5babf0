"""The noise schedule of a checkpoint, from its own tensors or its .yaml."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sd.checkpoint.original_config import OriginalConfig
from sd.checkpoint.tensor_source import Source, checkpoint_error, option
from sd.config import VAEConfig
from sd.noise_schedule import SCHEDULES, named_schedule

__all__ = ["checked_fields", "schedule_fields"]

LDM_SCHEDULES = {"linear": "scaled_linear", "sqrt_linear": "linear", "cosine": "cosine"}
"""The names of schedules in latent-diffusion, to ours."""
MOST_STEPS = 10**6
NOTHING = 1e-7
"""The absolute tolerance of alpha_t^2, for a zero terminal SNR."""
TABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "betas": lambda betas: (1 - betas).cumprod(0),
    "alphas_cumprod": lambda abar: abar,
    "sigmas": lambda sigmas: 1 / (1 + sigmas**2),
    "log_sigmas": lambda logs: 1 / (1 + logs.exp() ** 2),
    "denoiser.sigmas": lambda sigmas: 1 / (1 + sigmas**2),
}
"""Tensors that determine a schedule, and their maps to alpha_t^2."""


def schedule_fields(source: Source, recipe: OriginalConfig) -> dict[str, Any]:
    """The fields of ModelConfig about the schedule, from a single file or its .yaml.

    They may be schedule, steps, zero_terminal_snr, and scaling_factor of its VAE.

    Raises ValueError if one is not supported, or if the two differ.
    """
    own, ldm = _table(source), _ldm(source, recipe)
    for name, value in ldm.items():
        if own.get(name, value) != value:
            raise checkpoint_error(
                source.path, f"its {name} is {own[name]}, and its .yaml says {value}"
            )
    return {**ldm, **own, **_scale(source, recipe)}


def _ldm(source: Source, recipe: OriginalConfig) -> dict[str, Any]:
    """The schedule of a .yaml, if it has one."""
    if not recipe.keys() & {"beta_schedule", "linear_start", "linear_end", "timesteps"}:
        return {}
    path = source.path.with_suffix(".yaml")
    named = recipe.get("beta_schedule", "linear")
    if named not in LDM_SCHEDULES:
        raise checkpoint_error(
            path, f"beta_schedule is {named!r}, not one of {', '.join(LDM_SCHEDULES)}"
        )
    ends = {name: _number(path, recipe, name) for name in ("linear_start", "linear_end")}
    steps = _number(path, recipe, "timesteps")
    return checked_fields(path, LDM_SCHEDULES[named], 1000.0 if steps is None else steps, ends)


def _scale(source: Source, recipe: OriginalConfig) -> dict[str, float]:
    """The scaling factor of latents, if a tensor or the .yaml has it."""
    path = source.path.with_suffix(".yaml")
    said = _number(path, recipe, "scale_factor")
    entry = source.entries.get("scale_factor")
    if entry is not None:
        if math.prod(entry.shape) != 1 or not entry.dtype.is_floating_point:
            raise checkpoint_error(source.path, f"scale_factor is {entry.shape}, not one number")
        own = float(source.fetch("scale_factor", None))
        if said is not None and not math.isclose(own, said, rel_tol=1e-2):
            raise checkpoint_error(
                source.path, f"its scale_factor is {own:g}, and its .yaml says {said:g}"
            )
        said = own
    usual = VAEConfig().scaling_factor
    if said is None or math.isclose(said, usual, rel_tol=1e-3):
        return {}
    return {"scaling_factor": said}


def _number(path: Path, recipe: OriginalConfig, name: str) -> float | None:
    """A positive number of a .yaml; None if it has none. Raises ValueError for anything else."""
    if name not in recipe:
        return None
    try:
        value = float(recipe[name])
    except ValueError:
        value = math.nan
    if not 0 < value <= MOST_STEPS:
        raise checkpoint_error(path, f"{name} is {recipe[name]!r}, no number above 0")
    return value


def checked_fields(
    path: Path, name: str, steps: float | int, ends: Mapping[str, float | None]
) -> dict[str, Any]:
    """The schedule of that name, as fields of ModelConfig.

    Raises ValueError for an invalid number of steps, or if the first or last beta is given and
    differs from that of our schedule.
    """
    if not 1 <= steps <= MOST_STEPS or steps != int(steps):
        raise checkpoint_error(path, f"{steps:g} steps, which no schedule has")
    betas = named_schedule(name, int(steps)).betas
    for (key, value), ours in zip(ends.items(), (betas[0], betas[-1]), strict=True):
        if value is not None and name != "cosine" and not abs(value - ours) <= 1e-6 * ours:
            raise checkpoint_error(
                path, f"{key} is {value:g}; supported for {name} is {float(ours):.6g}"
            )
    return {"schedule": name, "steps": int(steps)}


def _table(source: Source) -> dict[str, Any]:
    """The schedule and its number of steps, from the file's own tensors if it has any.

    Raises ValueError if they are of no schedule in `SCHEDULES`.
    """
    found: dict[str, Any] = {}
    for name, to_abar in TABLES.items():
        entry = source.entries.get(name)
        if entry is None:
            continue
        if len(entry.shape) != 1 or not 1 <= entry.shape[0] <= MOST_STEPS:
            raise checkpoint_error(source.path, f"{name} is {entry.shape}, not (steps,)")
        if not entry.dtype.is_floating_point:
            raise checkpoint_error(source.path, f"{name} is of type {entry.dtype}")
        abar = to_abar(source.fetch(name, None).double())
        if abar[0] < abar[-1]:  # as sgm's sigmas
            abar = abar.flip(0)
        tolerance = max(1e-5, 8 * torch.finfo(entry.dtype).eps)
        matched = _matching(abar, tolerance)
        if matched is None or (found and matched != found):
            known = ", ".join(SCHEDULES)
            raise checkpoint_error(
                source.path, f"its {name} are those of none of {known}; give {option('config')}"
            )
        found = matched
    return found


def _matching(abar: Tensor, tolerance: float) -> dict[str, Any] | None:
    """The schedule with these alpha_t^2, or None."""
    steps = len(abar)
    for zero in (False, True)[: 1 + (steps > 1)]:
        for name in SCHEDULES:
            try:
                alpha_t, _ = named_schedule(name, steps, zero)(
                    torch.arange(1, steps + 1, device="cpu").double()
                )
            except ValueError:  # a cosine of very many steps
                continue
            if torch.allclose(alpha_t**2, abar, rtol=tolerance, atol=NOTHING):
                said = {"schedule": name, "steps": steps}
                return {**said, "zero_terminal_snr": True} if zero else said
    return None
