"""Our steps beside diffusers' and JAX's, our oracle beside torch's: `python -m benchmarks`.

It prints one table, says which ratios got worse since the committed one, `docs/benchmarks.json`,
and with `--out docs` replaces that and the page's table.

A number of milliseconds says little about code and much about a machine; a ratio measured in turns,
A B A B, on the same tensors says which of the two is slower. The run fails unless both sides of a
row agree on the result: up to rounding, or as nearly as two formulas of one quantity do, whose
difference the row names.

`python -m benchmarks scale` measures and models costs against sizes, `python -m benchmarks engines`
times the engines and measures what they err by.
"""

import argparse
import sys
from pathlib import Path

from sd.command_line.entry import guarded
from sd.files.output_folder import output_folder

PARTS = ("only_full_size", "no_full_size")


def main() -> int:
    """Print ours beside peers; `scale`: write costs against sizes; `engines`: engines compared."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("what", nargs="?", choices=("peers", "scale", "engines"), default="peers")
    parser.add_argument("--out", type=Path, help="folder for the results (out/benchmarks)")
    parser.add_argument("--rounds", type=int, default=15, help="timings a side, at least 2")
    parser.add_argument("--only-full-size", action="store_true", help="Stable Diffusion alone")
    parser.add_argument("--no-full-size", action="store_true", help="all but Stable Diffusion")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="drop the rows in --out that are not timed now, if their machine or versions differ",
    )
    asked = parser.parse_args()
    rounds: int = asked.rounds
    if rounds < 2:
        parser.error(f"--rounds: at least 2 wanted, got {rounds}")
    if asked.what == "scale":
        for flag in (*PARTS, "replace"):
            if getattr(asked, flag):
                parser.error(f"--{flag.replace('_', '-')}: has no effect on scale")
    if asked.only_full_size and asked.no_full_size:
        parser.error("--only-full-size, --no-full-size: nothing is left to time")
    if asked.replace and not (asked.only_full_size or asked.no_full_size):
        parser.error("--replace: has no effect without --only-full-size or --no-full-size")
    parts = not asked.only_full_size, not asked.no_full_size
    folder = "benchmarks" if asked.what == "peers" else asked.what

    def work() -> None:
        with output_folder(asked.out or Path("out", folder)) as out:
            if asked.what == "scale":
                from benchmarks.scale import run as scale

                scale.run(rounds, out)
            elif asked.what == "engines":
                from benchmarks import engines

                engines.run(rounds, out, *parts, asked.replace)
            else:
                from benchmarks import peers

                peers.run(rounds, out, *parts, asked.replace)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
