"""What says how a U-Net was trained: every mark in use, each spelling, and contradictions."""

import codecs
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sd.checkpoint import load, save_folder, save_single
from sd.checkpoint.original_config import DEEPEST, LARGEST
from sd.config import VAEConfig
from sd.noise_schedule import SCHEDULES, named_schedule
from tests.support import small_models
from tests.support.small_models import V1, V2

EMPTY, V = torch.zeros(0), "parameterization: v"
ZERO_SNR = named_schedule("scaled_linear", 1000, True)
ZERO_LINE = "rescale_betas_zero_snr: true\n    timesteps"
OFFICIAL = """model:
  base_learning_rate: 1.0e-04
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    parameterization: "v"
    linear_start: 0.00085
    linear_end: 0.0120
    timesteps: 1000
    scale_factor: 0.18215
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params: {channel_mult: [1, 2, 4, 4], use_linear_in_transformer: True}
"""


def written(
    folder: Path,
    metadata: dict[str, str] | None = None,
    beside: str | bytes | None = None,
    **tensors: Tensor,
) -> Path:
    """The small v1 with more tensors, metadata and a .yaml beside it."""
    path = folder / "model.safetensors"
    save_file({**small_models.single(V1), **tensors}, path, metadata)
    if beside is not None:
        raw = beside.encode() if isinstance(beside, str) else beside
        path.with_suffix(".yaml").write_bytes(raw)
    return path


MARKS: dict[str, dict[str, Any]] = {
    "prediction_type v": {"metadata": {"modelspec.prediction_type": "v"}},
    "prediction_type v_prediction": {"metadata": {"modelspec.prediction_type": "v_prediction"}},
    "predict_key": {"metadata": {"modelspec.predict_key": "v"}},
    "ComfyUI's": {"metadata": {"modelspec.predict_key": "v"}, "v_pred": EMPTY},
    "an empty v_pred": {"v_pred": EMPTY},
    "v_pred with a number": {"v_pred": torch.zeros(1)},
    "kohya's": {"metadata": {"ss_v_parameterization": "True"}},
    "architecture": {"metadata": {"modelspec.architecture": "stable-diffusion-v2-768-v"}},
    "official": {"beside": OFFICIAL},
    "UTF-16": {"beside": 'parameterization: "v"\r\n'.encode("utf-16")},
    "UTF-16, big-endian": {"beside": codecs.BOM_UTF16_BE + V.encode("utf-16-be")},
    "UTF-8 with a mark": {"beside": codecs.BOM_UTF8 + b"parameterization: v\n"},
    "flow style": {"beside": "model: {params: {parameterization: v}}"},
    "JSON": {"beside": '{"model": {"params": {"parameterization": "v"}}}'},
    "a quoted key": {"beside": "model:\n  params:\n    'parameterization': 'v'\n"},
    "a space before the colon": {"beside": "params:\n  parameterization : v\n"},
    "a complex key": {"beside": "? parameterization\n: v\n"},
    "a tag": {"beside": "parameterization: !!str v\n"},
    "an alias": {"beside": "a: &a v\nparameterization: *a\n"},
    "a merged mapping": {"beside": "a: &a {parameterization: v}\nparams:\n  <<: *a\n"},
    "over two lines": {"beside": "parameterization:\n  v\n"},
    "a folded text": {"beside": "parameterization: >-\n  v\n"},
    "twice the same": {"beside": "parameterization: v\nparams: {parameterization: v}\n"},
    "a document's marks": {"beside": "%YAML 1.1\n---\nparameterization: v\n...\n"},
    "an escape": {"beside": '"param\\x65terization": "\\u0076"\n'},
}  # fmt: skip


@pytest.mark.parametrize("name", MARKS)
def test_v_is_read_off_every_mark(name: str, tmp_path: Path) -> None:
    found = load(written(tmp_path, **MARKS[name]))
    assert found.config == replace(V1, prediction="v_prediction")
    assert any(note.startswith("prediction: v_prediction, as ") for note in found.account.notes)


EPSILON: dict[str, dict[str, Any]] = {
    "nothing": {},
    "prediction_type": {"metadata": {"modelspec.prediction_type": "epsilon"}},
    "kohya's": {"metadata": {"ss_v_parameterization": "False"}},
    "kohya's None": {"metadata": {"ss_v_parameterization": "None"}},
    "a comment": {"beside": "# parameterization: v\nmodel: {}\n"},
    "a text": {"beside": 'model: {}\nnotes: "parameterization: v"\n'},
    "another key": {"beside": "model: {my_parameterization: v}\n"},
    "no configuration of a model": {"beside": "{}"},
}


@pytest.mark.parametrize("name", EPSILON)
def test_epsilon_where_nothing_says_v(name: str, tmp_path: Path) -> None:
    assert load(written(tmp_path, **EPSILON[name])).config == V1


ZERO: dict[str, dict[str, Any]] = {
    "ComfyUI's": {"v_pred": EMPTY, "ztsnr": EMPTY},
    "kohya's": {"metadata": {"ss_zero_terminal_snr": "True", "ss_v_parameterization": "True"}},
    "its .yaml": {"beside": OFFICIAL.replace("timesteps", ZERO_LINE)},
    "its betas": {"v_pred": EMPTY, "betas": ZERO_SNR.betas.float()},
    "sigmas that end in infinity": {
        "v_pred": EMPTY,
        "sigmas": torch.cat([
            (lambda a, s: s / a)(*ZERO_SNR(torch.arange(1, 1000.0))),
            torch.tensor([torch.inf]),
        ]).float(),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ZERO)
def test_a_zero_terminal_snr_is_read(name: str, tmp_path: Path) -> None:
    found = load(written(tmp_path, **ZERO[name]))
    assert found.config == replace(V1, prediction="v_prediction", zero_terminal_snr=True)
    assert any("zero terminal SNR" in note for note in found.account.notes)


@pytest.mark.parametrize("mark", [EMPTY, True, 1])
def test_marks_beside_the_tensors_of_a_ckpt(mark: object, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": small_models.single(V1), "v_pred": mark, "ztsnr": mark}, path)
    assert load(path).config == replace(V1, prediction="v_prediction", zero_terminal_snr=True)


def test_a_config_of_another_prediction_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(ValueError, match=r"^prediction: wanted the one of the given config"):
        load(path, config=V1, prediction="v_prediction")
    assert load(path, config=V1, prediction="epsilon").config == V1


def test_a_zero_terminal_snr_fits_no_epsilon(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"zero terminal SNR .* give --prediction v_prediction"):
        load(written(tmp_path, ztsnr=EMPTY))
    found = load(written(tmp_path, ztsnr=EMPTY), prediction="v_prediction")
    assert found.config.zero_terminal_snr


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "metadata and tensor": (
        {"metadata": {"modelspec.prediction_type": "epsilon"}, "v_pred": EMPTY},
        "epsilon", "prediction is epsilon, as its metadata say, and not v_prediction, as its ten",
    ),
    "yaml and metadata": (
        {"metadata": {"modelspec.predict_key": "epsilon"}, "beside": "parameterization: v"},
        "v_prediction", "prediction is v_prediction, as model.yaml says, and not epsilon",
    ),
    "two metadata": (
        {"metadata": {"modelspec.prediction_type": "v", "ss_v_parameterization": "false"}},
        "v_prediction", "prediction is v_prediction, as its metadata say, and not epsilon",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_said(name: str, tmp_path: Path) -> None:
    marks, prediction, line = CONTRADICTIONS[name]
    path = written(tmp_path, **marks)
    with pytest.warns(UserWarning, match=line):
        assert load(path).config.prediction == prediction
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(path, prediction="sample").config.prediction == "sample"


BETAS = named_schedule("scaled_linear", 1000).betas.float()
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a prediction that is none": (
        {"metadata": {"modelspec.prediction_type": "flow"}},
        "modelspec.prediction_type is 'flow', not one of",
    ),
    "a flag that is none": (
        {"metadata": {"ss_v_parameterization": "maybe"}}, "'maybe', neither true nor false"
    ),
    "two values": (
        {"beside": "parameterization: v\nparams: {parameterization: eps}"},
        "parameterization is both ",
    ),
    "a key twice": ({"beside": "parameterization: v\nparameterization: x0"}, "is both "),
    "a parameterization that is none": (
        {"beside": "parameterization: w"}, "parameterization is 'w', not eps, v, x0"
    ),
    "a list": ({"beside": "parameterization: [v]"}, "parameterization is 'no single value'"),
    "no YAML": ({"beside": "a: [b"}, r"model\.yaml: not valid YAML \("),
    "two documents": ({"beside": "a: b\n---\nc: d\n"}, "not valid YAML"),
    "no mapping": ({"beside": "- a\n"}, "not a YAML mapping"),
    "empty": ({"beside": ""}, "not a YAML mapping"),
    "not UTF-8": ({"beside": b"a: \xff\xff"}, "not valid YAML"),
    "UTF-16 without a mark": ({"beside": "a: b".encode("utf-16-le")}, "not valid YAML"),
    "too large": ({"beside": "#" * (LARGEST + 1)}, f"has {LARGEST + 1} bytes, more than"),
    "too deep": ({"beside": "[" * (DEEPEST + 1)}, f"more than {DEEPEST} levels"),
    "other betas": ({"beside": "model: {}\nlinear_end: 0.02"}, "linear_end is 0.02; supported for"),
    "a schedule that is none": (
        {"beside": "beta_schedule: sqrt"}, "beta_schedule is 'sqrt', not one of linear, sqrt_linear"
    ),
    "steps that are no number": ({"beside": "timesteps: many"}, "timesteps is 'many', no number"),
    "endless steps": ({"beside": "timesteps: 1e99"}, "timesteps is '1e99', no number above 0"),
    "a scale of 0": ({"beside": "scale_factor: 0"}, "scale_factor is '0', no number above 0"),
    "tensor and .yaml": (
        {"beside": "timesteps: 500", "betas": BETAS}, "its steps is 1000, and its .yaml says 500"
    ),
    "two scales": (
        {"beside": "scale_factor: 0.5", "scale_factor": torch.tensor(0.2)},
        "its scale_factor is 0.2, and its .yaml says 0.5",
    ),
    "two tables": (
        {"betas": BETAS, "alphas_cumprod": (1 - named_schedule("linear", 1000).betas).cumprod(0)},
        "its alphas_cumprod are those of none of",
    ),
    "EDM": ({"edm_vpred.sigma_max": torch.tensor(120.0)}, "unexpected"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_mark_that_is_not_supported_is_named(name: str, tmp_path: Path) -> None:
    marks, line = BAD[name]
    with pytest.raises(ValueError, match=line):
        load(written(tmp_path, **marks))


@pytest.mark.parametrize("known", SCHEDULES)
@pytest.mark.parametrize("zero", [False, True])
def test_the_table_of_every_schedule_is_recognised(known: str, zero: bool, tmp_path: Path) -> None:
    """As betas, as alpha^2, and as ascending or descending sigmas, in float32."""
    own = named_schedule(known, 300, zero)
    alpha_t, sigma_t = own(torch.arange(1, 301.0))
    sigmas = (sigma_t / alpha_t).float()
    wanted = replace(
        V1, prediction="v_prediction", schedule=known, steps=300, zero_terminal_snr=zero
    )
    for tables in (
        {"betas": own.betas.float()},
        {"alphas_cumprod": (alpha_t**2).float()},
        {"sigmas": sigmas, "log_sigmas": sigmas.log()},
        {"denoiser.sigmas": sigmas.flip(0)},
    ):
        assert load(written(tmp_path, **tables), prediction="v_prediction").config == wanted


def test_the_scale_of_latents_is_read(tmp_path: Path) -> None:
    usual = VAEConfig().scaling_factor
    for marks, wanted in (
        ({"scale_factor": torch.tensor(0.5)}, 0.5),
        ({"scale_factor": torch.tensor(usual).half()}, usual),
        ({"beside": "scale_factor: 0.25"}, 0.25),
    ):
        found = load(written(tmp_path, **marks)).config
        assert found == replace(V1, vae=replace(V1.vae, scaling_factor=wanted))


def test_what_is_written_is_read(tmp_path: Path, model: Any) -> None:
    """A zero terminal SNR in our single file and in a folder, for us and for diffusers."""
    from diffusers import DDIMScheduler

    config = replace(V1, prediction="v_prediction", zero_terminal_snr=True, image_size=64)
    model.config = config
    save_single(tmp_path / "a.safetensors", model)
    save_single(tmp_path / "a.ckpt", model)
    save_folder(tmp_path / "a", model)
    for name in ("a.safetensors", "a.ckpt", "a"):
        assert load(tmp_path / name).config == config
    theirs = DDIMScheduler.from_pretrained(tmp_path / "a" / "scheduler")
    alpha_t, _ = ZERO_SNR(torch.arange(1, 1001.0))
    torch.testing.assert_close(theirs.alphas_cumprod.double(), alpha_t**2, rtol=2e-4, atol=1e-6)
    assert theirs.config.timestep_spacing == "trailing"


SAMPLERS: dict[str, tuple[dict[str, Any], str]] = {
    "noise levels": ({"use_karras_sigmas": True}, "use_karras_sigmas not read"),
    "thresholding": ({"thresholding": True, "sigma_max": 9.0}, "sigma_max, thresholding not read"),
    "distilled": ({"_class_name": "LCMScheduler"}, "of a LCMScheduler: a distilled model wants"),
    "unheard of": ({"use_magic": 3}, "use_magic not known here and not read"),
}
FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "a flow": ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "a process that is not"),
    "EDM": ({"_class_name": "EDMEulerScheduler"}, "a process that is not"),
    "flow's noise levels": ({"use_flow_sigmas": True}, "use_flow_sigmas is True; supported is"),
    "steps": ({"num_train_timesteps": 10**7}, "steps, which no schedule has"),
    "not a number": ({"beta_end": float("nan")}, "beta_end is nan; supported for"),
}


@pytest.mark.parametrize("name", [*SAMPLERS, *FOREIGN])
def test_a_folder_s_options_are_read_said_or_refused(name: str, tmp_path: Path, model: Any) -> None:
    save_folder(tmp_path, model)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    words, line = {**SAMPLERS, **FOREIGN}[name]
    path.write_text(json.dumps({**json.loads(path.read_text()), **words}))
    if name in SAMPLERS:
        with pytest.warns(UserWarning, match=line):
            load(tmp_path)
    else:
        with pytest.raises(ValueError, match=line):
            load(tmp_path)


def test_a_setting_of_a_network_that_is_not_known_is_said(tmp_path: Path, model: Any) -> None:
    save_folder(tmp_path, model)
    path = tmp_path / "unet" / "config.json"
    words = {"new_rope": {"base": 10}, "new_switch": False, "new_name": None}
    path.write_text(json.dumps({**json.loads(path.read_text()), **words}))
    with pytest.warns(UserWarning, match="new_rope not known here and not read"):
        load(tmp_path)


def test_v2_says_what_its_768_pixels_want(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({**small_models.single(V2), "v_pred": EMPTY}, path)
    assert load(path).config == replace(V2, prediction="v_prediction", image_size=768)
