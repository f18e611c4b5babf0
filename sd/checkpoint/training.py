"""How a checkpoint's U-Net was trained: what it predicts and under which schedule.

No shape tells epsilon from v. For a single file the first of these that speaks decides: the
argument `prediction`; a `.yaml` or `.yml` of the file's name beside it, by its line
`parameterization: "v"`; the file's metadata, `modelspec.prediction_type` and then
`modelspec.architecture`. Where all are silent it is epsilon, with a warning for v2.x, half of whose
models predict v.
"""

import re
import warnings
from typing import Any

import torch
from torch import Tensor

from diffusion_math.schedule import Discrete
from sd.checkpoint.settings import Settings
from sd.checkpoint.source import Source, ill

__all__ = ["prediction", "scheduler", "table"]

PARAMETERIZATIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
MODELSPEC = {"epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
LINE = re.compile(r"^\s*parameterization:\s*[\"']?(\w+)[\"']?\s*(?:#.*)?$", re.MULTILINE)
CONFIG_KEY = "model_config"
"""Where in a file's metadata `save_single` writes the numbers of the model, as JSON."""
LARGEST_YAML = 2**20
SCHEDULES = {
    "scaled_linear": Discrete.scaled_linear,
    "linear": Discrete.linear,
    "cosine": Discrete.cosine,
}
BETA_SCHEDULES = {"squaredcos_cap_v2": "cosine"}
"""diffusers' names of schedules, where they are not ours."""


def prediction(source: Source, given: str | None, second: bool) -> tuple[str, str]:
    """What a single file's U-Net predicts, and what says so.

    Args:
        source: the file.
        given: what the caller says, if anything.
        second: the U-Net is built as v2.x's, so that silence is worth a warning.
    """
    if given is not None:
        return given, "as the argument says"
    for suffix in (".yaml", ".yml"):
        if (beside := source.path.with_suffix(suffix)).is_file():
            if beside.stat().st_size > LARGEST_YAML:
                raise ill(beside, f"above {LARGEST_YAML} bytes, no configuration")
            found = LINE.search(beside.read_text(encoding="utf-8", errors="replace"))
            said = found[1] if found else "eps"  # latent-diffusion's default
            if said not in PARAMETERIZATIONS:
                wanted = ", ".join(PARAMETERIZATIONS)
                raise ill(beside, f"parameterization is {said!r}, not one of {wanted}")
            return PARAMETERIZATIONS[said], f"as {beside.name} says"
    said = source.metadata.get("modelspec.prediction_type", "")
    if said in MODELSPEC:
        return MODELSPEC[said], "as its metadata say"
    if source.metadata.get("modelspec.architecture", "").endswith("768-v"):
        return "v_prediction", "as its metadata say"
    if second:
        warnings.warn(
            f"checkpoint {source.path}: nothing says what its U-Net predicts; taken for epsilon, "
            "as of v2.x at 512 pixels. The models at 768 pixels predict v: pass "
            "prediction='v_prediction', or put a .yaml with the line parameterization: \"v\" "
            "beside the file",
            stacklevel=4,
        )
    return "epsilon", "as nothing says otherwise"


def table(source: Source) -> dict[str, Any]:
    """The schedule and its number of steps, by the file's own table if it has one.

    Raises ValueError where that is none of the schedules known here.
    """
    for name in ("betas", "alphas_cumprod"):
        entry = source.entries.get(name)
        if entry is None:
            continue
        if len(entry.shape) != 1 or entry.shape[0] < 1 or not entry.dtype.is_floating_point:
            raise ill(source.path, f"{name} is {entry.shape}, not (steps,)")
        said = source.fetch(name, None).double()
        tolerance = max(1e-5, 4 * torch.finfo(entry.dtype).eps)
        for schedule, make in SCHEDULES.items():
            if torch.allclose(_values(name, make(len(said))), said, rtol=tolerance, atol=0):
                return {"schedule": schedule, "steps": len(said)}
        known = ", ".join(SCHEDULES)
        raise ill(source.path, f"its {name} are those of none of {known}; pass config=")
    return {}


def _values(name: str, schedule: Discrete) -> Tensor:
    if name == "betas":
        return schedule.betas
    alpha_t, _ = schedule(torch.arange(1, len(schedule.betas) + 1, dtype=torch.float64))
    return alpha_t**2


def scheduler(said: Settings) -> dict[str, Any]:
    """Prediction, schedule and steps of a diffusers folder's scheduler_config.json.

    Raises ValueError for a table of betas that is not one of the schedules known here.
    """
    kind = str(said.values.get("beta_schedule", "linear"))
    name = BETA_SCHEDULES.get(kind, kind)
    steps = said.get("num_train_timesteps", 1000, int)
    if not 1 <= steps <= 10**6:
        raise ill(said.path, f"num_train_timesteps is {steps}")
    betas = SCHEDULES[name](steps).betas
    ends = {"beta_start": (0.0001, betas[0]), "beta_end": (0.02, betas[-1])}
    for key, (default, ours) in ends.items():
        value = float(said.get(key, default, float, int))
        if name != "cosine" and abs(value - ours) > 1e-6 * ours:
            raise ill(said.path, f"{key} is {value}; supported for {name} is {float(ours):.6g}")
    predicted = said.get("prediction_type", "epsilon", str)
    return {"prediction": predicted, "schedule": name, "steps": steps}
