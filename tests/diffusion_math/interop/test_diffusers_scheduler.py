"""The scheduler for diffusers: the samples of our own loop, call by call, whatever its caller does.

`predict` stands for the network: of x and diffusers' time, neither odd nor linear in x.
"""

import json
import pickle
import sys
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from diffusion_math import interop
from diffusion_math.denoiser import from_eps, from_v, from_x0
from diffusion_math.grid import GRIDS
from diffusion_math.noise import from_generator, zeros
from diffusion_math.sample import final
from diffusion_math.schedule import Discrete
from diffusion_math.solvers.one_step import ddim
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.solvers.step import State
from tests.support.edited_loop import edited
from tests.support.scheduler_configs import SD15, SD21

diffusers = pytest.importorskip("diffusers")

from diffusion_math.interop import DiffusersScheduler  # noqa: E402

STEPS = 8
FIXED = [name for name in SOLVERS if name != "adaptive"]
DENOISERS = {"epsilon": from_eps, "v_prediction": from_v, "sample": from_x0}
WEIGHT = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
START = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))


def predict(x, time):
    scale = 0.5 + 0.001 * time.reshape(-1, 1).to(x)
    return scale * torch.tanh(x @ WEIGHT.to(x) / 2 + 0.2) + 0.3 * x


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


def sampled(scheduler, x, times, edit=None, **options):
    """What a pipeline does with these times."""
    for i, t in enumerate(times):
        output = predict(scheduler.scale_model_input(x, t), t.expand(len(x)))
        x = scheduler.step(output, t, x, **options, return_dict=False)[0]
        if edit is not None and i + 1 < len(times):
            x = edit(x)
    return x


def made(solver, grid="karras", steps=STEPS, **config):
    scheduler = DiffusersScheduler(solver, grid, **config)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize(
    ("grid", "kind"),
    [
        ("karras", "epsilon"),
        ("trailing", "v_prediction"),
        *(
            pytest.param("karras", kind, marks=pytest.mark.slow)
            for kind in DENOISERS
            if kind != "epsilon"
        ),
    ],
)
@pytest.mark.parametrize("solver", FIXED)
def test_samples_are_those_of_our_own_loop(solver, grid, kind):
    scheduler = made(solver, grid, prediction_type=kind)
    denoise = DENOISERS[kind](predict, scheduler.schedule)
    times = GRIDS[grid](scheduler.schedule, STEPS)
    step = SOLVERS[solver](scheduler.schedule)
    wanted = final(step, denoise, START, times, from_generator(seeded()))
    for _ in range(2):  # a second run on the same times too
        got = sampled(scheduler, START, scheduler.timesteps, generator=seeded())
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    assert scheduler.order == SOLVERS[solver].calls
    least = scheduler.order * (STEPS - 1) + 1
    assert least <= len(scheduler.timesteps) == len(scheduler.sigmas) - 1


@pytest.mark.parametrize("skipped", [1, pytest.param(3, marks=pytest.mark.slow), STEPS - 1])
@pytest.mark.parametrize("solver", FIXED)
def test_a_start_in_the_middle_is_our_own_loop_from_there(solver, skipped):
    scheduler = made(solver)
    times = scheduler.timesteps[skipped * scheduler.order :]  # as image-to-image does it,
    scheduler.set_begin_index(skipped * scheduler.order)  # and then tells the scheduler
    assert scheduler.begin_index == skipped * scheduler.order and scheduler.step_index is None
    nodes = scheduler.nodes[skipped:]
    start, noise = START, from_generator(seeded())
    if solver == "edm_churn" and skipped < STEPS - 1:  # its first noise is in the sample already
        (alpha, _), (told, _) = (scheduler.schedule(t) for t in (nodes[0], times[0] + 1))
        assert times[0] + 1 > nodes[0]
        start, drawn = START * float(alpha / told), []

        def noise(x, t, s):
            drawn.append(t)
            return zeros(x, t, s) if len(drawn) == 1 else from_noise(x, t, s)

        from_noise = from_generator(seeded())
    denoise = from_eps(predict, scheduler.schedule)
    wanted = final(SOLVERS[solver](scheduler.schedule), denoise, start, nodes, noise)
    got = sampled(scheduler, START, times, generator=seeded())
    torch.testing.assert_close(got, wanted, rtol=2e-5, atol=2e-5)
    assert scheduler.step_index == len(scheduler.timesteps)


@pytest.mark.parametrize("solver", [name for name in FIXED if name != "edm_churn"])
def test_a_sample_that_is_changed_between_calls_stays_changed(solver):
    kept = torch.tensor([True, False, False])

    def edit(x):
        return torch.where(kept, 0.9, x)

    scheduler = made(solver)
    wanted = edited(
        SOLVERS[solver](scheduler.schedule),
        from_eps(predict, scheduler.schedule),
        START,
        scheduler.nodes,
        lambda x, t: edit(x) if t > 0 else x,
        from_generator(seeded()),
    )
    got = sampled(scheduler, START, scheduler.timesteps, edit, generator=seeded())
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    plain = sampled(scheduler, START, scheduler.timesteps, generator=seeded())
    assert (got - plain)[:, 1:].abs().max() > 1e-3


def test_churn_takes_a_change_after_its_noise():
    scheduler = made("edm_churn")
    got = sampled(scheduler, START, scheduler.timesteps, lambda x: x + 0.1, generator=seeded())
    run = made("edm_churn")
    told = [t for t, _ in pairwise([*run.timesteps, None])]
    state, noise = State(START, run.nodes[0]), from_generator(seeded())
    for k, (t, s) in enumerate(pairwise(run.nodes)):
        if k:
            (alpha, _), (high, _) = run.schedule(t), run.schedule(told[2 * k].double() + 1)
            state = replace(state, x=state.x + 0.1 * float(alpha / high))
        asked = []

        def denoise(x, t, asked=asked):
            asked.append(t)
            return from_eps(predict, run.schedule)(x + 0.1 * (len(asked) > 1), t)

        state = SOLVERS["edm_churn"](run.schedule)(denoise, state, t, s, noise)
    torch.testing.assert_close(got, state.x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    scheduler = made("dpmpp_3m")
    wanted = sampled(scheduler, START.double(), scheduler.timesteps)
    got = sampled(scheduler, START.to(dtype), scheduler.timesteps)
    assert got.dtype == dtype
    off = (got.double() - wanted).abs().max() / wanted.abs().max()
    assert off < 20 * torch.finfo(dtype).eps


def test_one_generator_for_each_sample():
    scheduler = made("dpmpp_2m_sde")
    pair = sampled(scheduler, START, scheduler.timesteps, generator=[seeded(1), seeded(2)])
    for i in range(2):
        alone = sampled(scheduler, START[i : i + 1], scheduler.timesteps, generator=seeded(i + 1))
        torch.testing.assert_close(pair[i : i + 1], alone, rtol=1e-5, atol=1e-5)


def test_eta_is_that_of_ddim_alone():
    scheduler = made("ddim")
    denoise = from_eps(predict, scheduler.schedule)
    wanted = final(
        ddim(scheduler.schedule, 0.5), denoise, START, scheduler.nodes, from_generator(seeded())
    )
    got = sampled(scheduler, START, scheduler.timesteps, eta=0.5, generator=seeded())
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="eta: wanted 0 with heun, got"):
        made("heun").step(START, 999, START, eta=0.5)


@pytest.mark.parametrize("copied", [deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("calls", [0, 4])
def test_a_copy_goes_on_from_where_it_was_made(copied, calls):
    scheduler = made("dpmpp_sde")
    generator = seeded()
    times = scheduler.timesteps
    x = START
    for t in times[:calls]:
        x = scheduler.step(predict(x, t), t, x, generator=generator).prev_sample
    other, state = copied(scheduler), generator.get_state()
    ends = []
    for one in (scheduler, other):
        generator.set_state(state)
        ends.append(sampled(one, x, times[calls:], generator=generator))
    assert torch.equal(*ends)


def test_an_abandoned_run_leaves_nothing():
    scheduler = made("dpmpp_3m")
    fresh = sampled(scheduler, START, scheduler.timesteps)
    sampled(scheduler, START, scheduler.timesteps[:5])
    with pytest.raises(ValueError, match=r"timestep: wanted .*, or set_timesteps anew, got 999"):
        sampled(scheduler, START, scheduler.timesteps)
    scheduler.set_timesteps(STEPS)
    assert torch.equal(sampled(scheduler, START, scheduler.timesteps), fresh)


@pytest.mark.parametrize("config", [SD15, SD21], ids=["1.5", "2.1"])
def test_from_the_published_configs(config, tmp_path):
    scheduler = DiffusersScheduler.from_config(config, solver="dpmpp_3m", grid="karras")
    theirs = getattr(diffusers, config["_class_name"]).from_config(config)
    torch.testing.assert_close(scheduler.alphas_cumprod, theirs.alphas_cumprod)
    torch.testing.assert_close(scheduler.betas, theirs.betas)
    assert scheduler.config.prediction_type == config.get("prediction_type", "epsilon")
    assert (scheduler.config.solver, scheduler.config.grid) == ("dpmpp_3m", "karras")
    assert len(scheduler) == 1000 and scheduler.init_noise_sigma == 1
    assert torch.equal(scheduler.timesteps, torch.arange(1000).flip(0))
    abar = theirs.alphas_cumprod.flip(0)
    torch.testing.assert_close(scheduler.sigmas[:-1], (1 / abar - 1).sqrt(), rtol=1e-4, atol=0)
    scheduler.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text(encoding="utf-8"))
    assert saved["_class_name"] == "DiffusersScheduler" and saved["steps_offset"] == 1
    loaded = DiffusersScheduler.from_pretrained(tmp_path)
    runs = [scheduler, loaded, DiffusersScheduler.from_config(scheduler.config)]
    for one in runs:
        one.set_timesteps(STEPS)
    ends = [sampled(one, START, one.timesteps) for one in runs]
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])
    back = diffusers.EulerDiscreteScheduler.from_config(scheduler.config)
    assert back.config.prediction_type == scheduler.config.prediction_type
    torch.testing.assert_close(back.alphas_cumprod, theirs.alphas_cumprod)


def test_a_config_keeps_the_defaults_of_its_own_class():
    theirs = diffusers.DDPMScheduler()
    ours = DiffusersScheduler.from_config(theirs.config)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod)
    assert ours.config.clip_sample
    ours.set_timesteps(2)
    assert ours.step(100 * START, 999, START).pred_original_sample.abs().max() == 1


def test_noise_and_velocity_are_those_of_diffusers():
    theirs = diffusers.DDPMScheduler.from_config(SD15)
    ours = DiffusersScheduler.from_config(SD15)
    noise = START.flip(1)
    for times in (torch.tensor([3, 700]), torch.tensor([999])):
        for method in ("add_noise", "get_velocity"):
            got, wanted = (getattr(one, method)(START, noise, times) for one in (ours, theirs))
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert ours.add_noise(START, noise, torch.tensor(5.5)).shape == START.shape


def test_own_times_and_levels():
    scheduler = DiffusersScheduler("heun")
    scheduler.set_timesteps(timesteps=[999, 500, 100])
    assert scheduler.nodes.tolist() == [1000, 501, 101, 0]
    assert scheduler.timesteps.tolist() == [999, 500, 500, 100, 100]
    assert scheduler.num_inference_steps == 3
    levels = [14.0, 3.0, 0.5]
    for given in (levels, [*levels, 0.0]):
        scheduler.set_timesteps(sigmas=given)
        torch.testing.assert_close(scheduler.sigmas[[0, 2, 4, 5]], torch.tensor([*levels, 0.0]))
    published = diffusers.schedulers.AysSchedules
    scheduler.set_timesteps(timesteps=published["StableDiffusionTimesteps"])
    assert scheduler.timesteps[::2].tolist() == published["StableDiffusionTimesteps"]
    scheduler.set_timesteps(sigmas=published["StableDiffusionSigmas"])  # the first is above T's
    assert scheduler.nodes[0] == 1000 and len(scheduler.nodes) == 11
    for wrong in ({}, {"num_inference_steps": 3, "timesteps": [1]}):
        with pytest.raises(ValueError, match="set_timesteps: wanted one of num_inference_steps"):
            scheduler.set_timesteps(**wrong)


def test_a_start_is_found_by_its_time():
    scheduler = made("heun")
    wanted = made("heun")
    wanted.set_begin_index(6)
    times = scheduler.timesteps[6:]
    assert torch.equal(sampled(scheduler, START, times), sampled(wanted, START, times))
    assert torch.equal(*(sampled(one, START, one.timesteps) for one in (scheduler, made("heun"))))
    with pytest.raises(ValueError, match="a time at which a step starts, got 7"):
        made("heun").step(START, 7, START)
    scheduler = made("pndm")
    with pytest.raises(ValueError, match="set_begin_index, as the solver's start"):
        scheduler.step(START, scheduler.timesteps[-3], START)


def test_a_start_so_late_that_the_solver_needs_fewer_calls():
    scheduler = made("pndm")
    times = scheduler.timesteps[STEPS - 1 :]
    scheduler.set_begin_index(STEPS - 1)
    assert len(set(times.tolist())) == 1 and len(times) > 1
    x = scheduler.step(predict(START, times[0]), times[0], START).prev_sample
    assert torch.equal(x, START)


def test_what_is_wrong_is_said():
    for given, match in (
        ({"solver": "adaptive"}, "solver: wanted one of ddpm, .*, got 'adaptive'"),
        ({"grid": "mine"}, "grid: wanted one of leading, .*, got 'mine'"),
        ({"prediction_type": "flow"}, "prediction_type: wanted one of epsilon, .*, got 'flow'"),
        ({"thresholding": True}, "thresholding: wanted False"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"snr_shift_scale": 3.0}, "snr_shift_scale"),
        ({"beta_schedule": "mine"}, "beta_schedule"),
    ):
        with pytest.raises(ValueError, match=match):
            DiffusersScheduler(**given)
    with pytest.raises(ValueError, match="step: wanted set_timesteps before it"):
        DiffusersScheduler().step(START, 999, START)
    with pytest.raises(ValueError, match="begin_index: wanted a multiple of 2 below 1, after"):
        DiffusersScheduler("heun", trained_betas=[0.1]).set_begin_index(0)
    for begin in (-2, 3, 15, 16):
        with pytest.raises(ValueError, match=f"begin_index: .* below 15, .* got {begin}"):
            made("heun").set_begin_index(begin)
    with pytest.raises(ValueError, match="model_output: wanted shape"):
        made("heun").step(torch.zeros(2, 6), 999, START)


class Without:
    """An environment without diffusers, for `sys.meta_path`."""

    def find_spec(self, name, path, target=None):
        if name == "diffusers":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_the_package_says_what_to_install(monkeypatch):
    for name in [*sys.modules]:
        if name.startswith(("diffusers", "diffusion_math.interop.diffusers")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(interop, "diffusers_scheduler", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Without(), *sys.meta_path])
    with pytest.raises(ImportError, match=r'pip install "diffusion-math\[diffusers\]"'):
        interop.DiffusersScheduler  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'Else'"):
        interop.Else  # noqa: B018


def test_the_schedule_is_ours():
    scheduler = DiffusersScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    wanted = Discrete.scaled_linear().zero_terminal_snr()
    assert torch.equal(scheduler.schedule.betas, wanted.betas)


def test_a_small_sample_in_place_of_a_large_one_is_exact():
    scheduler = made("ddim", "trailing")
    x = scheduler.step(torch.full((1, 3), 1e9), 999, torch.full((1, 3), 1e9)).prev_sample
    assert x.abs().min() > 1e6
    small, t = START[:1], scheduler.timesteps[1]
    got = scheduler.step(predict(small, t), t, small).prev_sample
    wanted = made("ddim", "trailing").step(predict(small, t), t, small).prev_sample
    assert torch.equal(got, wanted)
