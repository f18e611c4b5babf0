"""The names by which `of` knows tables and methods, and those of their parameters."""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["FUNCTIONS", "PARAMETERS", "PREDICTIONS", "SAMPLERS", "TABLE_NAMES", "Function"]

TABLE_NAMES: Mapping[str, tuple[str, ...]] = {
    "betas": ("betas", "beta"),
    "alphas": ("alphas",),
    "alphas_cumprod": (
        "alphas_cumprod",
        "alpha_cumprod",
        "alphas_bar",
        "alpha_bar",
        "alpha_bars",
        "alpha_hat",
        "alphas_cum",
        "abar",
    ),
    "alphas_cumprod_prev": ("alphas_cumprod_prev", "alpha_bar_prev", "alpha_cumprod_prev"),
    "sqrt_alphas_cumprod": ("sqrt_alphas_cumprod", "sqrt_alpha_bar", "sqrt_abar", "alpha_t"),
    "sqrt_one_minus_alphas_cumprod": (
        "sqrt_one_minus_alphas_cumprod",
        "sqrt_one_minus_alpha_bar",
        "sqrt_one_minus_abar",
        "sigma_t",
    ),
    "one_minus_alphas_cumprod": ("one_minus_alphas_cumprod", "one_minus_alpha_bar"),
    "log_one_minus_alphas_cumprod": ("log_one_minus_alphas_cumprod",),
    "sqrt_recip_alphas": ("sqrt_recip_alphas",),
    "sqrt_recip_alphas_cumprod": ("sqrt_recip_alphas_cumprod",),
    "sqrt_recipm1_alphas_cumprod": ("sqrt_recipm1_alphas_cumprod",),
    "posterior_variance": ("posterior_variance", "beta_tilde", "betas_tilde"),
    "posterior_log_variance_clipped": ("posterior_log_variance_clipped",),
    "posterior_mean_coef1": ("posterior_mean_coef1",),
    "posterior_mean_coef2": ("posterior_mean_coef2",),
    "half_log_snr": ("lambda_t",),
    "snr": ("snr", "snrs"),
}
"""Quantity, as in `assert_table`, to the names of its table."""


class Function(NamedTuple):
    """Methods that compute one formula.

    Attributes:
        check: which of the checks in `functions` drives it.
        takes: what it takes, each found among the method's parameters by `PARAMETERS`.
        names: the method's names.
        formula: what it should return.
    """

    check: str
    takes: tuple[str, ...]
    names: tuple[str, ...]
    formula: str


FUNCTIONS = (
    Function(
        "forward",
        ("x0", "t", "eps"),
        ("q_sample", "add_noise", "scale_noise", "noise_images", "forward_diffusion", "diffuse"),
        "alpha_t x0 + sigma_t noise",
    ),
    Function(
        "mean_variance",
        ("x0", "t"),
        ("q_mean_variance",),
        "alpha_t x0 and sigma_t^2",
    ),
    Function(
        "posterior",
        ("x0", "x_t", "t"),
        ("q_posterior", "q_posterior_mean_variance", "posterior", "posterior_mean_variance"),
        "mean and variance of q(x_s | x_t, x0)",
    ),
    Function(
        "posterior_in_two",
        ("x0", "x_t", "t"),
        ("_get_mean",),
        "mean of q(x_s | x_t, x0), with `_get_variance(t)` its variance",
    ),
    Function(
        "x0_from_eps",
        ("x_t", "t", "eps"),
        (
            "predict_start_from_noise",
            "predict_x0_from_noise",
            "predict_x0_from_eps",
            "predict_xstart_from_eps",
            "_predict_xstart_from_eps",
        ),
        "(x_t - sigma_t noise) / alpha_t",
    ),
    Function(
        "eps_from_x0",
        ("x_t", "t", "x0"),
        (
            "predict_noise_from_start",
            "predict_noise_from_x0",
            "predict_eps_from_x0",
            "predict_eps_from_xstart",
            "_predict_eps_from_xstart",
        ),
        "(x_t - alpha_t x0) / sigma_t",
    ),
    Function(
        "x0_from_v",
        ("x_t", "t", "v"),
        ("predict_start_from_v", "predict_x0_from_v", "predict_start_from_z_and_v"),
        "alpha_t x_t - sigma_t v",
    ),
    Function(
        "eps_from_v",
        ("x_t", "t", "v"),
        ("predict_noise_from_v", "predict_eps_from_v", "predict_eps_from_z_and_v"),
        "alpha_t v + sigma_t x_t",
    ),
    Function(
        "v_from_x0_and_eps",
        ("x0", "t", "eps"),
        ("predict_v", "get_velocity", "get_v"),
        "alpha_t noise - sigma_t x0",
    ),
    Function(
        "loss",
        ("network", "x0", "t", "eps"),
        ("training_losses", "p_losses", "training_loss"),
        "the squared error of the network's prediction, of weight 1",
    ),
    Function(
        "prior",
        ("x0",),
        ("_prior_bpd", "prior_bpd"),
        "KL(q(x_T | x0), N(0, I)) in bits/dim",
    ),
)
"""What `of` drives."""

SAMPLERS = (
    "step",
    "p_sample",
    "p_sample_loop",
    "ddim_sample",
    "ddim_sample_loop",
    "sample",
)
"""Methods that sample: `audit` checks them."""

PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "x0": (
        "x0",
        "x_0",
        "x_start",
        "xstart",
        "pred_xstart",
        "pred_x0",
        "original_samples",
        "original",
        "clean",
        "x",
        "sample",
        "samples",
        "images",
    ),
    "x_t": ("x_t", "xt", "x_noisy", "noisy", "noisy_samples", "x", "sample", "samples"),
    "t": ("t", "timesteps", "timestep", "times", "time", "step", "index", "i", "k", "n"),
    "eps": ("noise", "eps", "epsilon", "noises", "pred_noise"),
    "v": ("v", "velocity", "v_t", "pred_v"),
    "network": (
        "model",
        "network",
        "net",
        "denoise_model",
        "eps_model",
        "denoise_fn",
        "denoiser",
        "unet",
    ),
}
"""What a function takes, to the names of its parameter, those that say most first."""

PREDICTIONS: Mapping[str, str] = {
    "epsilon": "eps",
    "eps": "eps",
    "noise": "eps",
    "pred_noise": "eps",
    "sample": "x0",
    "x0": "x0",
    "start_x": "x0",
    "pred_x0": "x0",
    "v": "v",
    "v_prediction": "v",
    "pred_v": "v",
}
"""What an object says that its network predicts, in small letters."""
