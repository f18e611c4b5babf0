"""`Discrete.from_diffusers` against the schedulers' own tables."""

import pytest
import torch

from diffusion_math.schedule import TERMINAL_ALPHA, Discrete

diffusers = pytest.importorskip("diffusers")

SD15 = {
    "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None, "clip_sample": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.1, 0.2, 0.4], "num_train_timesteps": 3},
        {"num_train_timesteps": 50, "beta_start": 0.01},
        {"rescale_betas_zero_snr": True},
    ],
)
@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler", "LCMScheduler"])
def test_the_table_is_the_schedulers(kind: str, options: dict[str, object]) -> None:
    """Time t + 1 has the alpha-bar of its time t, to the rounding of a product in float32."""
    scheduler = getattr(diffusers, kind)(**options)
    found = Discrete.from_diffusers(scheduler.config)
    alpha, _ = found(torch.arange(1, int(found.T) + 1, dtype=torch.float64))
    theirs = scheduler.alphas_cumprod.double().sqrt()
    ends = -1 if options.get("rescale_betas_zero_snr") else None
    torch.testing.assert_close(alpha[:ends], theirs[:ends], rtol=2e-4, atol=2e-6)
    assert ends is None or 0 < alpha[-1] <= TERMINAL_ALPHA


def test_a_file_of_stable_diffusion() -> None:
    assert torch.equal(Discrete.from_diffusers(SD15).betas, Discrete.scaled_linear().betas)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beta_schedule": "sigmoid"}, "config: wanted beta_schedule among linear, .* got sigmoid"),
        ({"beta_schedule": None}, "config: wanted the setting beta_schedule"),
        ({"beta_start": None}, "config: wanted the setting beta_start"),
        ({"num_train_timesteps": None}, "config: wanted the setting num_train_timesteps"),
        ({"num_train_timesteps": 1.5}, "steps: wanted a whole number"),
        ({"use_flow_sigmas": True}, "config: wanted use_flow_sigmas = False, got True"),
        ({"snr_shift_scale": 3.0}, "config: wanted snr_shift_scale = 1.0, got 3.0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_beta_schedule_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Discrete.from_diffusers(SD15 | changed)


def test_a_scheduler_in_its_config_s_place_is_told() -> None:
    with pytest.raises(ValueError, match="config: wanted a Mapping, got an object"):
        Discrete.from_diffusers(object())  # type: ignore[arg-type]
