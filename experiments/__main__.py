"""The command line, `diffusion-math NAME [flags]` or `python -m experiments NAME [flags]`.

`NAME --help` lists the flags.
"""

import importlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sd.command_line.entry import guarded, parsed
from sd.command_line.flags import FlagError, by_flag, files
from sd.command_line.terminal import say
from sd.processes import launched

SHARED = "generate"
"""The command that several processes share."""

TRAIN = "train"
"""The command that is `python -m sd.train`."""

GROUPS = {
    "learn": {
        "forward": "the forward process against its closed forms",
        "posterior": "the reverse kernel against its Gaussian approximation",
        "bound": "the terms of the variational bound, and its gap to -log p",
        "likelihood": "log p in closed form, by the flow ODE and by the bound",
        "score-field": "the exact score from data to noise",
        "langevin": "ascent, ULA, MALA, BAOAB and annealed Langevin on one density",
        "reverse": "a learned score against the exact one, and samples by both",
        "densities": "eight densities of the plane: mass, sampler and score agree",
        "digits": "DDPM on 8 x 8 digits, with class labels and a likelihood",
        "families": "VAE, GAN and diffusion on one density, with equal budgets",
        "guidance-truth": "the distribution of guided flows against the tilted density",
        "inpainting": "what inpainting samples against the exact conditional",
    },
    "verify": {
        "verify": "the claims, verified: function, test and measured value of each",
        "audit": "check samplers: ours, other libraries', your own",
        "errata": "E1-E8: the printed forms against the corrected ones",
        "tuned": "weights and time grids optimised for an NFE budget, against baselines",
        "report": "all experiments in one illustrated report",
    },
    "generate": {
        "generate": "images from prompts, as PNGs that carry their settings",
        "play": "a local page: images, samplers in the plane, checks of a sampler",
        "conditions": "a class, a text, a map over the pixels: what a map does",
        "cfg": "X1: guidance on and off; accuracy and diversity against its scale",
        "strength": "X2: image to image at rising strengths",
        "timing": "X3: time and memory of every device and precision found",
        "tradeoff": "error against seconds: solvers, steps and guidance intervals",
        "few-steps": "the distilled model: prompt accuracy against network calls",
        "autoencoder": "reconstruction error of the VAE",
        TRAIN: "train a model on your own images, a LoRA, or the embedded model again",
        "evaluate": "held-out loss, FID, KID and nearest training images of a model",
    },
}
"""The commands by purpose, and what each does."""

NAMES = tuple(name for group in GROUPS.values() for name in group if name != TRAIN)
"""Every experiment, a package of this one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one experiment and return its exit code.

    It is 0, 1 where the audit finds a defect, 2 for a user's error, 130 for Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        for line in _overview():
            say(line)
        return 0
    name, *flags = arguments
    if name == TRAIN:
        from sd.train.__main__ import main as train

        return train(flags, f"{_program()} {TRAIN}")
    return guarded(lambda: _run(name, flags))


def _run(name: str, flags: Sequence[str]) -> int:
    """Parse the flags, check the folder, work, and write what the work has not written itself.

    Returns the exit code: that of the module's `conclude(result)`, where it has one.
    """
    if name not in NAMES:
        raise ValueError(f"no command {name!r}; there are {', '.join([*NAMES, TRAIN])}")
    package = f"experiments.{name.replace('-', '_')}"
    config = configured(importlib.import_module(package).Config, name, flags)
    if config is None:  # after --help
        return 0
    process = launched()
    if process.count > 1 and name != SHARED:
        raise ValueError(f"{name} runs in one process, not {process.count}; {SHARED} in several")
    from experiments.output.page import write
    from sd.files.output_folder import output_folder

    module = importlib.import_module(f"{package}.run")
    files(config)
    with _by_flag(config), output_folder(config.out) as folder:
        result = module.run(config)
        if process.main:
            for path in getattr(module, "write", write)(result, folder):
                say(path)
    return int(getattr(module, "conclude", lambda result: 0)(result))


@contextmanager
def _by_flag(config: Any) -> Iterator[None]:
    """Errors and warnings about a setting name its flag."""
    show = warnings.showwarning
    warnings.showwarning = lambda message, *where, **more: show(
        by_flag(config, str(message)), *where, **more
    )
    try:
        yield
    except ValueError as error:
        said = by_flag(config, str(error))
        if said == str(error):
            raise
        raise FlagError(said) from error
    finally:
        warnings.showwarning = show


def configured(kind: type[Any], name: str, flags: Sequence[str]) -> Any:
    """The Config that the flags give, or None after --help; ValueError for wrong flags."""
    import tyro

    return parsed(kind, f"{_program()} {name}", flags, tyro.conf.OmitArgPrefixes)


def _program() -> str:
    """How the command line begins: by the console script, or by the module."""
    script = Path(sys.argv[0]).stem
    return script if script == "diffusion-math" else "python -m experiments"


def _overview() -> list[str]:
    width = max(map(len, NAMES))
    lines: list[str] = []
    for group, commands in GROUPS.items():
        lines += [f"{group}:", *(f"  {name:<{width}}  {text}" for name, text in commands.items())]
    return [
        f"usage: {_program()} NAME [--out DIR] [flags]",
        "",
        *lines,
        "",
        f"{_program()} NAME --help lists the flags of a command.",
    ]


if __name__ == "__main__":
    sys.exit(main())
