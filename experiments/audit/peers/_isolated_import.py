"""One module of an installed package, without the rest that its package's own import would want."""

import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


@cache
def _loaded(package: str, module: str, helpers: tuple[tuple[str, Any], ...]) -> ModuleType:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    folder = Path(next(iter(spec.submodule_search_locations)))
    name = f"{package}.{module}"
    parent, utils = ModuleType(package), ModuleType(f"{package}.utils")
    parent.__path__ = [str(folder)]
    vars(utils).update(helpers)
    vars(parent).update(utils=utils)
    found = spec_from_file_location(name, folder / f"{module}.py")
    assert found is not None and found.loader is not None
    loaded = module_from_spec(found)
    stand_ins = {package: parent, f"{package}.utils": utils}
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        found.loader.exec_module(loaded)
    finally:  # what the module imported from elsewhere stays
        for name, old in before.items():
            sys.modules.pop(name)
            sys.modules.update({} if old is None else {name: old})
    return loaded


def alone(package: str, module: str, helpers: Mapping[str, Any] | None = None) -> ModuleType:
    """`package.module`, with `helpers` in the place of `package.utils`.

    Raises ModuleNotFoundError where the package is not installed.
    """
    return _loaded(package, module, tuple((helpers or {}).items()))
