"""Wrong versions of conditions, guidance, latents and Stable Diffusion: C27 to C33."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from PIL import ImageOps
from torch import Tensor

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import marginal as right_marginal
from diffusion_math.guidance import cfg as right_cfg
from diffusion_math.loss import training_loss as right_loss
from diffusion_math.sample import trajectory as right_trajectory
from experiments.families.generators import FAMILIES, autoencoder
from sd.control_map import of_scene
from sd.inpaint import Inpainting
from sd.networks.controlnet import ControlNet
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE, Latent
from sd.pipeline import TextToImage
from sd.train.clip import info_nce as right_nce
from sd.train.unet import train_unet
from tests import test_claims_conditions as conditions
from tests import test_claims_families as families
from tests import test_claims_learning as learning
from tests.claims.wrong import wrong
from tests.diffusion_math import test_guidance as guidance
from tests.sd import test_control as control
from tests.sd import test_img2img as redrawn
from tests.sd import test_inpaint as inpaint
from tests.sd import test_pipeline as pipeline
from tests.sd import test_pipeline_arguments as starts
from tests.sd.networks import test_classes as classes
from tests.sd.networks import test_controlnet as controlnet
from tests.sd.networks import test_text_encoder as text
from tests.sd.networks import test_unet as unet
from tests.sd.networks import test_vae as vae
from tests.sd.text import test_clip as clip

average = conditions.test_c27_conditions_average_to_the_unconditional
in_one_pass = pipeline.test_the_denoiser_is_the_exact_guided_one_in_one_pass
KIND = {"t": 0.3, "kind": "number"}
DENOISER = "sd.pipeline:TextToImage.denoiser"
denoiser = TextToImage.denoiser


@wrong("C27", average, "diffusion_math.densities.mixture:GaussianMixture.denoiser", **KIND)
def no_denoiser(self: GaussianMixture, schedule: Any) -> Any:
    """x_t / alpha_t stands for E[x_0 given x_t]."""
    return lambda x, t: x / schedule(t)[0]


@wrong("C27", average, "diffusion_math.densities.mixture:GaussianMixture.denoiser", **KIND)
def one_condition_for_all(self: GaussianMixture, schedule: Any) -> Any:
    """Whatever the condition, the answer is that of the first class."""
    return lambda x, t: self.among([0]).posterior_mean(schedule, x, t)


@wrong("C27", in_one_pass, DENOISER)
@wrong("C33", redrawn.test_c33_an_image_is_redrawn_under_the_prompt, DENOISER, solver="heun")
def prompt_ignored(self: Any, pair: Any, scale: Any, *more: Any) -> Any:
    """The conditional half of the batch is given the empty prompt too."""
    return denoiser(self, (pair[0], pair[0].expand_as(pair[1])), scale, *more)


@wrong("C27", in_one_pass, DENOISER)
@wrong("C33", redrawn.test_c33_an_image_is_redrawn_under_the_prompt, DENOISER, solver="dpmpp_2m")
def halves_exchanged(self: Any, pair: Any, scale: Any, *more: Any) -> Any:
    """The unconditional prediction is taken for the conditional one."""
    return denoiser(self, (pair[1], pair[0].expand_as(pair[1])), scale, *more)


CHANNELS = "sd.inpaint:Inpainting.channels"
channels = Inpainting.channels
mapped = inpaint.test_c27_a_map_and_the_known_pixels_are_a_condition


@wrong("C27", mapped, CHANNELS, solver="dpmpp_2m")
def known_pixels_hidden(self: Inpainting, encode: Any) -> Any:
    """The known pixels are given to the U-Net as grey ones."""
    return channels(self, lambda x: encode(0 * x))


@wrong("C27", mapped, CHANNELS, solver="heun")
def mask_inverted(self: Inpainting, encode: Any) -> Any:
    """The map that the U-Net is given is white where a pixel is known."""
    return channels(replace(self, white=~self.white), encode)


CONTROLNET = "sd.networks.controlnet:ControlNet.forward"
residuals = ControlNet.forward
controlled = controlnet.test_c27_every_residual_is_diffusers


@wrong("C27", controlled, CONTROLNET, name="v1")
def map_ignored(self: ControlNet, x: Any, t: Any, context: Any, features: Any) -> Any:
    """The ControlNet's map is not read."""
    return residuals(self, x, t, context, 0 * features)


@wrong("C27", controlled, CONTROLNET, name="v2")
def middle_without_residual(self: ControlNet, *given: Any) -> Any:
    """The residual of the middle block is left out."""
    *down, middle = residuals(self, *given)
    return [*down, 0 * middle]


UNET_TIME = "sd.networks.unet:UNet.time"
embedded = UNet.time
labelled = classes.test_c27_a_label_is_a_condition_as_in_diffusers


@wrong("C27", labelled, UNET_TIME, name="labels alone")
def label_ignored(self: UNet, x: Tensor, t: Tensor, labels: Any = None) -> Tensor:
    """The U-Net's embedding is that of the time alone, whatever the label."""
    return embedded(self, x, t, 0 * labels) - self.class_embedding.weight[0]


@wrong("C27", labelled, UNET_TIME, name="v1 with labels")
def null_class_is_the_first(self: UNet, x: Tensor, t: Tensor, labels: Any = None) -> Tensor:
    """The null class is taken for label 0, as if labels were counted from 1."""
    return embedded(self, x, t, (labels + 1) % self.config.num_class_embeds)


dropped = conditions.test_c28_prompts_are_dropped_at_random
both_models = learning.test_c28_one_network_learns_both_models


placed = control.test_c27_things_are_where_the_map_has_them


@wrong("C27", placed, "of_scene")
def mirrored_map(scene: Any) -> Any:
    """The map is that of the mirrored scene."""
    return ImageOps.mirror(of_scene(scene))


def training_with(change: Callable[[Any], Any]) -> Any:
    """`train_unet` under other settings than were asked for."""
    return lambda training, *rest: train_unet(change(training), *rest)


@wrong("C28", dropped, "train_unet", training_with, drop=0.1)
def never_dropped(training: Any) -> Any:
    """No prompt is ever dropped."""
    return replace(training, drop=0.0)


@wrong("C28", dropped, "train_unet", training_with, drop=0.1)
def rest_dropped(training: Any) -> Any:
    """The share that is kept is dropped."""
    return replace(training, drop=1 - training.drop)


@wrong("C28", both_models, "training_loss", drop=0.1)
def absolute_error(*arguments: Any) -> Any:
    """The absolute error is learned: medians, whose average is no median."""
    return right_loss(*arguments).sqrt()


one_line = guidance.test_guidance_is_one_line_in_eps_and_in_the_score


@wrong("C29", one_line, "cfg")
def scale_counted_from_zero(conditional: Any, unconditional: Any, w: float) -> Any:
    """1 + w stands for w, the count of the paper of classifier-free guidance."""
    return right_cfg(conditional, unconditional, w + 1)


@wrong("C29", one_line, "cfg")
def models_exchanged(conditional: Any, unconditional: Any, w: float) -> Any:
    """The two models are exchanged: guidance leads away from the condition."""
    return right_cfg(unconditional, conditional, w)


@wrong("C29", one_line, "cfg")
def weighted_average(conditional: Any, unconditional: Any, w: float) -> Any:
    """The scale is cut at 1: an average of the two and never beyond."""
    return right_cfg(conditional, unconditional, min(w, 1.0))


contrast = clip.test_the_loss_is_its_closed_form
encoder = text.test_agrees_with_transformers_after_copying_its_tensors


@wrong("C30", contrast, "info_nce")
def one_direction(logits: Tensor, true: Tensor) -> Any:
    """Images are told among captions, and captions not among images."""
    own = torch.arange(len(logits))
    kept = logits.masked_fill(true & ~torch.eye(len(logits)).bool(), -torch.inf)
    return F.cross_entropy(kept, own), right_nce(logits, true)[1]


@wrong("C30", contrast, "info_nce")
def true_captions_as_negatives(logits: Tensor, true: Tensor) -> Any:
    """A caption that is true of another's image too counts as a wrong answer."""
    return right_nce(logits, torch.eye(len(logits)).bool())


@wrong("C30", contrast, "info_nce")
def sum_for_mean(logits: Tensor, true: Tensor) -> Any:
    """The loss is summed over the pairs."""
    loss, matched = right_nce(logits, true)
    return len(logits) * loss, matched


@wrong("C30", encoder, "sd.networks.text_encoder:_CausalAttention.forward", config=text.CONFIGS[1])
def sees_the_future(self: Any, x: Tensor) -> Tensor:
    """A token attends to later ones: the mask is left out."""
    q, k, v = (
        y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        for y in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
    )
    return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@wrong("C30", encoder, "sd.networks.text_encoder:TextEncoder.states", config=text.CONFIGS[1])
def last_norm_left_out(self: TextEncoder, tokens: Tensor, layers: int) -> Tensor:
    """The last layer norm is left out."""
    x = self.embeddings(tokens)
    for layer in list(self.encoder["layers"].children())[:layers]:
        x = layer(x)
    return x


code = families.test_c31_a_plain_code_is_not_to_be_drawn_from


@wrong("C31", code, "FAMILIES", lambda version: {"VAE": version})
def no_divergence_term(budget: Any, data: Any) -> Any:
    """The VAE is trained without its KL term: a plain autoencoder."""
    return autoencoder(replace(budget, seed=budget.seed + 1), data)


@wrong("C31", code, "autoencoder")
def plain_code_regularised(budget: Any, data: Any) -> Any:
    """The code that is called plain is a VAE's: samples of its normal decode as well."""
    return FAMILIES["VAE"](replace(budget, seed=budget.seed + 1), data)


flow = pipeline.test_a_picture_is_the_end_of_the_exact_flow
features, forward = unet.time_features, UNet.forward


@wrong("C32", unet.test_agrees_with_diffusers_after_copying_its_tensors,
       "sd.networks.unet:time_features", config=unet.V1)  # fmt: skip
def sines_first(t: Tensor, width: int) -> Tensor:
    """The embedding of the time has its sines first; Stable Diffusion's has its cosines."""
    return features(t, width).roll(width // 2, -1)


@wrong("C32", unet.test_agrees_with_diffusers_after_copying_its_tensors,
       "sd.networks.unet:UNet.forward", config=unet.V1)  # fmt: skip
def prompt_not_attended(self: UNet, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
    """The cross-attention reads zeros in the prompt's place."""
    return forward(self, x, t, torch.zeros_like(context))


@wrong("C32", vae.test_agrees_with_diffusers_after_copying_its_tensors,
       "sd.networks.vae:VAE.encode", config=vae.CONFIGS[2])  # fmt: skip
def latent_not_scaled(self: VAE, x: Tensor) -> Latent:
    """The latent is not multiplied by its scaling factor."""
    mean, log_variance = self.moments(x)
    return Latent(mean, torch.exp(log_variance))


@wrong("C32", flow, "sd.pipeline:trajectory", solver="heun")
def last_step_missing(step: Any, denoise: Any, x: Any, times: Any, noise: Any) -> Any:
    """The trajectory ends one node early, and noise is left in the image."""
    return right_trajectory(step, denoise, x, times[:-1], noise)


@wrong("C32", flow, DENOISER, solver="dpmpp_2m")
def other_prompt(self: Any, pair: Any, scale: Any, *more: Any) -> Any:
    """The U-Net is given the empty prompt."""
    return denoiser(self, (pair[0], pair[0].expand_as(pair[1])), scale, *more)


strengths = starts.test_every_strength_works_with_every_number_of_steps


@wrong("C33", strengths, "sd.pipeline:marginal")
def start_without_noise(schedule: Any, x0: Any, t: Any) -> Any:
    """The start is alpha_t x_0, with no noise."""
    q = right_marginal(schedule, x0, t)
    return replace(q, variance=0 * q.variance)


@wrong("C33", strengths, "sd.pipeline:marginal")
def start_at_another_time(schedule: Any, x0: Any, t: Any) -> Any:
    """The image is noised to T whatever the strength."""
    return right_marginal(schedule, x0, schedule.T)
