"""diffusers' own pipelines with our scheduler: the latents of our own loop.

The networks are tiny and their weights random. Every solver runs in the text-to-image pipeline; the
other pipelines run with solvers of each kind: one and several evaluations, one and many steps.
"""

import pytest
import torch

from diffusion_math.denoiser import from_eps, from_v
from diffusion_math.gaussian import marginal
from diffusion_math.noise import from_generator
from diffusion_math.sample import final
from diffusion_math.solvers.registry import SOLVERS
from tests.support.edited_loop import edited
from tests.support.scheduler_configs import SD15, SD21

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")  # which the pipelines import

from diffusion_math.interop import DiffusersScheduler  # noqa: E402

FIXED = [name for name in SOLVERS if name != "adaptive"]
KINDS = ["ddim", "ddpm", "heun", "dpmpp_3m", "pndm", "unipc", "dpmpp_sde", "dpm_solver_3s"]
STEPS, SCALE = 6, 3.0
CONFIGS = {"eps": SD15, "v": SD21}
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
BLOCKS = {
    "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4,
    "attention_head_dim": 2, "cross_attention_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
}  # fmt: skip


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def networks():
    """A U-Net, a ControlNet whose last layers are not zero, a VAE, and two prompts' states."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            sample_size=8, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **BLOCKS
        )
        control = diffusers.ControlNetModel(conditioning_embedding_out_channels=(4, 8), **BLOCKS)
        for value in control.parameters():
            torch.nn.init.normal_(value, std=0.1)
        vae = diffusers.AutoencoderKL(
            block_out_channels=(4, 8), norm_num_groups=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
        states = torch.randn(2, 5, 8)
    for one in (unet, control, vae):
        one.eval().requires_grad_(False)
    return unet, control, vae, states


def piped(kind, networks, solver, config, grid="karras", **more):
    """A pipeline with our scheduler in place of the one of the config."""
    unet, _, vae, _ = networks
    pipe = getattr(diffusers, kind)(
        vae=vae, text_encoder=None, tokenizer=None, unet=unet, safety_checker=None,
        scheduler=getattr(diffusers, config["_class_name"]).from_config(config),
        feature_extractor=None, requires_safety_checker=False, **more,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DiffusersScheduler.from_config(pipe.scheduler.config, solver=solver, grid=grid)
    return pipe


def latents(pipe, networks, **options):
    states = networks[-1]
    return pipe(
        prompt_embeds=states[1:], negative_prompt_embeds=states[:1], guidance_scale=SCALE,
        num_inference_steps=STEPS, output_type="latent", **options,
    ).images  # fmt: skip


def guided(networks, scheduler, condition=None):
    """Our denoiser of the same networks, guided."""
    unet, control, _, states = networks

    def network(x, time):
        x, time = torch.cat([x, x]), torch.cat([time, time])
        more = {}
        if condition is not None:
            down, middle = control(x, time, states, condition, return_dict=False)
            more = {
                "down_block_additional_residuals": down,
                "mid_block_additional_residual": middle,
            }
        without, given = unet(x, time, states, **more).sample.chunk(2)
        return without + SCALE * (given - without)

    of = {"epsilon": from_eps, "v_prediction": from_v}[scheduler.config.prediction_type]
    return of(network, scheduler.schedule)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "kind"), [*((name, "eps") for name in FIXED), *((name, "v") for name in KINDS)]
)
def test_text_to_image(networks, solver, kind):
    pipe = piped("StableDiffusionPipeline", networks, solver, CONFIGS[kind])
    got = latents(pipe, networks, generator=seeded())
    generator = seeded()
    x = torch.randn(1, 4, 8, 8, generator=generator)
    step = SOLVERS[solver](pipe.scheduler.schedule)
    denoise = guided(networks, pipe.scheduler)
    wanted = final(step, denoise, x, pipe.scheduler.nodes, from_generator(generator))
    torch.testing.assert_close(got, wanted, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("solver", KINDS)
def test_image_to_image(networks, solver, kind):
    pipe = piped("StableDiffusionImg2ImgPipeline", networks, solver, CONFIGS[kind])
    image = torch.rand(1, 3, 16, 16, generator=seeded(4))
    got = latents(pipe, networks, image=image, strength=0.7, generator=seeded())
    generator, scheduler = seeded(), pipe.scheduler
    x0 = encoded(pipe, image, generator)
    nodes = scheduler.nodes[STEPS - int(0.7 * STEPS) :]
    noise = torch.randn(x0.shape, generator=generator)
    x = marginal(scheduler.schedule, x0, nodes[0]).sample(noise)
    step, denoise = SOLVERS[solver](scheduler.schedule), guided(networks, scheduler)
    wanted = final(step, denoise, x, nodes, from_generator(generator))
    torch.testing.assert_close(got, wanted, **CLOSE)


def encoded(pipe, image, generator):
    """As the pipelines encode."""
    found = pipe.vae.encode(2 * image - 1).latent_dist.sample(generator)
    return pipe.vae.config.scaling_factor * found


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_3m", "plms", "unipc", "dpm_solver_3s"])
def test_inpainting_without_mask_channels(networks, solver, kind):
    """The pipeline puts the noised image outside of the mask after each evaluation."""
    pipe = piped("StableDiffusionInpaintPipeline", networks, solver, CONFIGS[kind])
    image, mask = torch.rand(1, 3, 16, 16, generator=seeded(4)), torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    got = latents(
        pipe, networks, image=image, mask_image=mask, strength=0.7, generator=seeded(),
        height=16, width=16,
    )  # fmt: skip
    generator, scheduler = seeded(), pipe.scheduler
    schedule, bare = scheduler.schedule, guided(networks, scheduler)
    x0 = encoded(pipe, image, generator)
    noise = torch.randn(x0.shape, generator=generator)

    def edit(x, t):
        known = x0 if t == 0 else marginal(schedule, x0, t).sample(noise)
        return torch.where(mask[..., ::2, ::2] > 0, x, known)

    nodes = scheduler.nodes[STEPS - int(0.7 * STEPS) :]
    x = marginal(schedule, x0, nodes[0]).sample(noise)
    wanted = edited(SOLVERS[solver](schedule), bare, x, nodes, edit)
    torch.testing.assert_close(got, wanted, **CLOSE)
    assert torch.equal(got[..., :4], x0[..., :4])


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("solver", ["ddpm", "heun", "dpmpp_3m"])
def test_controlnet(networks, solver, kind):
    control = {"controlnet": networks[1]}
    pipe = piped("StableDiffusionControlNetPipeline", networks, solver, CONFIGS[kind], **control)
    condition = torch.rand(1, 3, 16, 16, generator=seeded(4))
    got = latents(pipe, networks, image=condition, generator=seeded())
    generator = seeded()
    x = torch.randn(1, 4, 8, 8, generator=generator)
    denoise = guided(networks, pipe.scheduler, torch.cat([condition, condition]))
    step = SOLVERS[solver](pipe.scheduler.schedule)
    wanted = final(step, denoise, x, pipe.scheduler.nodes, from_generator(generator))
    torch.testing.assert_close(got, wanted, **CLOSE)
    plain = final(step, guided(networks, pipe.scheduler), x, pipe.scheduler.nodes,
                  from_generator(generator))  # fmt: skip
    assert (plain - wanted).abs().max() > 1e-2


def test_a_callback_changes_the_latents(networks):
    pipe = piped("StableDiffusionPipeline", networks, "dpmpp_3m", SD15, "trailing")
    seen = []

    def callback(pipe, i, t, given):
        seen.append((i, float(t), pipe.scheduler.step_index))
        return {"latents": given["latents"] * 0.9}

    got = latents(pipe, networks, generator=seeded(), callback_on_step_end=callback)
    assert [t for _, t, _ in seen] == pipe.scheduler.timesteps.tolist()
    assert [entry for *_, entry in seen] == list(range(1, STEPS + 2))
    x = torch.randn(1, 4, 8, 8, generator=seeded())
    step, denoise = SOLVERS["dpmpp_3m"](pipe.scheduler.schedule), guided(networks, pipe.scheduler)
    wanted = edited(step, denoise, x, pipe.scheduler.nodes, lambda x, t: 0.9 * x)
    torch.testing.assert_close(got, wanted, **CLOSE)


def test_two_images_with_a_generator_each(networks):
    pipe = piped("StableDiffusionPipeline", networks, "dpmpp_2m_sde", SD15)
    pair = latents(pipe, networks, generator=[seeded(1), seeded(2)], num_images_per_prompt=2)
    alone = latents(pipe, networks, generator=seeded(2))
    torch.testing.assert_close(pair[1:], alone, rtol=1e-4, atol=1e-4)


def test_a_saved_pipeline_has_its_scheduler(networks, tmp_path):
    pipe = piped("StableDiffusionPipeline", networks, "dpmpp_3m", SD21)
    pipe.save_pretrained(tmp_path)
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(
        tmp_path, safety_checker=None, text_encoder=None, tokenizer=None, feature_extractor=None
    )
    loaded.set_progress_bar_config(disable=True)
    assert isinstance(loaded.scheduler, DiffusersScheduler)
    ends = [latents(one, networks, generator=seeded()) for one in (pipe, loaded)]
    assert torch.equal(*ends)
