"""Our steps beside diffusers' and JAX's, our oracle beside torch's: `python -m benchmarks`.

A number of milliseconds says little about code and much about a machine; a ratio measured in turns,
A B A B, on the same tensors says which of the two is slower. Both sides of a row do the same
arithmetic on the same input, and the run fails unless they agree on the result.

`python -m benchmarks scale` measures and models costs against sizes.
"""

import argparse
import warnings
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.compare import Row, compare
from benchmarks.full_size import full_size_rows
from benchmarks.langevin import langevin_rows
from benchmarks.oracle import oracle_rows
from benchmarks.scale import run as scale
from benchmarks.trace import trace_rows
from diffusion_math.denoiser import from_eps
from diffusion_math.sample import final
from diffusion_math.schedule import Discrete
from diffusion_math.solvers.exponential import dpmpp_2m
from diffusion_math.solvers.one_step import ddim
from sd.config import SHAPES_CONFIG as PRESET
from sd.networks.unet import UNet

STEPS = 25
EVENTS = {"1x4x8x8": (1, 4, 8, 8), "4x4x64x64": (4, 4, 64, 64)}


def solver_rows(rounds: int) -> list[Row]:
    """A whole trajectory of 25 steps around a network that costs nothing."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    table = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    peers = {
        "ddim": DDIMScheduler(**table, clip_sample=False, steps_offset=1, set_alpha_to_one=True),
        "dpmpp_2m": DPMSolverMultistepScheduler(
            **table,
            steps_offset=1,
            timestep_spacing="leading",
            final_sigmas_type="zero",
            lower_order_final=True,
        ),
    }
    schedule = Discrete.scaled_linear(steps=1000)
    rows = []
    for solver, factory in (("ddim", ddim), ("dpmpp_2m", dpmpp_2m)):
        scheduler = peers[solver]
        scheduler.set_timesteps(STEPS)
        nodes = [float(t) + 1 for t in scheduler.timesteps]  # the peer counts its table from 0
        grid = torch.tensor([*nodes, 0.0], dtype=torch.float64)
        step = factory(schedule)
        for label, shape in EVENTS.items():
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(shape, generator=generator)
            eps = torch.randn(shape, generator=generator)
            denoise = from_eps(lambda x_t, time, eps=eps: eps + 0.1 * x_t, schedule)

            def ours(x: Tensor = x, grid: Tensor = grid, step=step, denoise=denoise) -> Tensor:
                end = final(step, denoise, x, grid)
                return end

            def theirs(x: Tensor = x, eps: Tensor = eps, scheduler=scheduler) -> Tensor:
                scheduler.set_timesteps(STEPS)
                for t in scheduler.timesteps:
                    x = scheduler.step(eps + 0.1 * x, t, x).prev_sample
                return x

            # Both round to float32 at every step, and the last divides by alpha_T = 0.07.
            rows.append(compare(f"a step of {solver}, {label}", ours, theirs, rounds, STEPS, 1e-4))
    return rows


def network_rows(rounds: int) -> list[Row]:
    """One pass of the embedded model's U-Net beside diffusers', with the same random weights."""
    from diffusers import UNet2DConditionModel

    model = PRESET
    config = model.unet
    torch.manual_seed(0)
    mine = UNet(config).eval()
    peer = UNet2DConditionModel(
        sample_size=model.latent_shape[-1],
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.channels,
        layers_per_block=config.layers_per_block,
        attention_head_dim=config.heads,
        cross_attention_dim=config.context_width,
        norm_num_groups=config.groups,
        norm_eps=config.eps,
        down_block_types=_blocks("Down", config.attention),
        up_block_types=_blocks("Up", config.attention[::-1]),
    ).eval()
    peer.load_state_dict(mine.state_dict(), strict=True)
    rows = []
    for batch in (2, 16):  # one guided picture, eight guided pictures
        x = torch.randn(batch, *model.latent_shape)
        t = torch.full((batch,), 500.0)
        context = torch.randn(batch, model.text.context_length, config.context_width)

        def ours(x: Tensor = x, t: Tensor = t, context: Tensor = context) -> Tensor:
            return mine(x, t, context)

        def theirs(x: Tensor = x, t: Tensor = t, context: Tensor = context) -> Tensor:
            return peer(x, t, context).sample

        # The same float32 sums, taken in another order.
        rows.append(compare(f"a pass of the U-Net, batch {batch}", ours, theirs, rounds, 1, 1e-4))
    return rows


def _blocks(half: str, attention: tuple[bool, ...]) -> tuple[str, ...]:
    return tuple(f"CrossAttn{half}Block2D" if attend else f"{half}Block2D" for attend in attention)


def main() -> None:
    """Print ours beside peers, or with `scale` write costs against sizes, measured and modelled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("what", nargs="?", choices=("peers", "scale"), default="peers")
    parser.add_argument("--out", type=Path, help="folder for the files of scale (out/scale)")
    parser.add_argument("--rounds", type=int, default=15, help="timings a side, at least 2")
    parser.add_argument("--only-full-size", action="store_true", help="Stable Diffusion alone")
    asked = parser.parse_args()
    rounds: int = asked.rounds
    if rounds < 2:
        parser.error(f"--rounds: at least 2 wanted, got {rounds}")
    if asked.what == "scale":
        if asked.only_full_size:
            parser.error("--only-full-size: has no effect on scale")
        scale.run(rounds, asked.out or Path("out/scale"))
        return
    if asked.out is not None:
        parser.error("--out: wanted with scale alone")
    warnings.simplefilter("ignore", FutureWarning)
    rows: list[Row] = []
    if not asked.only_full_size:
        rows += [*oracle_rows(min(rounds, 5)), *trace_rows(rounds)]
    with torch.inference_mode():
        if not asked.only_full_size:
            rows += [*langevin_rows(rounds), *solver_rows(rounds), *network_rows(rounds)]
        rows += full_size_rows(min(rounds, 3))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {rounds}")
    print(f"{'what':<40}{'ours ms':>10}{'peer ms':>10}{'ratio':>8}  quartiles")
    for row in rows:
        print(
            f"{row.name:<40}{row.ours:>10.3f}{row.theirs:>10.3f}{row.ratio:>8.2f}"
            f"  {row.low:.2f} .. {row.high:.2f}"
        )


if __name__ == "__main__":
    main()
