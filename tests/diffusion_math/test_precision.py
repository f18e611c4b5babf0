"""Narrow dtypes against float64: every public function that takes events, swept.

A function answers for inputs that are exact in float16 and bfloat16, so all that may differ from
float64 is the rounding on its way. A sum of 6144 squares in float16 is infinite, in bfloat16 it
stops growing at 256 terms: what is summed over an event is summed in float32 or wider.
"""

import importlib
import inspect
import pkgutil

import pytest
import torch

import diffusion_math
from diffusion_math import schedule
from diffusion_math.fitting import grids, weights_by_ends
from diffusion_math.fitting import weights as fitted
from diffusion_math.solvers import one_step
from tests.support import precision
from tests.support.precision_cases import CASES

ROUNDINGS = 6
"""Of the dtype, of the largest entry: three steps of `plms` need more than 2, all others less."""

OTHERS = {
    "numbers, times, weights and schedules, which are float64 throughout": """
        checks.checked checks.described checks.shown
        checks.require checks.finite checks.between checks.interval checks.whole
        checks.all_between checks.as_floats checks.real checks.same_shape checks.symmetric
        checks.differentiable
        inpainting.check_known _kept.forget _kept.kept _kept.numbers _kept.scalar _made_on.made_on
        _made_on.require_one_schedule
        checks.scalar_or_batch checks.strictly_decreasing checks.earlier denoiser.network_time
        variance.large_variance variance.small_variance variance.optimal_variance
        variance.constant_variance elbo.lambda_t elbo.Bound.nats elbo.Bound.bits_per_dimension
        exponential.Level.at exponential.phi exponential.weights exponential.noise_std
        exponential.check_kind grid.Grid.__call__ grid.trailing grid.leading grid.linspace
        grid.uniform_log_snr grid.karras guidance.cosine langevin.step_size
        linear.rescaled_weights linear.rows_of_grid loss.x0_weight loss.uniform loss.snr
        loss.truncated_snr loss.snr_plus_one loss.min_snr loss.variational loss.uniform_times
        loss.stratified_times noise.UnitNoise.rows prediction.coefficients
        published_grids.align_your_steps published_grids.error_weighted
        published_grids.weighted_error _batching.places _batching.parts shortest_path.shortest
        grids.cosines
        grids.grid_of_logits grids.logits_of_grid grids.blended grids.in_medians
        diffusers_scheduler.DiffusersScheduler.from_config
        diffusers_scheduler.DiffusersScheduler.set_timesteps
        diffusers_scheduler.DiffusersScheduler.set_begin_index
        diffusers_scheduler.DiffusersScheduler.begin_index
        diffusers_scheduler.DiffusersScheduler.step_index pulled.evaluations
        stochastic.down_time
        """,
    "data distributions and parts of them, which are float64 throughout": """
        checkerboard.Checkerboard.sample toy.Density.log_density toy.Density.score
        toy.Density.posterior_mean toy.Density.denoiser toy.Density.sample toy.ring toy.grid25
        toy.two_moons toy.pinwheel toy.spirals guidance_law.gaussian_guided
        guidance_law.gaussian_tilted guidance_law.guided_variance inpainting_law.conditional
        inpainting_law.log_density labelled.Labelled.count
        labelled.Labelled.given labelled.Labelled.log_prior multivariate.Multivariate.entropy
        multivariate.kl multivariate.cross_entropy multivariate.wasserstein2
        multivariate.fisher_divergence multivariate.condition multivariate.product
        mixture.GaussianMixture.marginal mixture.GaussianMixture.among
        mixture.GaussianMixture.sample mixture.GaussianMixture.moments _quadratic_forms.forms
        _quadratic_forms.Products.of _quadratic_forms.Products.energy
        _quadratic_forms.Products.pull _quadratic_forms.Differences.energy
        _quadratic_forms.Differences.pull banana_funnel.Ribbon.sample banana_funnel.banana
        banana_funnel.funnel _quadratic_forms.spectrum _batching.sums _batching.softmax
        _batching.normalised _matrix_roots.root _matrix_roots.polar
        """,
    "points that its signature wants in float64": """
        guidance_law.log_density guidance_law.Nodes.integral guidance_law.box guidance_law.ball
        guidance_law.around guidance_law.tilted guidance_law.log_normaliser guidance_law.kl
        guidance_law.mode_weights
        """,
    "draws nothing, or draws in the dtype itself, so that no two dtypes have one answer": """
        noise.required noise.from_generator noise.start_noise diffusers_scheduler.normals
        """,
    "a run of steps, which are swept, and of `DiffusersScheduler.step`": """
        pulled.Pulled.start pulled.Pulled.answer
        """,
    "a search by differences, which refuses narrow dtypes (below)": """
        weights_by_ends.fit_weights_to_ends weights_by_ends.fit_alternating
        weights.fit_weights_and_grid grids.fit_grid grids.fit_grid_of grids.robust_least_squares
        """,
}


KINDS = (property, classmethod, staticmethod)


def public():
    """module.function and module.Class.method of the package."""
    for module in pkgutil.walk_packages(diffusion_math.__path__, "diffusion_math."):
        if module.ispkg or module.name.startswith("diffusion_math.testing."):
            continue  # what judges samplers takes no tensors of the user's
        inside = importlib.import_module(module.name)
        stem = module.name.rpartition(".")[2]
        for name, thing in vars(inside).items():
            if name.startswith("_") or getattr(thing, "__module__", "") != inside.__name__:
                continue
            if inspect.isfunction(thing):
                yield f"{stem}.{name}"
            elif inspect.isclass(thing) and not issubclass(thing, schedule.Schedule):
                for method, of in vars(thing).items():
                    callable_one = inspect.isfunction(of) or isinstance(of, KINDS)
                    if callable_one and (method == "__call__" or not method.startswith("_")):
                        yield f"{stem}.{name}.{method}"


def test_the_sweep_covers_every_public_function():
    """A function that is new is swept, or said why not; what is gone is struck off."""
    named = [name for names in OTHERS.values() for name in names.split()]
    found = set(public())
    assert sorted(found - set(CASES) - set(named)) == []
    assert sorted((set(CASES) | set(named)) - found) == []
    assert set(CASES).isdisjoint(named) and len(named) == len(set(named))


def parts(answer):
    return [answer] if isinstance(answer, torch.Tensor) else list(answer)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_a_narrow_dtype_says_what_float64_says(name, dtype):
    wanted = parts(CASES[name](lambda x: x.to(torch.float64)))
    got = parts(CASES[name](lambda x: x.to(dtype)))
    assert len(got) == len(wanted)
    for one, truth in zip(got, wanted, strict=True):
        assert one.shape == truth.shape and bool(one.isfinite().all())
        off = (one.double() - truth.double()).abs().max()
        allowed = ROUNDINGS * torch.finfo(dtype).eps * truth.double().abs().max()
        assert off <= allowed, (float(off), float(allowed))


INSIDE = [
    name
    for name in CASES
    if name.split(".")[0] in ("checkerboard", "curvature", "labelled", "metrics", "multivariate")
    or name.split(".")[0] in ("oracle", "path", "ribbon")
    or name in ("grids.distances", "grids.robust_residuals", "grids.flattened")
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", INSIDE)
def test_what_is_worked_out_in_float64_is_so_for_narrower_points(name, dtype):
    """The very numbers of float64, but for one rounding where the answer is like the points."""
    wanted = parts(CASES[name](lambda x: x.to(torch.float64)))
    got = parts(CASES[name](lambda x: x.to(dtype)))
    for one, truth in zip(got, wanted, strict=True):
        assert one.dtype == torch.float64 or (one.dtype == dtype and one.ndim > 1)
        eps = 2**-44 if one.dtype == torch.float64 else torch.finfo(dtype).eps
        torch.testing.assert_close(one.double(), truth.double(), rtol=eps, atol=eps * 2**-8)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_in_its_dtype_or_wider(name):
    """Events stay what they were, variances and sums over events are at least float32."""
    for one in parts(CASES[name](lambda x: x.to(torch.float16))):
        event = one.shape == precision.X.shape and name not in (
            "_batching.wide",
            "variance.learned_range",
        )
        kept = one.dtype == torch.float16
        assert kept if event else kept or one.dtype in (torch.float32, torch.float64)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_search_by_differences_refuses_what_would_drown_them(dtype):
    """A change of 1e-3 in a node, or 1e-5 in a weight, is below a narrow dtype's rounding."""
    way, grid, weights = precision.WAY, precision.GRID, precision.WEIGHTS
    x, y, halved = precision.A.to(dtype), precision.B.to(dtype), precision.halved
    path = fitted.FinePath(grid, [x, y, x, y])
    for search in (
        lambda: grids.fit_grid(one_step.ddim(way), way, halved, x, y, grid),
        lambda: grids.fit_grid_of(lambda grid: x, way, y, grid),
        lambda: fitted.fit_weights_and_grid(way, halved, path, grid),
        lambda: weights_by_ends.fit_weights_to_ends(halved, x, y, grid, weights),
        lambda: weights_by_ends.fit_alternating(way, halved, x, y, grid, weights),
    ):
        with pytest.raises(ValueError, match=r"^ends: wanted float32 or float64, got torch\."):
            search()
