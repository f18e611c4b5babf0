"""Our steps beside diffusers' and JAX's, our oracle beside torch's: `python -m benchmarks`.

It prints one table, says which ratios got worse since the committed one, `docs/benchmarks.json`,
and with `--out docs` replaces that and the page's table.

A number of milliseconds says little about code and much about a machine; a ratio measured in turns,
A B A B, on the same tensors says which of the two is slower. Both sides of a row do the same
arithmetic on the same input, and the run fails unless they agree on the result; a solver whose peer
starts or draws its noise otherwise is compared by its time alone.

`python -m benchmarks scale` measures and models costs against sizes.
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.compare import Row, compare
from benchmarks.full_size import full_size_rows
from benchmarks.langevin import langevin_rows
from benchmarks.oracle import oracle_rows
from benchmarks.scale import run as scale
from benchmarks.solvers import solver_rows
from benchmarks.table import Table
from benchmarks.trace import trace_rows
from sd.config import SHAPES_CONFIG as PRESET
from sd.networks.unet import UNet

DOCS = Path(__file__).resolve().parents[1] / "docs"


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
        name = f"a pass of the embedded U-Net, batch {batch}"
        rows.append(compare(name, "diffusers", ours, theirs, rounds, 1, 1e-4))
    return rows


def _blocks(half: str, attention: tuple[bool, ...]) -> tuple[str, ...]:
    return tuple(f"CrossAttn{half}Block2D" if attend else f"{half}Block2D" for attend in attention)


def main() -> None:
    """Print ours beside peers, or with `scale` write costs against sizes, measured and modelled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("what", nargs="?", choices=("peers", "scale"), default="peers")
    parser.add_argument("--out", type=Path, help="folder for the results (out/benchmarks)")
    parser.add_argument("--rounds", type=int, default=15, help="timings a side, at least 2")
    parser.add_argument("--only-full-size", action="store_true", help="Stable Diffusion alone")
    parser.add_argument("--no-full-size", action="store_true", help="all but Stable Diffusion")
    asked = parser.parse_args()
    rounds: int = asked.rounds
    if rounds < 2:
        parser.error(f"--rounds: at least 2 wanted, got {rounds}")
    if asked.what == "scale":
        for flag in ("only_full_size", "no_full_size"):
            if getattr(asked, flag):
                parser.error(f"--{flag.replace('_', '-')}: has no effect on scale")
        scale.run(rounds, asked.out or Path("out/scale"))
        return
    if asked.only_full_size and asked.no_full_size:
        parser.error("--only-full-size, --no-full-size: nothing is left to time")
    warnings.simplefilter("ignore", FutureWarning)
    rows: list[Row] = []
    if not asked.only_full_size:
        rows += [*oracle_rows(min(rounds, 5)), *trace_rows(rounds)]
    with torch.inference_mode():
        if not asked.only_full_size:
            rows += [*langevin_rows(rounds), *solver_rows(rounds), *network_rows(rounds)]
        if not asked.no_full_size:
            rows += full_size_rows(min(rounds, 3))
    before, table = Table.read(DOCS / "benchmarks.json"), Table.of(rows)
    print("\n".join(table.lines(before, colour=sys.stdout.isatty())))
    write(table, before, asked.out or Path("out/benchmarks"))


def write(table: Table, before: Table | None, out: Path) -> None:
    """The table as JSON, with the last one's rows that were not timed now; and its page, if any."""
    out.mkdir(parents=True, exist_ok=True)
    table = table.beside(before)
    table.write(out / "benchmarks.json")
    page = out / "benchmarks.md"
    if page.exists():
        partial = page.with_suffix(".partial")
        partial.write_text(table.page(page.read_text(encoding="utf-8")), encoding="utf-8")
        partial.replace(page)
    print(out / "benchmarks.json")


if __name__ == "__main__":
    main()
