"""One module of an installed package, without the rest that its package's own import would want."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
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


class _Anything(type):
    """A class, of which and of whose instances every attribute is another."""

    def __getattr__(cls, name: str) -> Any:
        return _stand_in(name)


def _stand_in(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    anything = {
        "__init__": lambda self, *given, **named: None,
        "__getattr__": lambda self, name: _stand_in(name),
    }
    return _Anything(name, (), anything)


class _StandIn(ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        return _stand_in(name)


class _StandIns(MetaPathFinder, Loader):
    def __init__(self, packages: tuple[str, ...]) -> None:
        self.packages = packages

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname.split(".")[0] not in self.packages:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Within, an import of these packages gives empty stand-ins: for what is not audited."""
    before = dict(sys.modules)
    finder = _StandIns(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in packages:
                del sys.modules[name]


def parts_of(
    package: str,
    modules: Sequence[str],
    bare: Sequence[str],
    stand_ins: Mapping[str, Mapping[str, Any]],
) -> SimpleNamespace:
    """The public names of several modules, in packages whose own import is left out.

    Args:
        package: its top. modules: full names. bare: packages under it that only have a place.
        stand_ins: modules of the same or of other packages, as what they should hold.

    Raises ModuleNotFoundError where the package is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    top, found = Path(next(iter(spec.submodule_search_locations))), SimpleNamespace()
    modules_in_place = {name: ModuleType(name) for name in (package, *bare, *stand_ins)}
    for name in (package, *bare):
        modules_in_place[name].__path__ = [str(top.joinpath(*name.split(".")[1:]))]
    for name, holds in stand_ins.items():
        vars(modules_in_place[name]).update(holds)
    before = {name: sys.modules.get(name) for name in modules_in_place}
    sys.modules.update(modules_in_place)
    try:
        for name in modules:
            public = vars(import_module(name)).items()
            vars(found).update({key: one for key, one in public if not key.startswith("_")})
    finally:
        for name, old in before.items():
            sys.modules.pop(name)
            sys.modules.update({} if old is None else {name: old})
    return found
