"""The prediction and the noise schedule of a checkpoint's U-Net.

Shapes do not distinguish epsilon from v. The argument `prediction` comes first. Without it, the
first of these sources decides for a single file, with a warning if a later one differs: the
configuration that `save_single` writes; a `.yaml` or `.yml` beside the file (latent-diffusion's
`parameterization`); the metadata (`modelspec.prediction_type`, ComfyUI's `modelspec.predict_key`,
kohya's `ss_v_parameterization`); a tensor `v_pred`; `modelspec.architecture`. Without any it is
epsilon, with a warning for v2.x, where half of the models predict v.
"""

import warnings
from collections.abc import Iterator
from typing import Any

from sd.checkpoint import beta_schedule
from sd.checkpoint.component_config import ComponentConfig
from sd.checkpoint.original_config import OriginalConfig, find_original_config
from sd.checkpoint.tensor_source import Source, checkpoint_error, option, printable
from sd.config import ModelConfig

__all__ = ["BETA_SCHEDULES", "CONFIG_KEY", "from_file", "from_scheduler"]

PARAMETERIZATIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
SPELLINGS = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
    "sample": "sample",
    "x0": "sample",
}
TRUTHS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0", "none", "null", "~", ""), False),
}
CONFIG_KEY = "model_config"
"""The key in the metadata under which `save_single` writes the configuration as JSON."""
BETA_SCHEDULES = {"squaredcos_cap_v2": "cosine"}
"""The names of schedules in diffusers that differ from ours."""
LDM_ZERO = ("rescale_betas_zero_snr", "zero_terminal_snr", "zero_snr", "ztsnr")
SAMPLING = (
    "sigma_max",
    "sigma_min",
    "snr_shift_scale",
    "thresholding",
    "use_beta_sigmas",
    "use_exponential_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
)
"""Options of diffusers' schedulers that change the noise levels or the predictions."""
FOREIGN = ("FlowMatch", "EDM", "VQDiffusion", "ScoreSde")
DISTILLED = ("LCM", "TCD")
"""Prefixes of the names of diffusers' schedulers."""
BETA_ENDS = {"beta_start": 0.0001, "beta_end": 0.02}


def from_file(
    source: Source, config: ModelConfig | None, given: str | None, second: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields of ModelConfig about the training of a single file, and notes on their sources.

    Args:
        source: the file.
        config: the configuration in its metadata, if there is one.
        given: the prediction that the caller gives, if any.
        second: whether the U-Net is of v2.x, where an unknown prediction gets a warning.

    Raises ValueError if a tensor or a setting of the .yaml is not supported.
    """
    found = find_original_config(source.path)
    recipe: OriginalConfig = {} if found is None else found[1]
    name = "" if found is None else found[0].name
    if given is not None:
        said, why = given, "as the argument says"
    else:
        said, why = _first(source, "prediction", _predictions(source, config, recipe, name))
    if said is None:
        said, why = "epsilon", "as nothing says otherwise"
        if second:
            _unsaid(source)
    fields: dict[str, Any] = {"prediction": said}
    notes = [f"prediction: {said}, {why}"]
    zero, why = _first(source, "zero_terminal_snr", _zeros(source, config, recipe, name))
    if config is None:
        fields |= beta_schedule.schedule_fields(source, recipe)
        if fields.pop("zero_terminal_snr", False):
            zero, why = True, "as its table has"
    if zero:
        if said == "epsilon":
            raise checkpoint_error(
                source.path,
                f"it has zero terminal SNR ({why}), which fits no prediction of epsilon; give "
                f"{option('prediction', 'v_prediction')}",
            )
        fields["zero_terminal_snr"] = True
        notes.append(f"schedule: rescaled to a zero terminal SNR, {why}")
    return fields, tuple(notes)


def _predictions(
    source: Source, config: ModelConfig | None, recipe: OriginalConfig, name: str
) -> Iterator[tuple[str, str]]:
    """The sources of the prediction, in order: (prediction, source)."""
    metadata = source.metadata
    if config is not None:
        yield config.prediction, "as its metadata say"
    if name:
        said = recipe.get("parameterization", "eps" if "model" in recipe else "")
        if said not in ("", *PARAMETERIZATIONS):
            wanted = ", ".join(PARAMETERIZATIONS)
            raise checkpoint_error(
                source.path.with_name(name), f"parameterization is {said!r}, not {wanted}"
            )
        if said:
            yield PARAMETERIZATIONS[said], f"as {name} says"
    for key in ("modelspec.prediction_type", "modelspec.predict_key"):
        said = metadata.get(key, "").strip().lower()
        if said and said not in SPELLINGS:
            raise checkpoint_error(
                source.path, f"{key} is {said!r}, not one of {', '.join(SPELLINGS)}"
            )
        if said:
            yield SPELLINGS[said], "as its metadata say"
    if "ss_v_parameterization" in metadata:
        yes = _truth(source, "ss_v_parameterization", metadata["ss_v_parameterization"])
        yield ("v_prediction" if yes else "epsilon"), "as its metadata say"
    if _marked(source, "v_pred"):
        yield "v_prediction", "as its tensor v_pred says"
    if metadata.get("modelspec.architecture", "").endswith("768-v"):
        yield "v_prediction", "as its metadata say"


def _zeros(
    source: Source, config: ModelConfig | None, recipe: OriginalConfig, name: str
) -> Iterator[tuple[bool, str]]:
    """The sources of a zero terminal SNR, in order."""
    if config is not None:
        yield config.zero_terminal_snr, "as its metadata say"
    for key in LDM_ZERO:
        if key in recipe:
            yield _truth(source, f"{key} of {name}", recipe[key]), f"as {name} says"
    if "ss_zero_terminal_snr" in source.metadata:
        said = source.metadata["ss_zero_terminal_snr"]
        yield _truth(source, "ss_zero_terminal_snr", said), "as its metadata say"
    if _marked(source, "ztsnr"):
        yield True, "as its tensor ztsnr says"


def _marked(source: Source, name: str) -> bool:
    """Whether a tensor or other value of that name exists."""
    return name in source.entries or name in source.aside


def _truth(source: Source, name: str, said: str) -> bool:
    if said.lower() not in TRUTHS:
        raise checkpoint_error(source.path, f"{name} is {said!r}, neither true nor false")
    return TRUTHS[said.lower()]


def _first(source: Source, what: str, voices: Iterator[tuple[Any, str]]) -> tuple[Any, str]:
    """The value of the first source, or None; warns if another source differs."""
    said, why = next(voices, (None, ""))
    for other, whose in voices:
        if other != said:
            warnings.warn(
                printable(
                    f"checkpoint {source.path}: {what} is {said}, {why}, and not {other}, {whose}"
                ),
                stacklevel=2,
            )
    return said, why


def _unsaid(source: Source) -> None:
    warnings.warn(
        f"checkpoint {printable(str(source.path))}: nothing says what its U-Net predicts; taken "
        "for epsilon, as of v2.x at 512 pixels. The models at 768 pixels predict v: give "
        f"{option('prediction', 'v_prediction')}, or put a .yaml with the line parameterization: "
        '"v" beside the file',
        stacklevel=2,
    )


def from_scheduler(
    said: ComponentConfig, given: str | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Prediction, schedule and steps from a diffusers scheduler_config.json, and notes.

    Args:
        said: its settings.
        given: the prediction that the caller gives, if any.

    Warns about options that change the result and are arguments of a call here.

    Raises ValueError for an unsupported beta schedule, or a process of another family.
    """
    named = str(said.values.get("_class_name", ""))
    if named.startswith(FOREIGN):
        raise checkpoint_error(
            said.path, f"of a {named}, a process that is not Stable Diffusion v1's or v2's"
        )
    if named.startswith(DISTILLED):
        warnings.warn(
            f"checkpoint {printable(str(said.path))}: of a {named}: a distilled model wants its "
            "own sampler's few steps and a guidance scale near 1, which are not set here",
            stacklevel=2,
        )
    ignored = [name for name in SAMPLING if said.values.get(name) not in (None, False)]
    if ignored:
        warnings.warn(
            f"checkpoint {printable(str(said.path))}: {', '.join(ignored)} not read: the solver "
            "and the grid are those of the call",
            stacklevel=2,
        )
    kind = said.get("beta_schedule", "linear", str)
    name = BETA_SCHEDULES.get(kind, kind)
    steps = said.get("num_train_timesteps", 1000, int)
    ends = {key: float(said.get(key, value, float, int)) for key, value in BETA_ENDS.items()}
    fields = beta_schedule.checked_fields(said.path, name, steps, ends)
    predicted, why = said.get("prediction_type", "epsilon", str), f"as {said.path.name} says"
    if given is not None:
        predicted, why = given, "as the argument says"
    fields["prediction"] = predicted
    notes = [f"prediction: {predicted}, {why}"]
    if said.values.get("rescale_betas_zero_snr"):
        fields["zero_terminal_snr"] = True
        notes.append(f"schedule: rescaled to a zero terminal SNR, as {said.path.name} says")
    return fields, tuple(notes)
