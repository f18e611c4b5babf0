"""A user's file of samplers: imported, run for a few steps, with its errors in one line."""

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from diffusion_math.testing import Origin, Sampler
from diffusion_math.testing.problems import MIXTURE, starts
from diffusion_math.testing.sampler import InvalidSamplerError, UnsupportedError, described
from experiments.audit.subject import Subject

MOST = 1000
"""Samplers that one name of a file may give."""

FEW = 10
"""Steps that each sampler is tried on before it is audited."""


@contextlib.contextmanager
def theirs(path: Path) -> Iterator[None]:
    """Run the user's code: it can import its neighbours, as a script can.

    What goes wrong in it is one ValueError that names file and line. An error whose traceback does
    not pass through the file is passed on as it is.
    """
    folder = str(path.absolute().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except (Exception, SystemExit) as error:
        file = str(path.absolute())
        frames = traceback.extract_tb(error.__traceback__)
        lines = [one.lineno for one in frames if one.filename == file]
        if isinstance(error, SyntaxError) and error.filename == file:
            lines.append(error.lineno)
        if not lines:
            raise
        kind = type(error).__name__
        said = f"{kind}: {getattr(error, 'msg', error)}".rstrip(": ")
        raise ValueError(f"--target: {path}, line {lines[-1]}: {said}") from error
    finally:
        with contextlib.suppress(ValueError):  # the code may have taken it away
            sys.path.remove(folder)


def subjects(path: Path, name: str, quick: bool) -> list[Subject]:
    """The samplers that a file has under a name, each tried on a few steps.

    Raises ValueError, in one line, where the file can't be run, the name is not there or is no
    sampler, or a sampler does not keep its promises: grids and states are tensors of their shapes.
    """
    with theirs(path):
        found = _found(_module(path), path, name)
        for one in found:
            _tried(one, path)
    made = (
        Subject(one, Origin(path.name, "", one.name), again(path, name, quick, k))
        for k, one in enumerate(found)
    )
    return [one.brief() if quick else one for one in made]


def again(path: Path, name: str, quick: bool, k: int) -> str:
    """Python that makes the k-th of these subjects anew."""
    return (
        "import sys\n"
        "from pathlib import Path\n\n"
        "from experiments.audit.user_file import subjects\n\n"
        f"sys.path.insert(0, {str(path.absolute().parent)!r})\n"
        f"subject = subjects(Path({str(path.absolute())!r}), {name!r}, {quick})[{k}]"
    )


def _module(path: Path) -> Any:
    spec = spec_from_file_location("audited", path.absolute())
    if spec is None or spec.loader is None:
        raise ValueError(f"--target: wanted a Python file, got {path}")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # as dataclasses look it up
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        if error.filename is None:  # no source at all: it holds zeros
            raise ValueError(f"--target: can't read {path}: {error}") from error
        raise
    except PermissionError as error:
        raise ValueError(f"--target: can't read {path}: {error.strerror}") from error
    return module


def _found(module: Any, path: Path, name: str) -> list[Sampler]:
    if not hasattr(module, name):
        raise ValueError(f"--target: {path} has no {name}")
    found = getattr(module, name)
    if isinstance(found, Callable):  # type: ignore[arg-type]
        try:
            signature(found).bind()
        except TypeError as error:
            kinds = "a diffusion_math.testing.Sampler, or a function without arguments,"
            wanted = f"{kinds} in {name} of {path}"
            raise ValueError(f"--target: wanted {wanted}: {error}") from error
        found = found()
    several = isinstance(found, Iterable)
    many = [found] if isinstance(found, Sampler) or not several else list(islice(found, MOST + 1))
    if not 1 <= len(many) <= MOST or not all(isinstance(one, Sampler) for one in many):
        wrong = next((one for one in many if not isinstance(one, Sampler)), None)
        got = f"{len(many)} of them" if wrong is None else described(wrong)
        wanted = f"a diffusion_math.testing.Sampler or 1 to {MOST} in {name} of {path}"
        raise ValueError(f"--target: wanted {wanted}, got {got}")
    return many


def _tried(sampler: Sampler, path: Path) -> None:
    """Sample with a few steps; ValueError where the states are not those of a sampler."""
    try:
        steps = min(FEW, int(sampler.schedule.T)) if sampler.schedule.T > 1 else FEW
        grid = sampler.times(steps)
        x = sampler.schedule(grid[0])[1] * starts()
        noise = lambda x, t, s: torch.zeros_like(x)  # noqa: E731
        sampler.states(MIXTURE.denoiser(sampler.schedule), x, grid, noise)
    except UnsupportedError:
        pass  # refused openly: the audit says so
    except InvalidSamplerError as error:
        raise ValueError(f"--target: {path}: {error}") from error
