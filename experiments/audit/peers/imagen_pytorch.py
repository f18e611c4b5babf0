"""imagen-pytorch: its continuous-time diffusion, and the elucidated one."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise, repeat
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from diffusion_math.schedule import VE
from diffusion_math.testing import (
    Sampler,
    UnsupportedError,
    assert_forward,
    assert_img2img_start,
    assert_loss,
    assert_posterior,
    assert_prediction_maps,
    assert_transition,
)
from experiments.audit.formula import Formula, formulas_of
from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._lucidrains import drawing
from experiments.audit.peers._lucidrains_schedules import schedules
from experiments.audit.peers.imagen_edm import IMAGE, Found, edm, elucidated, imagen, module
from experiments.audit.subject import Subject, subjects_of

UNTRIED = {
    "ImagenTrainer, ImagenConfig": "they read and write files",
    "Unet, Unet3D, BaseUnet64, SRUnet256, SRUnet1024": "networks",
    "Imagen(loss_type='l1' or 'huber')": "no squared error",
    "Imagen on video": "the lines of images over again, with one axis more",
}
"""What the library exports and is not audited, and why."""

LIBRARY = "imagen-pytorch"
PREDICTS = {"noise": "eps", "x_start": "x0", "v": "v"}
KINDS = {"noise": "pred_noise", "x_start": "pred_x0", "v": "pred_v"}
TIMES = [k / 20 for k in range(1, 20)]
LIMITS = {
    "Unet.forward_with_cond_scale": (
        "the update's part along the prediction is left out, as in APG, by the code's comment"
    ),
    "ElucidatedImagen.sample": "the paper's eq. 5 is 0 / 0 for one step",
    "Imagen.p_sample, to time 0": driven.ENDS,
}


def scheduler(table: str) -> Any:
    """The diffusion in continuous time."""
    return module("imagen_pytorch").GaussianDiffusionContinuousTimes(noise_schedule=table)


def levels_of(log_snr: Any) -> driven.Levels:
    """From its log-SNR."""

    def levels(t: Any) -> tuple[Tensor, Tensor]:
        found = log_snr(torch.tensor(float(t), dtype=torch.float64))
        return found.sigmoid().sqrt(), (-found).sigmoid().sqrt()

    return levels


def continuous(table: str) -> Found:
    """GaussianDiffusionContinuousTimes: forward, transitions, posterior, conversions."""
    thing, name = scheduler(table), "GaussianDiffusionContinuousTimes"
    levels = levels_of(thing.log_snr)
    steps = list(pairwise(TIMES[::-1]))

    def posterior(which: int, x0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Any:
        found = thing.q_posterior(x0, x_t, t, t_next=s)
        return found[0], found[which]

    def next_time() -> None:
        x = torch.ones(1, 4).double()
        at, its = (torch.tensor([each], dtype=torch.float64) for each in (0.5, 0.499))
        off = thing.q_posterior(x, x, at)[0] - thing.q_posterior(x, x, at, t_next=its)[0]
        left = float(off.abs().max())
        assert left < 1e-9, f"the next time by default is 1/1000 before: off by {left:.3g}"

    def transition(x: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return torch.as_tensor(thing.q_sample_from_to(x, s, t, noise))

    maps = {
        "x0_from_eps": lambda x, eps, t: thing.predict_start_from_noise(x, t, eps),
        "x0_from_v": lambda x, v, t: thing.predict_start_from_v(x, t, v),
    }

    def posteriors() -> None:
        check_steps = partial(assert_posterior, levels=levels, times=TIMES, pairs=steps)
        check_steps(partial(posterior, 1))
        check_steps(partial(posterior, 2), spread="log-variance")

    return {
        (f"{name}.q_sample", "forward"): lambda: assert_forward(
            lambda *given: thing.q_sample(*given)[0], levels, TIMES
        ),
        (f"{name}.q_sample_from_to", "transition"): lambda: assert_transition(
            transition, levels, TIMES
        ),
        (f"{name}.q_posterior", "posterior"): posteriors,
        (f"{name}.q_posterior", "next time by default"): next_time,
        (f"{name}.predict_start_from_...", "prediction maps"): lambda: assert_prediction_maps(
            maps, levels, TIMES
        ),
    }


def losses(predicts: str, gamma: float | None) -> Found:
    """Imagen's loss, a step of its sampling and the last, and self-conditioning."""
    where, table = module("imagen_pytorch"), scheduler("cosine")
    levels = levels_of(table.log_snr)
    options = {"noise_scheduler": table, "pred_objective": predicts}

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor, **more: Any) -> Tensor:
        of_image = lambda x, told, own: network(x.flatten(1), told).reshape(x.shape)  # noqa: E731
        thing, x0, noise = imagen(of_image), x0.reshape(-1, *IMAGE), noise.reshape(-1, *IMAGE)
        unet = thing.unets[0]
        return torch.as_tensor(
            thing.p_losses(unet, x0, t, noise=noise, min_snr_gamma=gamma, **options)
        )

    def step(network: Any, x: Tensor, t: float, s: float) -> Tensor:
        at, then = (torch.full((len(x),), each, dtype=torch.float64) for each in (t, s))
        thing = imagen(lambda x, told, own: network(x))
        return torch.as_tensor(thing.p_sample(thing.unets[0], x, at, t_next=then, **options)[0])

    at = driven.one_step(step, levels, KINDS[predicts])

    def last() -> None:
        x = torch.ones(1, 4).double()
        left = float(at(torch.zeros_like(x), x * levels(0.001)[1], 0.001, 0.0)[0][0, 0])
        assert left < 1e-3, f"noise left on clean data by the last of 1000 steps: {left:.3g}"

    def itself() -> None:
        x, t = torch.zeros(1, *IMAGE), torch.tensor([0.5])
        noise = torch.ones_like(x)

        def of(network: Any, own: bool = True) -> Tensor:
            thing = imagen(network, self_cond=own)
            with mock.patch.object(where, "random", return_value=0.0):
                return torch.as_tensor(
                    thing.p_losses(
                        thing.unets[0], x, t, noise=noise, min_snr_gamma=gamma, **options
                    )
                )

        quarter: Any = lambda x, *_: torch.full_like(x, 0.25)  # noqa: E731
        x_t = table.q_sample(x, t, noise)[0]
        x0 = {
            "noise": table.predict_start_from_noise(x_t, t, quarter(x)),
            "x_start": quarter(x),
            "v": table.predict_start_from_v(x_t, t, quarter(x)),
        }[predicts]
        driven.own_prediction(of, x0, float(of(quarter, False)))

    return {
        ("Imagen.p_losses", "loss"): lambda: assert_loss(
            loss,
            levels,
            TIMES,
            predicts=PREDICTS[predicts],
            weight="min-SNR" if gamma else "simple",
            told=lambda t: table.get_condition(torch.tensor([t], dtype=torch.float64)),
        ),
        ("Imagen.p_losses", "self-conditioning"): itself,
        ("Imagen.p_sample", "posterior"): lambda: assert_posterior(
            at, levels, TIMES, spread="deviation", batched=False, pairs=pairwise(TIMES[::-1])
        ),
        ("Imagen.p_sample, to time 0", "last step"): last,
    }


def images(elucidated: bool) -> Found:
    """Image-to-image and inpainting."""
    name = "ElucidatedImagen" if elucidated else "Imagen"
    more = {"num_sample_steps": 10, "S_churn": 0} if elucidated else {"timesteps": 10}
    table = scheduler("cosine").log_snr
    spread = imagen(lambda x, *_: x, elucidated, **more)
    if elucidated:
        hp = spread.hparams[0]
        own = spread.sample_schedule(10, hp.rho, hp.sigma_min, hp.sigma_max)[:-1]
        times = [float(each) for each in own.flip(0)]
    else:
        times = [k / 10 for k in range(1, 11)]
    levels: Any = (lambda t: (1.0, t)) if elucidated else levels_of(table)

    def time(told: Tensor) -> float:
        """Of what the network is told: log(sigma) / 4, or the log-SNR."""
        at = float(told.reshape(-1)[0])
        nodes = torch.tensor(times)
        near = (nodes.log() / 4 if elucidated else table(nodes)) - at
        return times[int(near.abs().argmin())]

    def start(x0: Tensor, skip: int, noise: Tensor) -> tuple[Tensor, float]:
        seen: list[tuple[Tensor, float]] = []

        def network(x: Tensor, told: Tensor, own: Any) -> Tensor:
            t = time(told)
            scale = float(spread.c_in(0.5, torch.tensor(t).double())) if elucidated else 1.0
            seen.append((x.flatten(1) / scale, t))
            return torch.zeros_like(x)

        thing = imagen(network, elucidated, **more)
        with drawing(repeat(noise)):
            thing.sample(init_images=x0.reshape(1, *IMAGE), skip_steps=skip, use_tqdm=False)
        return seen[0]

    def inpainted(known: bool, **options: Any) -> None:
        side = 16

        def run(network: Any) -> None:
            def inner(x: Tensor, told: Tensor, own: Any) -> Tensor:
                t = time(told)
                if not elucidated:
                    sigma = levels(t)[1]
                    network(x, t)
                    return x / float(sigma)
                scale = float(spread.c_in(0.5, torch.tensor(t).double()))
                skip, out = (
                    each(0.5, torch.tensor(t).double()) for each in (spread.c_skip, spread.c_out)
                )
                network(x / scale, t)
                return torch.as_tensor(-skip * (x / scale) / out)

            thing = imagen(inner, elucidated, image_sizes=side, **more)
            mask = torch.full((1, side, side), known)
            given = {"inpaint_images": torch.zeros(1, 1, side, side), "inpaint_masks": mask}
            thing.sample(**given, use_tqdm=False, **options)

        spread_at: Any = lambda t: float(levels(t)[1])  # noqa: E731
        driven.noise_levels(run, spread_at, side, least=1.001 * spread_at(times[0]))

    once = {"inpaint_resample_times": 1}
    return {
        (f"{name}.sample, init_images, skip_steps", "img2img start"): lambda: assert_img2img_start(
            start, levels, times, [0, 3, 7], dtype=torch.float32
        ),
        (f"{name}.sample, inpaint_images, all known", "levels"): partial(inpainted, True, **once),
        (f"{name}.sample, inpaint_images, none known", "levels"): partial(
            inpainted, False, inpaint_resample_times=2
        ),
        (f"{name}.sample, inpaint_resample_times=1", "levels"): partial(inpainted, False, **once),
    }


def sampler(kind: str, order: int, noisy: bool = False, **options: Any) -> Sampler:
    """ElucidatedImagen.sample without churn."""

    def run(n: int, network: Any, channels: int, batch: int) -> Tensor:
        if n == 1:
            raise UnsupportedError("one step is 0 / 0")
        size = {"image_sizes": 1, "channels": channels, "num_sample_steps": n, "S_churn": 0.0}
        return torch.as_tensor(edm(network, **size).sample(batch_size=batch, use_tqdm=False))

    return driven.sampler(kind, VE(81.0), run, float, order, noisy, at_first=80.0)


def subjects(quick: bool) -> Iterator[Formula | Subject]:
    """Formulas by setting, then samplers."""
    given = partial(formulas_of, LIBRARY, limits=LIMITS)
    for table in ("linear", "cosine"):
        yield from given(f"noise_schedule={table}", continuous(table))
    for predicts in PREDICTS:
        for gamma in (None, 5.0):
            yield from given(f"{predicts}, min_snr_gamma={gamma}", losses(predicts, gamma))
    log_snrs = schedules(module("imagen_pytorch"), ("beta_linear_log_snr", "alpha_cosine_log_snr"))
    yield from given("defaults", images(False) | images(True) | elucidated() | log_snrs)
    yield from subjects_of(LIBRARY, sampler, [("ElucidatedImagen.sample", 2, False, {})])
