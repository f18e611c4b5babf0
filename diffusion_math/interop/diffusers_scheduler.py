"""The solvers as a scheduler of diffusers, for its pipelines."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from diffusion_math import prediction
from diffusion_math._batching import combined, wide
from diffusion_math.checks import Number, checked, require, same_shape
from diffusion_math.denoiser import network_time
from diffusion_math.grid import GRIDS
from diffusion_math.interop.pulled import Pulled, evaluations
from diffusion_math.schedule import Discrete, Schedule
from diffusion_math.solvers.one_step import ddim
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.solvers.step import Step

__all__ = ["DiffusersScheduler"]

NEAR = 1e-3
"""Times that differ by less are one: the times that a pipeline tells are rounded."""

Generators: TypeAlias = torch.Generator | list[torch.Generator] | None
_ToX0: TypeAlias = Callable[[Schedule, Tensor, Tensor, Tensor], Tensor]

_X0: dict[str, _ToX0] = {
    "epsilon": prediction.x0_from_eps,
    "v_prediction": prediction.x0_from_v,
    "sample": lambda schedule, x, x0, t: x0,
}


@checked
def normals(x: Tensor, t: Tensor, s: Tensor, generator: Generators) -> Tensor:
    """The standard normals of the step from t to s, like x."""
    z: Tensor = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return z


class DiffusersScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Any solver and grid of diffusion_math, for the pipelines of diffusers.

    Samples are x_t = alpha_t x_0 + sigma_t eps, and diffusers' time is t - 1. A pipeline evaluates
    the network once for each entry of `timesteps`; a solver of several evaluations a step has
    more entries than steps, and `order` of them a step. What a pipeline does to a sample between
    two calls of `step` is kept: the next step starts from the changed sample. A multistep solver
    keeps its earlier predictions of x_0. Inside a step, the network's prediction is the one at
    the changed sample.

    Args:
        solver: a name in `SOLVERS`, but "adaptive", which has no list of times.
        grid: a name in `GRIDS`; it stands for `timestep_spacing`, `steps_offset` and
            `use_karras_sigmas` of a config, which are not read.
        num_train_timesteps, beta_start, beta_end, beta_schedule: see `Discrete.from_diffusers`; the
            defaults are Stable Diffusion's.
        trained_betas, rescale_betas_zero_snr: see `Discrete.from_diffusers`.
        prediction_type: "epsilon", "v_prediction" or "sample".
        clip_sample, clip_sample_range: whether predictions of x_0 are clipped, and to what.
        thresholding, use_flow_sigmas, snr_shift_scale: for configs of others; only their defaults
            are accepted.

    Raises ValueError for an argument that is not as above. Derivation: (schedule.2), (sample.1).

    >>> import torch
    >>> from diffusion_math.interop import DiffusersScheduler
    >>> scheduler = DiffusersScheduler("dpmpp_2m", grid="karras")
    >>> scheduler.set_timesteps(4)
    >>> x = torch.ones(1, 4, 8, 8)
    >>> for t in scheduler.timesteps:
    ...     x = scheduler.step(torch.zeros_like(x), t, x).prev_sample  # eps, of your U-Net
    ...
    >>> scheduler.timesteps, x[0, 0, 0, 0]
    (tensor([999.0000, 687.1528, 145.9381,   0.0000]), tensor(14.6488))
    """

    _compatibles = [each.name for each in KarrasDiffusionSchedulers]  # noqa: RUF012
    order = 1
    init_noise_sigma = 1.0
    _begin_index: int | None
    _step_index: int | None
    _run: Pulled | None

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        solver: str = "dpmpp_2m",
        grid: str = "trailing",
        num_train_timesteps: int = 1000,
        beta_start: Number = 0.00085,
        beta_end: Number = 0.012,
        beta_schedule: str = "scaled_linear",
        trained_betas: Any = None,
        prediction_type: str = "epsilon",
        rescale_betas_zero_snr: bool = False,
        clip_sample: bool = False,
        clip_sample_range: Number = 1.0,
        thresholding: bool = False,
        use_flow_sigmas: bool = False,
        snr_shift_scale: Number = 1.0,
    ) -> None:
        fixed = [name for name in SOLVERS if name != "adaptive"]
        require(solver in fixed, "solver", f"one of {', '.join(fixed)}", repr(solver))
        require(grid in GRIDS, "grid", f"one of {', '.join(GRIDS)}", repr(grid))
        wanted = f"one of {', '.join(_X0)}"
        require(prediction_type in _X0, "prediction_type", wanted, repr(prediction_type))
        require(not thresholding, "thresholding", "False", thresholding)
        self.schedule = Discrete.from_diffusers(self.config)
        self.order = SOLVERS[solver].calls
        self.betas = self.schedule.betas.float()
        times = torch.arange(1, len(self) + 1, device="cpu")
        self.alphas_cumprod = self.schedule(times)[0].square().float()
        self.timesteps = times.flip(0).float() - 1
        self.sigmas = self._ratios([*times.flip(0), torch.tensor(0, device="cpu")])
        self.num_inference_steps: int | None = None
        self.nodes = torch.zeros(0, dtype=torch.float64, device="cpu")
        """The grid, in times t of `schedule`."""
        self.starts: list[int] = []
        """The entry of `timesteps` at which each step starts, of those that the run has."""
        self._reset()

    @classmethod
    @checked
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """A scheduler of this table and prediction type; `solver` and `grid` are keywords.

        A config marks the values that are its own class's defaults, which diffusers replaces by the
        new class's. Here they stay.
        """
        if isinstance(config, Mapping):
            config = {name: of for name, of in config.items() if name != "_use_default_values"}
        return super().from_config(config, return_unused_kwargs, **kwargs)

    @checked
    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[Number] | None = None,
        sigmas: Sequence[Number] | None = None,
    ) -> None:
        """Begin a run of so many steps, or on own times or noise levels; an earlier run is lost.

        Args:
            num_inference_steps: steps of the scheduler's grid.
            device: of `timesteps`.
            timesteps: diffusers' times of the steps' starts, falling; the last step ends on data.
            sigmas: sigma / alpha of the steps' starts, falling; a last 0 may be left out. Those
                above the schedule's largest are that one, below its least that.

        Raises ValueError unless one of the three is given and can be followed.
        """
        given = [one for one in (num_inference_steps, timesteps, sigmas) if one is not None]
        wanted = "num_inference_steps, timesteps or sigmas"
        require(len(given) == 1, "set_timesteps", f"one of {wanted}", f"{len(given)} of them")
        if num_inference_steps is not None:
            nodes = GRIDS[self.config["grid"]](self.schedule, num_inference_steps)
        else:
            starts = torch.as_tensor(given[0], dtype=torch.float64, device="cpu").flatten()
            if sigmas is None:
                starts = starts + 1
            else:
                ends = (self.schedule.log_snr(t) for t in (self.schedule.T, self.schedule.t_min))
                starts = self.schedule.time((-2 * starts[starts > 0].log()).clamp(*ends))
            nodes = torch.cat([starts, starts.new_zeros(1)])
        times, self.starts = evaluations(self._step(), nodes)
        self.nodes, self.num_inference_steps = nodes, len(nodes) - 1
        self.timesteps = self._network_times(times).to(device)
        self.sigmas = self._ratios([*times, nodes[-1]])
        self._reset()

    @checked
    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at an entry of `timesteps` at which a step starts, as image-to-image does.

        begin_index: `order` times the number of steps to leave out. A multistep solver's first step
        may have evaluations of its own. They are put into `timesteps` in place, so a pipeline that
        holds a slice of it sees them.

        Raises ValueError for an entry that is none.
        """
        skipped, left = begin_index // self.order, len(self.timesteps) - begin_index
        wanted = f"a multiple of {self.order} below {len(self.timesteps)}, after set_timesteps"
        valid = begin_index >= 0 and skipped < len(self.nodes) - 1
        if begin_index >= len(self.timesteps) > 0:
            wanted += " (or a strength that leaves a step)"
        require(valid, "begin_index", wanted, begin_index)
        times, starts = evaluations(self._step(), self.nodes[skipped:])
        require(len(times) <= left, "begin_index", wanted, begin_index)
        # Where the rest of the steps needs fewer evaluations than there are entries, the first
        # entries are calls that change nothing.
        idle = left - len(times)
        times = times[:1] * idle + times
        self.timesteps[begin_index:] = self._network_times(times).to(self.timesteps)
        self.sigmas[begin_index:-1] = self._ratios(times)
        self.starts = [begin_index + idle + start for start in starts]
        self._reset(begin_index)

    @property
    def begin_index(self) -> int | None:
        """What `set_begin_index` was given."""
        return self._begin_index

    @property
    def step_index(self) -> int | None:
        """The entry of `timesteps` that the next `step` is told; None before the first."""
        return self._step_index

    @checked
    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample as it is: a network gets x_t."""
        return sample

    @checked
    def step(
        self,
        model_output: Tensor,
        timestep: Number | Tensor,
        sample: Tensor,
        eta: Number = 0.0,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """The sample at the next entry of `timesteps`, or after the last one the end.

        Args:
            model_output: the network's prediction for `sample` and `timestep`.
            timestep: the next entry of `timesteps`.
            sample: `(batch, *event)`, at that time.
            eta: for `ddim` alone, its setting.
            generator: of the noise, or one for each sample.

        Returns:
            `prev_sample`, and `pred_original_sample`, the prediction of x_0.

        Raises:
            ValueError: a time that is not the next one, another shape, an `eta` without effect.
        """
        solver = self.config["solver"]
        require(eta == 0 or solver == "ddim", "eta", f"0 with {solver}", eta)
        step, x, time = self._step(float(eta)), wide(sample), float(timestep)
        if self._run is None:
            self._begin(time, step, x)
        assert self._run is not None and self._step_index is not None
        run, entry = self._run, self._step_index
        wanted = float(self.timesteps[entry])
        require(abs(time - wanted) < NEAR, "timestep", f"{wanted:g}, or set_timesteps anew", time)
        same_shape("model_output", model_output, sample)
        x0 = _X0[self.config["prediction_type"]](self.schedule, x, model_output.to(x), run.t)
        if self.config["clip_sample"]:
            x0 = x0.clamp(-self.config["clip_sample_range"], self.config["clip_sample_range"])
        if entry >= self.starts[0]:
            run.answer(step, x, x0, lambda x, t, s: normals(x, t, s, generator))
            x = run.x
        self._step_index = entry + 1
        if self._step_index == len(self.timesteps):
            self._run = None
        found = x.to(sample.dtype), x0.to(sample.dtype)
        return DDIMSchedulerOutput(*found) if return_dict else found

    @checked
    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha_t x_0 + sigma_t eps at diffusers' times, one or `(batch,)`."""
        alpha_t, sigma_t = self.schedule(self._times(timesteps))
        x0, eps = torch.broadcast_tensors(original_samples, noise)  # type: ignore[no-untyped-call]
        return combined((alpha_t, x0), (sigma_t, eps))

    @checked
    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v = alpha_t eps - sigma_t x_0 at diffusers' times, one or `(batch,)`.

        Derivation: (prediction.1).
        """
        return prediction.target(self.schedule, "v", sample, noise, self._times(timesteps))

    def __len__(self) -> int:
        return int(self.schedule.T)

    def _step(self, eta: float = 0.0) -> Step:
        if eta != 0:
            return ddim(self.schedule, eta)
        return SOLVERS[self.config["solver"]](self.schedule)

    def _reset(self, begin_index: int | None = None) -> None:
        """Forget the run, and where the next one begins."""
        self._begin_index = begin_index
        self._step_index = self._run = None

    def _begin(self, time: float, step: Step, x: Tensor) -> None:
        """Start a run at its first entry, or without one at the step that starts at this time."""
        require(len(self.starts) > 0, "step", "set_timesteps before it", "no steps")
        entry, steps = self._begin_index or 0, len(self.starts)
        if self._begin_index is None and abs(time - float(self.timesteps[0])) >= NEAR:
            near = [k for k in self.starts if abs(time - float(self.timesteps[k])) < NEAR]
            require(len(near) == 1, "timestep", "a time at which a step starts", time)
            [entry] = near
            steps = len(self.starts) - self.starts.index(entry)
            times, _ = evaluations(step, self.nodes[-1 - steps :])
            wanted = "set_begin_index, as the solver's start has evaluations of its own"
            require(len(times) == len(self.timesteps) - entry, "timestep", wanted, time)
        nodes = self.nodes[-1 - steps :]
        self._run, self._step_index = Pulled.start(self.schedule, step, nodes, x), entry

    def _network_times(self, times: Sequence[Tensor]) -> Tensor:
        return network_time(
            self.schedule, torch.zeros(len(times), device="cpu"), torch.stack(list(times))
        )

    def _ratios(self, times: Sequence[Tensor]) -> Tensor:
        """sigma / alpha, on the CPU."""
        return torch.exp(-self.schedule.log_snr(torch.stack(list(times))) / 2).float()

    def _times(self, timesteps: Any) -> Tensor:
        """Our times of diffusers', `()` for a single one."""
        t = torch.as_tensor(timesteps, device="cpu").detach().to("cpu", torch.float64) + 1
        return t.reshape(()) if t.numel() == 1 else t
