"""How the experiments on the text-to-image model sample: solver, steps, grid, guidance."""

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from experiments.common.model_options import OWN
from sd.command_line.flags import Range, Several, default, unused, validated

if TYPE_CHECKING:
    from sd.pipeline import TextToImage

Deterministic: TypeAlias = Literal[
    "ddim", "euler", "heun", "flow_heun", "dpm2", "lms", "plms", "pndm", "deis", "dpm_solver_2m",
    "dpm_solver_3s", "dpmpp_2s", "dpmpp_3s", "dpmpp_2m", "dpmpp_3m", "unipc", "adaptive",
]  # fmt: skip
"""Solvers that draw no noise, written out, so that --help imports no library."""

Stochastic: TypeAlias = Literal[
    "ddpm", "ddpm_large", "euler_ancestral", "dpm2_ancestral", "edm_churn", "dpmpp_2s_ancestral",
    "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "sde_heun", "langevin_corrected",
]  # fmt: skip

Solver: TypeAlias = Deterministic | Stochastic
Grid: TypeAlias = Literal["leading", "trailing", "linspace", "uniform_log_snr", "karras"]
Scale: TypeAlias = Annotated[float, Range(0, 1000)]
Interval: TypeAlias = Annotated[
    tuple[float, float], Range(0, math.inf), Several(2, distinct=False, rising=True)
]


@validated
class Sampling:
    """How the model samples."""

    steps: Annotated[int | None, Range(1, 1000), default("25, or the distilled model's")] = None
    """Sampling steps, 1 to 1000."""
    solver: Annotated[Solver | None, default("the model's", "NAME")] = None
    """A solver of `diffusion_math.SOLVERS`: ddpm, ddim, heun, dpmpp_2m, unipc, ..."""
    grid: Grid = "trailing"
    """Spacing of the time steps."""
    guidance_scale: Annotated[Scale | None, OWN] = None
    """w in x0_u + w (x0_c - x0_u): 0 ignores the prompt, 1 is unguided."""
    guidance_interval: Annotated[Interval | None, default("all")] = None
    """LOW HIGH: sigma/alpha at which w holds; elsewhere w = 1, at half the cost."""
    long_prompt: Annotated[Literal["chunk", "truncate", "refuse"] | None, OWN] = None
    """A prompt beyond the context: encode in chunks, truncate, or refuse."""
    clip_skip: Annotated[int | None, Range(0, 100), OWN] = None
    """Last layers of the text encoder to skip."""

    def __post_init__(self) -> None:
        if self.guidance_scale == 1:
            unused(self, ["guidance_interval"], "with --guidance-scale 1, which is no guidance")

    def call(self, pipeline: "TextToImage") -> dict[str, Any]:
        """The keywords of a call of the pipeline that these settings fix, defaults filled in."""
        return {
            "steps": pipeline.config.sampling_steps if self.steps is None else self.steps,
            "solver": pipeline.config.solver if self.solver is None else self.solver,
            "grid": self.grid,
            "guidance_scale": scale_of(self.guidance_scale, pipeline),
            "guidance_interval": self.guidance_interval,
            "long_prompt": self.long_prompt or pipeline.config.long_prompt,
            "clip_skip": pipeline.config.text.skip if self.clip_skip is None else self.clip_skip,
        }


def scale_of(given: float | None, pipeline: "TextToImage") -> float:
    """The guidance scale that is used when guidance is on: the given one, or the model's own."""
    return float(pipeline.config.guidance_scale if given is None else given)
