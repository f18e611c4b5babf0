"""Libraries of lucidrains: what is sound is found sound, and each finding is found."""

import importlib
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries as they are imported


def defects(library: str) -> tuple[set[tuple[str, str]], int]:
    """The names and checks that have a defect, and how many rows are sound."""
    package = library.replace("-", "_")
    if find_spec(package) is None:  # importing it would want what the audit leaves out
        pytest.skip(f"{library} is not installed")
    module = importlib.import_module(f"experiments.audit.peers.{package}")
    rows = [row for one in module.subjects(quick=True) for row in one.audit().rows]
    wrong = {(row.sampler, row.check) for row in rows if row.verdict == "defect"}
    return wrong, sum(row.verdict == "sound" for row in rows)


def test_ema_pytorch() -> None:
    wrong, sound = defects("ema-pytorch")
    widths = {("PostHocEMA", f"sigma_rel {wanted:g}") for wanted in (0.05, 0.15, 0.28)}
    assert wrong == {("KarrasEMA", "average"), *widths}
    assert sound == 21


def test_denoising_diffusion_pytorch() -> None:
    wrong, sound = defects("denoising-diffusion-pytorch")
    guided = "guided_diffusion.GaussianDiffusion.ddim_sample"
    assert wrong == {
        ("GaussianDiffusion.ddim_sample, cosine, eta=1", "finite"),
        ("GaussianDiffusion.interpolate", "img2img start"),
        ("GaussianDiffusion.p_losses, offset_noise_strength", "arguments"),
        ("GaussianDiffusion1D.interpolate", "img2img start"),
        ("LearnedGaussianDiffusion.ddim_sample", "runs"),
        ("LearnedGaussianDiffusion.p_losses", "loss"),
        ("Unet.forward_with_cond_scale, cond_scale=1", "guidance"),
        ("WeightedObjectiveGaussianDiffusion.p_sample_loop", "runs"),
        ("classifier_free_guidance.GaussianDiffusion.sample", "cond_scale=1"),
        (guided, "all timesteps"),
        (guided, "classifier"),
        ("guided_diffusion.RMSNorm", "formula"),
        ("karras_unet.Conv2d, concat_ones_to_input", "magnitude"),
        ("linear_beta_schedule, 20 steps", "betas"),
        ("repaint.GaussianDiffusion.p_sample_loop", "levels"),
    }
    assert sound > 400


def test_imagen_pytorch() -> None:
    wrong, sound = defects("imagen-pytorch")
    assert wrong == {
        ("ElucidatedImagen.sample, init_images, skip_steps", "img2img start"),
        ("ElucidatedImagen.sample, inpaint_images, all known", "levels"),
        ("ElucidatedImagen.sample, inpaint_images, none known", "levels"),
        ("GaussianDiffusionContinuousTimes.q_sample_from_to", "transition"),
        ("Imagen.p_losses", "self-conditioning"),
        ("Imagen.sample, init_images, skip_steps", "img2img start"),
        ("Imagen.sample, inpaint_images, none known", "levels"),
    }
    assert sound >= 30


def test_dalle2_pytorch() -> None:
    wrong, sound = defects("dalle2-pytorch")
    clipped = {
        (f"DiffusionPrior.p_sample_loop, {predicts}, {n} of 50 steps", "embedding")
        for predicts in ("pred_noise", "pred_v")
        for n in (10, 50)
    }
    counts = {
        (f"DiffusionPrior.p_sample_loop_ddim, {n} steps", "evaluations") for n in (1, 10, 100)
    }
    bounds = {(f"Decoder.p_losses, variance {name}", "bound") for name in ("beta", "beta~")}
    ddim = {("Decoder", "levels"), ("Decoder", "last noise")}
    ddim |= {("DiffusionPrior", "levels"), ("DiffusionPrior", "weak order")}
    assert wrong == {
        *(clipped | counts | bounds | ddim),
        ("Decoder.p_losses", "self-conditioning"),
        ("Decoder.p_losses, learned_variance", "loss"),
        ("Decoder.sample, inpaint_image, none known", "levels"),
        ("DiffusionPrior.forward", "arguments"),
        ("DiffusionPrior.p_losses", "self-conditioning"),
        ("DiffusionPrior.sample_batch_size", "runs"),
        ("NoiseScheduler.q_sample_from_to", "transition"),
    }
    assert sound > 100


def test_rectified_flow_pytorch() -> None:
    wrong, sound = defects("rectified-flow-pytorch")
    assert wrong == {
        ("MeanFlow.sample", "noise"),
        ("RectifiedFlow.forward, pseudo_huber", "batch"),
        ("RectifiedFlow.forward, pseudo_huber_with_lpips, Huber", "weight"),
        ("RectifiedFlow.forward, pseudo_huber_with_lpips, LPIPS", "weight"),
        ("RectifiedFlow.forward, use_consistency", "arguments"),
        ("RectifiedFlow.forward, use_consistency", "average"),
        ("RectifiedFlow.sample, 1 step", "steps"),
        ("RectifiedFlow.sample, reverse", "inversion"),
        ("RectifiedFlow.sample, use_ema", "average"),
        ("RecursiveFlow.forward, 3 levels", "times"),
        ("Reflow.forward", "runs"),
        ("SoFlow.forward, model_output_clean", "loss"),
        ("SplitMeanFlow.forward", "times"),
        ("SplitMeanFlow.forward, add_recon_loss", "loss"),
        ("SplitMeanFlow.sample", "noise"),
        ("SplitMeanFlow.sample, 1 step", "spread"),
    }
    assert sound >= 30
