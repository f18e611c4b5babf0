"""The command line: `python -m experiments NAME [flags]`; `NAME --help` lists the flags."""

import contextlib
import importlib
import io
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

NAMES: dict[str, str] = {
    "generate": "prompts to PNGs that know how they were made",
    "cfg": "X1: guidance on and off; accuracy and diversity against its scale",
    "strength": "X2: one picture redrawn at rising strengths",
    "timing": "X3: time and memory of every device and precision found",
    "tradeoff": "error over seconds: solvers, steps and guidance intervals",
    "forward": "the forward process beside its closed forms",
    "posterior": "one step back: Bayes' kernel beside the Gaussian in its place",
    "bound": "the variational bound term by term, and what it loses",
    "likelihood": "log p in closed form, by an ODE and by the bound",
    "score-field": "the exact score from data to noise",
    "langevin": "ascent, Langevin, Metropolis and annealing on one density",
    "reverse": "a learned score beside the exact one, and both walked back",
    "densities": "eight densities of the plane: mass, sampler and score agree",
    "errata": "E1-E8: the printed forms beside the true ones",
    "digits": "diffusion on real pixels, with classes and a likelihood",
    "families": "VAE, GAN and diffusion on one density, by one budget",
    "autoencoder": "how well the VAE gives pictures back",
    "guidance-truth": "what guided flows sample, beside the tilted density",
    "tuned": "weights and time grids fitted to a budget of calls, beside all others",
    "audit": "what samplers really do: ours, other libraries', your own",
    "verify": "the claims, proved: function, test and number of each",
    "report": "all of these in one illustrated report",
}
"""Every experiment (a module of this package) and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one experiment; the exit code is 0, 2 for what the user can mend, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    name, *flags = arguments
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _warn
            if name not in NAMES:
                raise ValueError(f"no experiment {name!r}; there are {', '.join(NAMES)}")
            module = importlib.import_module(f"experiments.{name.replace('-', '_')}")
            config = _parsed(module.Config, name, flags)
            if config is not None:
                _run(module, config)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"interrupted; {str(stop) or 'nothing was written'}", file=sys.stderr)
        return 130
    return 0


def _run(module: Any, config: Any) -> None:
    """Check the folder, work, and write what the work has not written itself."""
    from experiments.page import write
    from experiments.results import output_folder

    with output_folder(config.out) as folder:
        result = module.run(config)
        for path in getattr(module, "write", write)(result, folder):
            print(path)


def _parsed(kind: type[Any], name: str, flags: Sequence[str]) -> Any:
    """The Config that the flags give, or None after --help; ValueError for wrong flags."""
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                args=list(flags),
                prog=f"python -m experiments {name}",
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            return None
        raise ValueError(_first_complaint(said.getvalue(), name)) from None


def _first_complaint(box: str, name: str) -> str:
    """What a boxed message of the parser says, without the box and what follows its first rule."""
    lines = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines():
        inner = line.strip().strip("│").strip()
        if inner.startswith("╭"):
            continue
        if not inner or inner[0] in "─╰":
            break
        lines.append(inner)
    message = " ".join(lines) or "the flags are not understood"
    return f"{message} (see python -m experiments {name} --help)"


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _overview() -> str:
    width = max(map(len, NAMES))
    lines = [f"  {name:<{width}}  {what}" for name, what in NAMES.items()]
    return "\n".join(
        [
            "usage: python -m experiments NAME [--out DIR] [flags]",
            "",
            *lines,
            "",
            "python -m experiments NAME --help explains the flags of one.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
