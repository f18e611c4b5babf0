"""Runs the experiment: iterates the forward step and compares with the closed form."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import kstest, norm
from torch import Tensor

from diffusion_math.densities.toy import DENSITIES
from diffusion_math.schedule import Discrete
from experiments import plots
from experiments.common.chains import forward_steps
from experiments.common.quadrature import in_square
from experiments.common.statistics import kolmogorov_bound, seeded
from experiments.forward import Config
from experiments.output.result import Figure, Measurement, Result, estimated
from experiments.plots import ORANGE, plane
from experiments.plots.animation import frame, gif
from experiments.plots.charts import Axis, Chart, Series, side_by_side
from experiments.plots.charts import line as chart_line
from experiments.plots.gallery import image_rows
from experiments.plots.plane import Cloud
from sd.files import image_tensor as images
from sd.shapes.data import example

FALSE_ALARM = 1e-6
EXAMPLE = 162  # of data set 0, where none is given
FOLLOWED = 1500  # points in the animation


def run(config: Config) -> Result:
    schedule: Discrete = getattr(Discrete, config.schedule)()
    times = sorted(set(config.times))
    if config.image is None:
        source = Image.fromarray(example(0, EXAMPLE).image)
    else:
        source = images.fit(images.read_image(config.image), 64, 64)
    x0 = images.to_tensor([source]).double()
    density = DENSITIES[config.density]()
    generator = seeded(config.seed)
    points = density.sample(generator, config.samples)

    noisy = forward_steps(x0, schedule, times, generator)
    frame_times = _frame_times(times[-1], config.frames)
    every = sorted({*times, *frame_times})
    path = forward_steps(points, schedule, every, generator)

    titles = [f"t = {t}" for t in times]
    shown = [images.from_tensor(x.clamp(-1, 1))[0] for x in noisy.values()]
    later = [t for t in times if t > 0]
    marginals = [_pixel_chart(schedule, x0, noisy[t], t, t == later[0]) for t in later]
    reach = max(3.4, float(torch.quantile(points.abs().amax(1), 0.995)))
    square = partial(in_square, density, schedule, reach=reach, count=161)
    clouds = [Cloud(f"t = {t}", path[t].numpy(), square(t)) for t in times]

    checks = [_residuals(schedule, x0, noisy[t], t) for t in later]
    parts = (
        "A clean image is noised in small steps. After t steps the image is alpha_t x_0 + sigma_t "
        "eps, so that x_t can be sampled in one step. The measured values agree with this closed "
        "form at every t.",
        Figure(
            "forward-picture.png",
            plots.png(image_rows([shown], ["$x_t$"], titles)),
            f"One image at rising times t under the {config.schedule.replace('_', ' ')} beta "
            "schedule, pixels in [-1, 1]. At t = T it contains alpha_T of the clean image (table).",
            "A row of images that fade from clean shapes to pure noise.",
        ),
        Figure(
            "forward-pixels.png",
            plots.png(side_by_side(marginals, 2.6, 3.2, legend_columns=2)),
            "Histograms of the values of all pixels and channels after t steps (bars), and the "
            "closed-form density (line): from one peak for each color to one normal.",
            "Histograms of pixel values, with the exact density over each.",
        ),
        Figure(
            "forward-plane.png",
            plots.png(plane.clouds([clouds], reach)),
            f"{config.samples} points of the density {config.density} after t steps. The lines "
            "enclose 50 and 95% of the exact q(x_t).",
            "Scatter plots of points that drift from a structured density into one round cloud.",
        ),
        _animation(config, schedule, {t: path[t] for t in frame_times}, square, reach),
    )
    data: dict[str, Any] = {"settings": config, "checks": checks}
    rows = _rows(config, float(schedule(schedule.T)[0]), x0.numel(), checks)
    return Result("forward", "The forward process", rows, parts, data)


def _frame_times(last: int, count: int) -> list[int]:
    """`count` times or fewer from 0 to `last`, the closer the earlier: that is where much moves."""
    return sorted({round(last * (k / (count - 1)) ** 2) for k in range(count)})


def _animation(
    config: Config,
    schedule: Discrete,
    path: dict[int, Tensor],
    square: Callable[[int], tuple[Any, Any]],
    reach: float,
) -> Figure:
    frames = []
    for t, x in path.items():
        alpha_t, sigma_t = schedule(t)
        title = f"t = {t},  alpha = {alpha_t:.2f},  sigma = {sigma_t:.2f}"
        cloud = Cloud(title, x[:FOLLOWED].numpy(), square(t), size=9.0)
        frames.append(frame(plane.moment([cloud], reach, side=4.8)))
    return Figure(
        "forward.gif",
        gif(frames, seconds=6.0),
        f"{min(FOLLOWED, config.samples)} points of the density {config.density} from data to "
        "noise in single steps. The lines enclose 50 and 95% of the exact q(x_t).",
        "Points that leave a structured density and spread into one round cloud.",
    )


def _pixel_chart(schedule: Discrete, x0: Tensor, x_t: Tensor, t: int, first: bool) -> Chart:
    """The values of all pixels of x_t, and their density: N(alpha_t x0, sigma_t^2), averaged."""
    alpha_t, sigma_t = (float(one) for one in schedule(t))
    values, counts = torch.unique(x0, return_counts=True)
    reach = alpha_t + 3.2 * sigma_t
    x = np.linspace(-reach, reach, 401)
    bells = norm.pdf(x[:, None], alpha_t * values.numpy(), sigma_t)
    density = bells @ (counts / counts.sum()).double().numpy()
    heights, edges = np.histogram(x_t.numpy(), np.linspace(-reach, reach, 61), density=True)
    bars = Series("iterated samples", edges, heights, color="#b9d7ea", style="bars")
    curve = chart_line("closed form", x, density, ORANGE)
    y = Axis("density" if first else "", 0, ticks=[])
    return Chart(f"t = {t}", Axis("pixel value", -reach, reach), y, [bars, curve])


def _residuals(schedule: Discrete, x0: Tensor, x_t: Tensor, t: int) -> dict[str, float]:
    """Is (x_t - alpha_t x_0) / sigma_t standard normal?"""
    alpha_t, sigma_t = (float(one) for one in schedule(t))
    z = ((x_t - alpha_t * x0) / sigma_t).flatten().numpy()
    found = float(kstest(z, "norm").statistic)
    return {"t": t, "alpha": alpha_t, "sigma": sigma_t, "ks_distance": found}


def _rows(
    config: Config, left: float, count: int, checks: list[dict[str, float]]
) -> tuple[Measurement, ...]:
    limit = kolmogorov_bound(count, FALSE_ALARM / len(checks))
    return (
        estimated(
            "forward",
            "C05: t single steps have the closed-form distribution q(x_t | x_0). Largest "
            f"Kolmogorov distance of {count} residuals from N(0, 1) over {len(checks)} "
            f"times, at most {limit:.3f} (false alarm {FALSE_ALARM:g})",
            max(check["ks_distance"] for check in checks),
            most=limit,
        ),
        estimated(
            "forward-trace",
            f"Signal left at t = T under the {config.schedule} beta schedule, alpha_T (C07 and its "
            "erratum: not zero for a discrete schedule)",
            left,
        ),
    )
