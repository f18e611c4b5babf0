"""All solvers by name, with order and cost, for command lines, tests and audits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

from diffusion_math.checks import Registry, checked
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.adams import lms, plms
from diffusion_math.solvers.adaptive import bogacki_shampine
from diffusion_math.solvers.exponential import dpmpp_2m, multistep, singlestep, unipc
from diffusion_math.solvers.one_step import ddim, ddpm, euler, flow_heun, heun
from diffusion_math.solvers.step import Step
from diffusion_math.solvers.stochastic import ancestral, churn, corrected, dpmpp_sde, sde_heun
from diffusion_math.variance import fixed

__all__ = ["SOLVERS", "Solver"]


@final
@checked
@dataclass(frozen=True)
class Solver:
    """A solver with its theoretical order and cost; called with a schedule it returns its step.

    Attributes:
        make: schedule -> step.
        order: of the flow's solution, as steps go to infinity; of the distribution (weak) where
            `noisy`.
        calls: function evaluations per step, except a multistep solver's start and the last step.
        noisy: whether it is stochastic.
        about: a description in one line.

    >>> import diffusion_math as dm
    >>> solver = dm.SOLVERS["heun"]
    >>> solver.order, solver.calls, solver.noisy, solver.about
    (2, 2, False, "EDM's second-order solver")
    >>> step = solver(dm.VE())
    >>> sorted(name for name, solver in dm.SOLVERS.items() if solver.order == 3)
    ['adaptive', 'deis', 'dpm_solver_3s', 'dpmpp_3m', 'dpmpp_3s', 'unipc']
    """

    make: Callable[[Schedule], Step]
    order: int
    calls: int
    noisy: bool
    about: str

    @checked
    def __call__(self, schedule: Schedule) -> Step:
        """The solver's step for a schedule."""
        return self.make(schedule)


def _large(schedule: Schedule) -> Step:
    return ddpm(schedule, fixed(schedule))


def _predictor_corrector(schedule: Schedule) -> Step:
    return corrected(ddim(schedule), schedule)


SOLVERS: dict[str, Solver] = Registry(
    {
        "ddpm": Solver(ddpm, 1, 1, True, "ancestral, the posterior's variance (DDPM)"),
        "ddpm_large": Solver(_large, 1, 1, True, "ancestral, the forward variance (DDPM)"),
        "ddim": Solver(ddim, 1, 1, False, "the deterministic end of DDIM's family"),
        "euler": Solver(euler, 1, 1, False, "Euler on the flow: ddim's map"),
        "euler_ancestral": Solver(
            partial(ancestral, order=1), 1, 1, True, "ddpm's map in sigma form"
        ),
        "heun": Solver(heun, 2, 2, False, "EDM's second-order solver"),
        "flow_heun": Solver(flow_heun, 2, 2, False, "Heun on rectified flow's line"),
        "dpm2": Solver(
            partial(singlestep, order=2), 2, 2, False, "DPM-Solver-2, k-diffusion's DPM2"
        ),
        "dpm2_ancestral": Solver(
            partial(ancestral, order=2), 2, 2, True, "DPM2 below s, then noise"
        ),
        "edm_churn": Solver(churn, 2, 2, True, "EDM's stochastic sampler"),
        "lms": Solver(lms, 4, 1, False, "Adams-Bashforth in sigma / alpha"),
        "plms": Solver(plms, 2, 1, False, "Adams-Bashforth of equal steps, Heun's start"),
        "pndm": Solver(partial(plms, runge_kutta=True), 2, 1, False, "plms, a Runge-Kutta start"),
        "deis": Solver(partial(multistep, order=3, kind="eps"), 3, 1, False, "DEIS in log sigma"),
        "dpm_solver_2m": Solver(
            partial(multistep, order=2, kind="eps"), 2, 1, False, "DPM-Solver, two predictions"
        ),
        "dpm_solver_3s": Solver(partial(singlestep, order=3), 3, 3, False, "DPM-Solver-3"),
        "dpmpp_2s": Solver(
            partial(singlestep, order=2, kind="x0"), 2, 2, False, "DPM-Solver++(2S)"
        ),
        "dpmpp_3s": Solver(
            partial(singlestep, order=3, kind="x0"), 3, 3, False, "DPM-Solver++(3S)"
        ),
        "dpmpp_2s_ancestral": Solver(
            partial(ancestral, order=2, kind="x0"),
            2,
            2,
            True,
            "DPM-Solver++(2S) below s, then noise",
        ),
        "dpmpp_2m": Solver(dpmpp_2m, 2, 1, False, "DPM-Solver++(2M)"),
        "dpmpp_3m": Solver(partial(multistep, order=3), 3, 1, False, "three predictions"),
        "dpmpp_sde": Solver(dpmpp_sde, 2, 2, True, "DPM-Solver++ on the reverse SDE, by halves"),
        "dpmpp_2m_sde": Solver(
            partial(multistep, order=2, eta=1.0), 2, 1, True, "two predictions, on the reverse SDE"
        ),
        "dpmpp_3m_sde": Solver(
            partial(multistep, order=3, eta=1.0),
            2,
            1,
            True,
            "three predictions, on the reverse SDE",
        ),
        "unipc": Solver(unipc, 3, 1, False, "UniPC, a predictor of order 2 and its corrector"),
        "sde_heun": Solver(sde_heun, 2, 2, True, "stochastic Heun on the reverse SDE"),
        "adaptive": Solver(bogacki_shampine, 3, 3, False, "an embedded pair that picks its steps"),
        "langevin_corrected": Solver(_predictor_corrector, 1, 2, True, "ddim, Langevin after it"),
    }
)
"""Every solver by name, at its default settings."""
