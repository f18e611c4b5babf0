"""Commands as the docs have them, checked without a run."""

import importlib
from importlib.util import find_spec

from experiments.__main__ import NAMES, configured


def complaint(command: list[str]) -> str:
    """Why a command can't be given, or nothing."""
    module, *rest = command
    if module != "experiments":
        return "" if find_spec(module) is not None and not rest else f"no {module} with {rest}"
    name, *flags = rest
    if name not in NAMES:
        return f"no experiment {name}"
    config = importlib.import_module(f"experiments.{name.replace('-', '_')}").Config
    try:
        configured(config, name, flags)
    except ValueError as error:
        return str(error)
    return ""
