"""The tab Plane: the exact flow is exact, and a sampler's error is its distance from it."""

import io
import re
from typing import Any, get_args, get_type_hints

import pytest
import torch
from PIL import Image

import diffusion_math as dm
from diffusion_math.testing.problems import GAUSSIAN, MIXTURE, flow
from experiments.play import plane
from experiments.play.jobs import live
from experiments.play.plane import Animated, Moment, Settings

OTHERS = [
    pytest.param(name, marks=pytest.mark.slow) for name in plane.SCHEDULES if name != "VP linear"
]


@pytest.mark.parametrize("name", ["VP linear", *OTHERS])
def test_the_exact_flow_is_that_of_an_eighth_order_method(name: str) -> None:
    """To 1e-4, a hundredth of the errors that the page shows."""
    schedule = plane.SCHEDULES[name]()
    for steps in (2, 20):
        grid = dm.uniform_log_snr(schedule, steps)[:-1]
        expected = flow(schedule, grid)
        found = plane.exact_flow(MIXTURE.denoiser, schedule, expected[0], grid)
        errors = [(a - b).norm(dim=1).max() for a, b in zip(found, expected, strict=True)]
        assert max(errors) < 1e-4


def test_the_exact_flow_reaches_clean_data_from_pure_noise() -> None:
    """One Gaussian has its flow in closed form, ends included."""
    schedule, x = dm.RectifiedFlow(), torch.randn(20, 3, dtype=torch.float64)
    *_, end = plane.exact_flow(GAUSSIAN.denoiser, schedule, x, dm.trailing(schedule, 3))
    assert (end - GAUSSIAN.probability_flow(schedule, x, 1.0, 0.0)).abs().max() < 1e-3


def run(**given: Any) -> tuple[list[Moment], Animated]:
    found = list(live(lambda tell: plane.animate(Settings(points=50, **given), tell)))
    *moments, last = [one for one in found if not isinstance(one, str)]
    assert isinstance(last, Animated), last
    assert [one.number for one in moments] == list(range(1, len(moments) + 1))
    return moments, last


def error(**given: Any) -> str:
    """The error in words, without a frame drawn."""
    settings = Settings(density="ring", **given)
    work = plane.reverse if settings.process == plane.REVERSE else plane.langevin
    return work(settings, lambda report: None)[1]


@pytest.mark.slow
def test_the_error_falls_with_the_steps() -> None:
    few, many = (
        float(re.findall(r"steps: ([\d.e-]+)", error(solver="ddim", steps=n, points=50))[0])
        for n in (4, 16)
    )
    assert 0 < many < few / 2


def test_the_frames_are_the_nodes() -> None:
    moments, last = run(density="ring", solver="ddim", steps=2)
    assert last.error.startswith("error of ddim after 2 steps: ")
    with Image.open(io.BytesIO(last.gif)) as gif:
        assert gif.n_frames == len(moments) == 3


@pytest.mark.slow
def test_a_stochastic_solver_and_a_chain_are_compared_as_distributions() -> None:
    noisy = error(solver="ddpm", steps=2, schedule="VE", grid="karras", points=50)
    chain = error(process="Langevin", chain="unadjusted", steps=3, points=50)
    for one in (noisy, chain):
        assert one.startswith("squared energy distance from the exact flow's")


def test_guidance_changes_the_denoiser_that_both_panels_have() -> None:
    given: dict[str, Any] = {"density": "ring", "condition": "first half of the components"}
    plain, guided = Settings(**given), Settings(**given, guidance_scale=4)
    schedule, x = dm.VPLinear(), torch.tensor([[0.3, 0.2]], dtype=torch.float64)
    t = torch.tensor(0.4, dtype=torch.float64)
    own, whole = plain.denoiser(schedule)(x, t), Settings(density="ring").denoiser(schedule)(x, t)
    assert torch.allclose(guided.denoiser(schedule)(x, t), whole + 4 * (own - whole))
    assert (own - whole).norm() > 0.1


BAD: list[tuple[dict[str, Any], str]] = [
    ({"density": "moon"}, "--density: wanted one of ring"),
    ({"steps": 501}, "--steps: wanted a whole number from 1 to 500, got 501"),
    ({"points": 2001}, "--points: wanted a whole number from 50 to 2000"),
    ({"guidance_scale": 3}, "--guidance-scale: has no effect without a condition"),
    (
        {"density": "banana", "condition": "first half of the components"},
        "--condition: wanted none for a density that is no mixture",
    ),
    (
        {"process": "Langevin", "condition": "first half of the components", "guidance_scale": 2},
        "--guidance-scale: wanted 1 with Langevin",
    ),
    ({"step_size": 0}, "--step-size: wanted a number above 0"),
]


@pytest.mark.parametrize(("given", "said"), BAD)
def test_bad_values_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"^{said}"):
        Settings(**given)


def test_the_names_are_the_tables() -> None:
    hints = get_type_hints(Settings)
    assert get_args(hints["density"]) == tuple(dm.DENSITIES)
    assert get_args(hints["schedule"]) == tuple(plane.SCHEDULES)
    assert get_args(hints["condition"]) == tuple(plane.LABELS)


@pytest.mark.slow
@pytest.mark.parametrize("density", list(dm.DENSITIES))
@pytest.mark.parametrize("chain", ["", "unadjusted", "Metropolis", "annealed"])
def test_every_density_runs_with_every_process(density: str, chain: str) -> None:
    given = {"process": "Langevin", "chain": chain} if chain else {}
    run(density=density, steps=3, **given)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", list(plane.SCHEDULES))
def test_every_solver_and_grid_runs_on_every_schedule(schedule: str) -> None:
    for solver in dm.SOLVERS:
        run(density="ring", schedule=schedule, solver=solver, steps=4)
    for grid in dm.GRIDS:
        run(density="ring", schedule=schedule, grid=grid, steps=4)
