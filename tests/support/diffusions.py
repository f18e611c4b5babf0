"""Diffusion processes as others write them: tables and methods by their usual names."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

STEPS = 40
BETAS = np.linspace(1e-3, 0.2, STEPS)


def extract(table: Any, t: Tensor, like: Tensor) -> Tensor:
    """guided-diffusion's: entries in float32, in the shape of events."""
    found = torch.as_tensor(table)[t].float()
    return found.reshape(-1, *[1] * (like.ndim - 1))


class Gaussian:
    """As guided-diffusion and what is copied from it: float64 tables of numpy, 0-based times."""

    model_mean_type = SimpleNamespace(name="EPSILON")
    model_var_type = SimpleNamespace(name="FIXED_SMALL")
    loss_type = SimpleNamespace(name="MSE")

    def __init__(self, betas: np.ndarray = BETAS) -> None:
        self.betas = betas
        self.alphas_cumprod = np.cumprod(1 - betas)
        self.alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])
        self.sqrt_alphas_cumprod = np.sqrt(self.alphas_cumprod)
        self.sqrt_one_minus_alphas_cumprod = np.sqrt(1 - self.alphas_cumprod)
        self.log_one_minus_alphas_cumprod = np.log(1 - self.alphas_cumprod)
        self.sqrt_recip_alphas_cumprod = np.sqrt(1 / self.alphas_cumprod)
        self.sqrt_recipm1_alphas_cumprod = np.sqrt(1 / self.alphas_cumprod - 1)
        self.posterior_variance = betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)
        self.posterior_log_variance_clipped = np.log(
            np.append(self.posterior_variance[1], self.posterior_variance[1:])
        )
        self.posterior_mean_coef1 = (
            betas * np.sqrt(self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)
        )
        self.posterior_mean_coef2 = (
            (1 - self.alphas_cumprod_prev) * np.sqrt(1 - betas) / (1 - self.alphas_cumprod)
        )

    def q_mean_variance(self, x_start: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = extract(self.sqrt_alphas_cumprod, t, x_start) * x_start
        variance = extract(1 - self.alphas_cumprod, t, x_start)
        return mean, variance, extract(self.log_one_minus_alphas_cumprod, t, x_start)

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        noise = torch.randn_like(x_start) if noise is None else noise
        assert noise.shape == x_start.shape
        signal = extract(self.sqrt_alphas_cumprod, t, x_start) * x_start
        return signal + extract(self.sqrt_one_minus_alphas_cumprod, t, x_start) * noise

    def q_posterior_mean_variance(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> Any:
        mean = extract(self.posterior_mean_coef1, t, x_t) * x_start
        mean = mean + extract(self.posterior_mean_coef2, t, x_t) * x_t
        variance = extract(self.posterior_variance, t, x_t)
        return mean, variance, extract(self.posterior_log_variance_clipped, t, x_t)

    def _predict_xstart_from_eps(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        x = extract(self.sqrt_recip_alphas_cumprod, t, x_t) * x_t
        return x - extract(self.sqrt_recipm1_alphas_cumprod, t, x_t) * eps

    def _predict_eps_from_xstart(self, x_t: Tensor, t: Tensor, pred_xstart: Tensor) -> Tensor:
        x = extract(self.sqrt_recip_alphas_cumprod, t, x_t) * x_t
        return (x - pred_xstart) / extract(self.sqrt_recipm1_alphas_cumprod, t, x_t)

    def training_losses(
        self, model: Any, x_start: Tensor, t: Tensor, noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        noise = torch.randn_like(x_start) if noise is None else noise
        output = model(self.q_sample(x_start, t, noise=noise), t)
        return {"loss": (noise - output).square().flatten(1).mean(1)}

    def _prior_bpd(self, x_start: Tensor) -> Tensor:
        t = torch.full((len(x_start),), len(self.betas) - 1)
        mean, _, log_variance = self.q_mean_variance(x_start, t)
        kl = (log_variance.exp() + mean**2 - 1 - log_variance) / 2
        return kl.flatten(1).mean(1) / np.log(2)

    def p_sample(self, model: Any, x: Tensor, t: Tensor) -> Tensor:
        raise NotImplementedError


class Buffers(nn.Module):
    """As lucidrains' GaussianDiffusion: float32 buffers, its network inside, images only."""

    def __init__(self, betas: Tensor | None = None, objective: str = "pred_v") -> None:
        super().__init__()
        betas = torch.tensor(BETAS) if betas is None else betas
        abar = (1 - betas).cumprod(0)
        before = torch.cat([abar.new_ones(1), abar[:-1]])
        variance = betas * (1 - before) / (1 - abar)
        self.objective = objective
        for name, table in {
            "betas": betas,
            "alphas_cumprod": abar,
            "sqrt_alphas_cumprod": abar.sqrt(),
            "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
            "posterior_mean_coef1": betas * before.sqrt() / (1 - abar),
            "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - abar),
        }.items():
            self.register_buffer(name, table.float())

    def take(self, name: str, t: Tensor) -> Tensor:
        return getattr(self, name)[t][:, None, None, None]

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        signal = self.take("sqrt_alphas_cumprod", t) * x_start
        return signal + self.take("sqrt_one_minus_alphas_cumprod", t) * noise

    def q_posterior(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        mean = self.take("posterior_mean_coef1", t) * x_start
        mean = mean + self.take("posterior_mean_coef2", t) * x_t
        names = "posterior_variance", "posterior_log_variance_clipped"
        return mean, *(self.take(name, t) for name in names)

    def predict_v(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        v = self.take("sqrt_alphas_cumprod", t) * noise
        return v - self.take("sqrt_one_minus_alphas_cumprod", t) * x_start

    def predict_start_from_v(self, x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
        x0 = self.take("sqrt_alphas_cumprod", t) * x_t
        return x0 - self.take("sqrt_one_minus_alphas_cumprod", t) * v

    def p_losses(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def training_loss(self, model: Any, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        output = model(self.q_sample(x, t, noise), t)
        return (self.predict_v(x, t, noise) - output).square().mean()


class OneTime:
    """As MONAI's DDPMScheduler: the posterior at one plain time, in two methods."""

    variance_type = "fixed_small"

    def __init__(self) -> None:
        self.betas = torch.tensor(BETAS, dtype=torch.float32)
        self.alphas = 1 - self.betas
        self.alphas_cumprod = self.alphas.cumprod(0)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        abar = self.alphas_cumprod[timesteps].reshape(-1, *[1] * (original_samples.ndim - 1))
        return abar**0.5 * original_samples + (1 - abar) ** 0.5 * noise

    def _before(self, timestep: int) -> Tensor:
        return self.alphas_cumprod[timestep - 1] if timestep > 0 else torch.tensor(1.0)

    def _get_mean(self, timestep: int, x_0: Tensor, x_t: Tensor) -> Tensor:
        abar, before = self.alphas_cumprod[timestep], self._before(timestep)
        on_x_0 = before.sqrt() * self.betas[timestep] / (1 - abar)
        return on_x_0 * x_0 + self.alphas[timestep].sqrt() * (1 - before) / (1 - abar) * x_t

    def _get_variance(self, timestep: int) -> Tensor:
        share = (1 - self._before(timestep)) / (1 - self.alphas_cumprod[timestep])
        return (share * self.betas[timestep]).clamp(min=1e-20)
