"""The public API: what `import diffusion_math as dm` gives, and that the pages need no more."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

import diffusion_math as dm
from diffusion_math import langevin, testing
from tests.support.snippets import snippets

ROOT = Path(__file__).resolve().parents[1]

TYPES = "Schedule Grid Noise Denoiser Network State Step"
SCHEDULES = "Discrete VPLinear VPCosine VE RectifiedFlow"
MAKERS = "leading trailing linspace uniform_log_snr karras GRIDS"
DENOISERS = "from_x0 from_eps from_v from_score from_flow cfg cfg_batched limited"
DATA = "GaussianMixture DENSITIES"
STEPS = "SOLVERS ddpm ddim euler heun flow_heun dpmpp_2m singlestep multistep unipc"
LOOP = "trajectory inversion final start_noise from_seeds training_loss __version__"
MODULES = """
densities distillation solvers fitting testing checks noise prediction gaussian guidance loss elbo
likelihood score_matching langevin metrics grid variance guidance_law langevin_law inpainting
inpainting_law
"""
PUBLIC = " ".join((TYPES, SCHEDULES, MAKERS, DENOISERS, DATA, STEPS, LOOP, MODULES)).split()

SAMPLERS = """
Sampler of_step ours UnsupportedError audit Report Check Origin assert_order assert_sound
flow_order weak_order strong_order exact_moments problems
"""
FORMULAS = """
assert_schedule assert_forward assert_transition assert_posterior assert_learned_variance
assert_prediction_maps assert_loss assert_likelihood assert_bound assert_prior_term assert_decoder
assert_invariant assert_stationary assert_guidance assert_guided assert_img2img_start
assert_average assert_inversion assert_table of assert_diffusion FormulaCheck FormulaChecks
UncheckedWarning Difference Draws Mistake MistakeError drawn weights
"""
TESTING = " ".join((SAMPLERS, FORMULAS)).split()

MAIN_LINE = re.compile(r"diffusion_math(\.testing|\.interop)?")
"""What the main line imports: the package, its testing kit, and its solvers for others."""


def deep(code: str) -> list[str]:
    """Modules of diffusion_math that the code imports from, other than the main line's."""
    found = []
    for node in ast.walk(ast.parse(code)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
        found += [
            name
            for name in names
            if name.startswith("diffusion_math") and not MAIN_LINE.fullmatch(name)
        ]
    return found


PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
)


def test_the_public_names_are_these() -> None:
    assert sorted(dm.__all__) == sorted(PUBLIC)
    assert [name for name in dm.__all__ if not hasattr(dm, name)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_import_nothing_deeper(path: Path) -> None:
    assert [name for code in snippets(path) for name in deep(code)] == []


def test_a_deeper_import_is_found() -> None:
    assert deep("from diffusion_math.schedule import VPLinear") == ["diffusion_math.schedule"]
    assert deep("import diffusion_math.sample as s") == ["diffusion_math.sample"]
    assert deep("import diffusion_math as dm\nfrom diffusion_math.testing import audit") == []


def test_the_testing_kit_has_its_names() -> None:
    assert sorted(TESTING) == sorted(testing.__all__)
    assert [name for name in testing.__all__ if not hasattr(testing, name)] == []


def test_every_assertion_is_exported() -> None:
    folder = Path(testing.__file__).parent
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")]
    defined = [
        node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)
    ]
    assert {name for name in defined if name.startswith("assert_")} <= set(testing.__all__)


def test_the_testing_kit_loads_no_test_runner() -> None:
    code = "import sys, diffusion_math.testing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"pytest", "hypothesis", "matplotlib", "scipy.stats"} & set(done.stdout.split()) == set()


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "diffusion_math/__init__.py"
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == dm.__version__
    assert f"## {dm.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert (ROOT / "diffusion_math" / "py.typed").is_file()


def test_the_workflow_runs_the_same_checks() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["run"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert any(step.get("run") == ".ci/run" for step in job["steps"])


@pytest.mark.parametrize("name", [name for name, one in dm.SOLVERS.items() if one.noisy])
def test_a_solver_that_draws_refuses_a_run_without_noise(name: str) -> None:
    schedule = dm.VPLinear()
    data = dm.GaussianMixture(
        *(torch.tensor(v, dtype=torch.float64) for v in ([0.0], [[1.0]], [0.1]))
    )
    x = dm.start_noise([0, 1], (1,), dtype=torch.float64)
    grid = dm.uniform_log_snr(schedule, 3)
    step, denoise = dm.SOLVERS[name](schedule), data.denoiser(schedule)
    with pytest.raises(ValueError, match="noise: wanted a noise source"):
        dm.final(step, denoise, x, grid)
    with pytest.raises(ValueError, match="noise: wanted a noise source"):
        list(dm.trajectory(step, denoise, x, grid))
    assert dm.final(step, denoise, x, grid, dm.from_seeds([0, 1])).isfinite().all()


def test_a_langevin_chain_refuses_a_run_without_noise() -> None:
    move = langevin.ula(lambda x: -x, 0.1)
    with pytest.raises(ValueError, match="noise: wanted a noise source"):
        list(langevin.chain(move, torch.zeros(2, 1, dtype=torch.float64), 2))


def test_the_end_is_the_trajectory_s_last() -> None:
    schedule = dm.VPLinear()
    data = dm.DENSITIES["ring"]()
    x = dm.start_noise(range(8), (2,), dtype=torch.float64)
    grid = dm.uniform_log_snr(schedule, 5)
    given = dm.heun(schedule), data.denoiser(schedule), x, grid
    *_, last = dm.trajectory(*given)
    assert torch.equal(dm.final(*given), last.x)
