"""The house rules, read off the source: who imports whom, how long files are, what an import does.

Every check is a function of a folder, so that each is also run on a small folder that breaks it.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.small_project import lay

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("diffusion_math", "sd", "experiments")  # each may import what stands before it
PEERS = {"transformers", "diffusers"}
OF_PEERS = ("experiments/audit/peers", "diffusion_math/interop/diffusers_scheduler.py")
FOREIGN = {
    "diffusion_math": {*PEERS, "matplotlib", "PIL", "tokenizers"},
    "sd": {*PEERS, "matplotlib"},
    "experiments": PEERS,
}
DISTRIBUTION = {
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
    "openvino_genai": "openvino-genai",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "stable_diffusion_cpp": "stable-diffusion-cpp-python",
    "yaml": "pyyaml",
}
EXTRAS = (
    "testing",
    "train",
    "cluster",
    "diffusers",
    "docs",
    "control",
    "digits",
    "openvino",
    "openvino-int8",
    "play",
    "audit",
    "test",
    "bench",
    "bench-cpp",
    "mutants",
)
LONGEST = 250
"""Lines of code of a file; docstrings, comments and blank lines do not count."""


def sources(root: Path, *rooms: str) -> list[Path]:
    """Every Python file of the rooms."""
    return sorted(path for room in rooms for path in (root / room).rglob("*.py"))


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(root: Path, path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each import statement of a file, in functions too, as (module, names taken from it)."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, [alias.name for alias in node.names]


def wrong_directions(root: Path) -> list[str]:
    """Imports of a room that stands above, or of a package foreign to the room."""
    found = []
    for rank, room in enumerate(ROOMS):
        for path in sources(root, room):
            banned = {*ROOMS[rank + 1 :], "tests", "benchmarks", *FOREIGN[room]}
            apart = any(path.is_relative_to(root / place) for place in OF_PEERS)
            banned -= PEERS if apart else set()
            for module, _ in imports(root, path):
                if module.split(".")[0] in banned:
                    found.append(f"{path.relative_to(root)}: {module}")
    return found


def stray_plots(root: Path) -> list[str]:
    """Imports of matplotlib outside experiments/plots."""
    return [
        str(path.relative_to(root))
        for path in sources(root, *ROOMS)
        if any(module.split(".")[0] == "matplotlib" for module, _ in imports(root, path))
        and not module_name(root, path).startswith("experiments.plots")
    ]


def cycle(root: Path) -> list[str]:
    """One cycle of imports between modules, or nothing.

    `from package import module` counts as an import of the module, not of the package's `__init__`.
    """
    known = {module_name(root, path): path for path in sources(root, *ROOMS)}
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        edges = graph.setdefault(name, set())
        for module, taken in imports(root, path):
            inner = {f"{module}.{one}" for one in taken if f"{module}.{one}" in known}
            edges |= inner
            if module in known and len(inner) < max(len(taken), 1):
                edges.add(module)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def undeclared(root: Path, rooms: tuple[str, ...], declared: set[str]) -> list[str]:
    """Imports of packages that are neither Python's, nor ours, nor declared in pyproject.toml."""
    own = {*ROOMS, "tests", "benchmarks"}
    return sorted(
        {
            f"{path.relative_to(root)}: {top}"
            for path in sources(root, *rooms)
            for module, _ in imports(root, path)
            if (top := module.split(".")[0]) not in own | sys.stdlib_module_names
            and DISTRIBUTION.get(top, top).lower() not in declared
        }
    )


def code_lines(text: str) -> int:
    """Lines with code on them: no docstring, no comment alone, no blank line."""
    prose: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and number not in prose
        for number, line in enumerate(text.splitlines(), 1)
    )


def too_long(root: Path, *rooms: str, most: int = LONGEST) -> list[str]:
    return [
        f"{path.relative_to(root)}: {lines} lines of code"
        for path in sources(root, *rooms)
        if (lines := code_lines(path.read_text(encoding="utf-8"))) > most
    ]


FACTORIES = re.compile(
    r"torch\.(arange|as_tensor|empty|eye|full|linspace|logspace|ones|rand|randint|randn|randperm"
    r"|scalar_tensor|tensor|zeros)"
)


def of_default_device(root: Path) -> list[str]:
    """Tensors made where `torch.set_default_device` says; of a module's parameter it is meant."""
    found = []
    for path in sources(root, "diffusion_math", "sd"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        owned = [call for call in calls if ast.unparse(call.func).endswith("Parameter")]
        meant = {id(part) for call in owned for part in ast.walk(call)}
        for call in calls:
            bare = all(given.arg != "device" for given in call.keywords) and id(call) not in meant
            if bare and (made := FACTORIES.fullmatch(ast.unparse(call.func))):
                found.append(f"{path.relative_to(root)}: {made[1]}")
    return found


RUNS_TESTS = ("claims", "diffusion_math/mistakes", "sd/train/mistakes")
"""Folders of tests/ that run test modules on wrong versions of what these test."""


def imported_tests(root: Path) -> list[str]:
    """Imports of a test module by another file, other than those that run it on wrong versions."""
    found = []
    for path in sources(root, "tests"):
        if not path.relative_to(root / "tests").as_posix().startswith(RUNS_TESTS):
            for module, taken in imports(root, path):
                parts = (*module.split("."), *taken)
                if parts[0] == "tests" and any(part.startswith("test_") for part in parts):
                    found.append(f"{path.relative_to(root)}: {module}")
    return found


WORKPLACE = re.compile(
    r"\bsessions?\b|\bissue #?\d|(?<![\w.~/-])/(?:work|root|home|Users|tmp|opt)/", re.I
)


def workplace_words(paths: list[Path]) -> list[str]:
    """Lines that speak of where or how the project was made instead of what it is."""
    return [
        f"{path.name}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if WORKPLACE.search(line)
    ]


def weights_header(path: Path) -> str:
    """The JSON header of a safetensors file, where its metadata stand."""
    raw = path.read_bytes()
    return raw[8 : 8 + int.from_bytes(raw[:8], "little")].decode("utf-8")


def requirements(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return {re.split(r"[\s<>=!~;\[]", line)[0].lower() for line in lines}


def test_imports_point_down() -> None:
    assert wrong_directions(ROOT) == []


def test_only_plots_draws() -> None:
    assert stray_plots(ROOT) == []


def test_no_import_cycles() -> None:
    assert cycle(ROOT) == []


def test_every_dependency_is_declared() -> None:
    extras = (
        "testing",
        "train",
        "cluster",
        "diffusers",
        "control",
        "digits",
        "openvino-int8",
        "play",
        "audit",
    )
    assert undeclared(ROOT, ROOMS, requirements(*extras)) == []
    assert undeclared(ROOT, ("tests", "benchmarks"), requirements(*EXTRAS)) == []


def test_pinned_versions_cover_what_is_declared() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.!]+", pin)] == []
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    assert requirements(*EXTRAS) - pinned == set()


def test_tests_share_what_is_in_support() -> None:
    assert imported_tests(ROOT) == []
    assert all((ROOT / "tests" / folder).is_dir() for folder in RUNS_TESTS)


def test_no_file_grows_a_second_noun() -> None:
    assert too_long(ROOT, *ROOMS, "benchmarks") == []
    assert too_long(ROOT, "tests", most=300) == []  # tables of cases are code here


def test_a_tensor_is_made_on_a_device_that_is_named() -> None:
    assert of_default_device(ROOT) == []


def test_the_project_speaks_of_itself_alone() -> None:
    texts = [
        *sources(ROOT, *ROOMS, "benchmarks"),
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
    ]
    texts += [ROOT / "pyproject.toml", ROOT / "Makefile", ROOT / "constraints.txt"]
    assert workplace_words(texts) == []
    for path in (ROOT / "sd" / "assets").glob("*.safetensors"):
        assert WORKPLACE.search(weights_header(path)) is None, path.name
    for path in (ROOT / "sd" / "assets").glob("*.json"):
        assert WORKPLACE.search(path.read_text(encoding="utf-8")) is None, path.name


PROBE = """
import contextlib, importlib, io, json, pkgutil, random, socket, sys
import numpy, torch
socket.socket.connect = None  # a module that opens a connection fails on import
random.seed(1), numpy.random.seed(2), torch.manual_seed(3)
def state():
    name, keys, *rest = numpy.random.get_state()
    return random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist()
def settings():
    return (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
            numpy.geterr())
before = state(), settings()
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    package = importlib.import_module(sys.argv[1])
    modules = [package.__name__]
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__") and found.name not in sys.argv[2:]:
            importlib.import_module(found.name)
            modules.append(found.name)
    unchanged = [before[0] == state(), before[1] == settings()]
top = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps(dict(said=said.getvalue(), unchanged=unchanged, modules=modules, top=top)))
"""


def probe(room: str, root: Path = ROOT, without: str = "") -> dict[str, object]:
    """What importing every module of a room but one does, seen from a fresh interpreter."""
    command = [sys.executable, "-W", "error", "-c", PROBE, room, without]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, object] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("room", ROOMS)
def test_importing_does_nothing_else(room: str) -> None:
    peers = "diffusion_math.interop.diffusers_scheduler"
    report = probe(room, without=peers)
    assert report["said"] == ""
    assert report["unchanged"] == [True, True], "random state, global settings"
    expected = {module_name(ROOT, path) for path in sources(ROOT, room)}
    expected = {name for name in expected if not name.endswith("__main__")} - {peers}
    assert set(report["modules"]) == expected  # type: ignore[call-overload]
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    if room == "sd":  # accelerate, of the training extra, looks for transformers itself
        assert set(report["top"]) & (above | {"matplotlib"}) == set()  # type: ignore[call-overload]
    elif room == "diffusion_math":
        assert set(report["top"]) & (above | FOREIGN[room]) == set()  # type: ignore[call-overload]


def test_checks_reject_what_breaks_the_rules(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        diffusion_math__a="def late():\n    from sd import unet\n",
        diffusion_math__b="from . import c\nimport matplotlib.pyplot\n",
        diffusion_math__c="from .b import x\nimport elsewhere\n",
        diffusion_math__made="x = torch.zeros(1), torch.ones(1, device=d)\n"
        + "y = nn.Parameter(torch.full(1, 2)), np.zeros(1)\n",
        sd__unet="from experiments.report.run import run\n"
        + '"""Words."""\n# and\n\nx = 1\n' * LONGEST,
        sd__path="'the " + "session'\nwhere = '/" + "root/x'\nfine = 'https://a.b/" + "home/c'\n",
        experiments__plots="import matplotlib\nimport transformers\n",
    )
    assert [line.split(": ")[1] for line in wrong_directions(root)] == [
        "sd",
        "matplotlib.pyplot",
        "experiments.report.run",
        "transformers",
    ]
    assert stray_plots(root) == [str(Path("diffusion_math/b.py"))]
    assert set(cycle(root)) == {"diffusion_math.b", "diffusion_math.c"}
    (root / "tests" / "claims").mkdir(parents=True)
    for name in ("test_late.py", "claims/test_wrong.py"):
        lines = "from tests.sd import test_unet\ndef f():\n    from tests.test_x import X\n"
        (root / "tests" / name).write_text("from tests.support.x import y\n" + lines, "utf-8")
    assert [line.split(": ") for line in imported_tests(root)] == [
        [str(Path("tests/test_late.py")), "tests.sd"],
        [str(Path("tests/test_late.py")), "tests.test_x"],
    ]
    declared = {"matplotlib", "transformers"}
    assert [line.split(": ")[1] for line in undeclared(root, ROOMS, declared)] == ["elsewhere"]
    assert too_long(root, *ROOMS) == [f"{Path('sd/unet.py')}: {LONGEST + 1} lines of code"]
    assert len(workplace_words([root / "sd" / "path.py"])) == 2
    assert of_default_device(root) == [f"{Path('diffusion_math/made.py')}: zeros"]


def test_probe_notices(tmp_path: Path) -> None:
    lay(
        tmp_path,
        noisy__draws="import torch\ntorch.rand(1)\n",
        noisy__sets="import torch\ntorch.set_default_dtype(torch.float64)\n",
        noisy__prints="import sys\nprint('hello', file=sys.stderr)\n",
    )
    report = probe("noisy", tmp_path)
    assert report["unchanged"] == [False, False]
    assert report["said"] == "hello\n"
