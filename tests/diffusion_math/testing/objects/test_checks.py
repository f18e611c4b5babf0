"""`of` and `assert_diffusion`: processes as others write them pass, and what is wrong is named."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_math import testing
from diffusion_math.testing import MistakeError, UncheckedWarning, assert_diffusion, of
from diffusion_math.testing.assertions.schedule_table import TABLES
from diffusion_math.testing.objects.names import FUNCTIONS, PARAMETERS, TABLE_NAMES
from tests.support.diffusions import BETAS, Buffers, Gaussian, OneTime

pytestmark = [
    pytest.mark.usefixtures("unchecked"),  # many calls; shapes have tests of their own
    pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning"),  # of diffusers'
]

SAMPLED = ("step", "p_sample", "p_losses")


def names(thing: Any, **options: Any) -> list[str]:
    return [check.name for check in of(thing, **options) if check.run is not None]


@pytest.mark.parametrize(
    ("thing", "count"),
    [(Gaussian(), 19), (Buffers(), 13), (OneTime(), 5)],
    ids=lambda one: type(one).__name__,
)
def test_right_processes_pass(thing: Any, count: int) -> None:
    assert len(names(thing, skip=SAMPLED)) == count
    assert_diffusion(thing, skip=SAMPLED)


@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [
        ("DDPMScheduler", None),
        ("DDIMScheduler", None),
        ("LCMScheduler", None),
        ("LMSDiscreteScheduler", None),
        ("HeunDiscreteScheduler", 20),
        ("EulerAncestralDiscreteScheduler", 20),
        ("DPMSolverMultistepScheduler", 20),
        ("UniPCMultistepScheduler", 25),
        ("EDMEulerScheduler", None),
        ("FlowMatchEulerDiscreteScheduler", None),
    ],
)
def test_diffusers_schedulers_pass(scheduler: str, steps: int | None) -> None:
    thing = getattr(diffusers, scheduler)()
    if steps is not None:
        thing.set_timesteps(steps)
    assert_diffusion(thing, skip=SAMPLED)
    assert {"add_noise", "scale_noise"} & set(names(thing))


def test_euler_s_velocity_is_that_of_the_mirrored_time() -> None:
    """`index_for_timestep` counts timesteps from the noisiest, alphas_cumprod from clean data."""
    with pytest.raises(MistakeError) as caught:
        assert_diffusion(diffusers.EulerDiscreteScheduler(), skip=SAMPLED)
    assert str(caught.value).splitlines()[:2] == [
        "EulerDiscreteScheduler: 1 of 5 formulas wrong",
        "get_velocity, v_from_x0_and_eps: wrong",
    ]
    (one,) = caught.value.mistakes
    assert (
        one.name == "every coefficient is its right value of the index counted from the other end"
    )


def test_sigmas_that_do_not_belong_to_the_timesteps_are_told() -> None:
    checks = of(diffusers.KDPM2DiscreteScheduler())
    (one,) = (check for check in checks if check.name == "add_noise")
    assert one.reason.startswith("its noise levels are not read from sigmas (times: wanted")


WRONG: dict[str, tuple[str, Callable[[Gaussian], Any], str]] = {
    "alphas_cumprod_prev": (
        "alphas_cumprod_prev",
        lambda g: np.append(g.alphas_cumprod[0], g.alphas_cumprod[:-1]),
        "the alphas_cumprod_prev is its right value, with the first level where clean data belongs",
    ),
    "posterior_variance": (
        "posterior_variance",
        lambda g: g.betas,
        "the posterior_variance is beta",
    ),
    "sqrt_recipm1_alphas_cumprod": (
        "sqrt_recipm1_alphas_cumprod",
        lambda g: 1 / g.alphas_cumprod - 1,
        "the sqrt_recipm1_alphas_cumprod is (its right value)^2",
    ),
    "q_sample": (
        "sqrt_one_minus_alphas_cumprod",
        lambda g: 1 - g.alphas_cumprod,
        "the coefficient of noise is sigma^2, the variance",
    ),
    "q_posterior_mean_variance": (
        "posterior_mean_coef1",
        lambda g: g.betas * np.sqrt(g.alphas_cumprod) / (1 - g.alphas_cumprod),
        "the coefficient of x0 is",
    ),
    "_predict_eps_from_xstart": (
        "sqrt_recip_alphas_cumprod",
        lambda g: 1 / g.alphas_cumprod,
        "the coefficient of x_t in eps_from_x0 is",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_named_where_it_is_used(name: str) -> None:
    table, value, said = WRONG[name]
    thing = Gaussian()
    setattr(thing, table, value(thing))
    (check,) = (check for check in of(thing) if check.name == name)
    with pytest.raises(MistakeError) as caught:
        check()
    assert any(one.name.startswith(said) for one in caught.value.mistakes), str(caught.value)


def test_a_wrong_loss_is_named() -> None:
    thing = Gaussian()
    thing.model_mean_type = SimpleNamespace(name="START_X")
    with pytest.raises(MistakeError) as caught:
        assert_diffusion(thing, skip=SAMPLED)
    (one,) = caught.value.mistakes
    assert one.name == "the target is eps, where x0 is predicted"
    with pytest.raises(MistakeError, match="the target is eps, where v is predicted"):
        assert_diffusion(Gaussian(), predicts="v", skip=SAMPLED)


def test_losses_of_other_kinds_are_left_to_the_caller() -> None:
    for attribute, value in (("loss_type", "KL"), ("model_var_type", "LEARNED_RANGE")):
        thing = Gaussian()
        setattr(thing, attribute, SimpleNamespace(name=value))
        (loss,) = (check for check in of(thing) if check.name == "training_losses")
        assert loss.reason == f"its {attribute} is {value}"


def test_all_that_fails_is_told_at_once() -> None:
    thing = Gaussian()
    thing.sqrt_alphas_cumprod = thing.alphas_cumprod
    thing.posterior_variance = thing.betas
    with pytest.raises(MistakeError) as caught:
        assert_diffusion(thing, skip=SAMPLED)
    text = str(caught.value)
    for name in ("sqrt_alphas_cumprod", "posterior_variance", "q_sample", "training_losses"):
        assert f"\n{name}: wrong" in text
    assert text.startswith("Gaussian: 7 of 19 formulas wrong\n")


def test_code_that_raises_is_a_failure_of_one_line() -> None:
    thing = Gaussian()
    thing.q_sample = lambda x_start, t, noise: x_start[99]  # type: ignore[assignment, method-assign]
    (check,) = (check for check in of(thing) if check.name == "q_sample")
    with pytest.raises(AssertionError, match=r"^q_sample: raised IndexError: .*$"):
        check()


def test_what_nothing_checks_is_listed_and_warns() -> None:
    checks = of(Buffers())
    unchecked = {check.name: check.reason for check in checks if check.run is None}
    assert unchecked == {"p_losses": "it has no parameter for network among x_start, t, noise"}
    assert "  p_losses                        not checked: it has no parameter" in str(checks)
    with pytest.warns(UncheckedWarning, match=r"^p_losses: not checked: it has no parameter for"):
        [check() for check in checks if check.name == "p_losses"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_diffusion(Buffers(), skip=["p_losses"])


ABAR = torch.tensor(np.cumprod(1 - BETAS))


def test_numpy_one_time_and_positions_are_styles() -> None:
    abar = ABAR.numpy()
    kinds: list[Callable[..., Any]] = [
        lambda x0, t, noise: np.sqrt(abar[t])[:, None] * x0 + np.sqrt(1 - abar[t])[:, None] * noise,
        lambda x0, t, noise: abar[t] ** 0.5 * x0 + (1 - abar[t]) ** 0.5 * noise,
        lambda t, noise, x0, /: ABAR[t].sqrt() * x0 + (1 - ABAR[t]).sqrt() * noise,
        lambda x0, t, noise: (
            ABAR[t, None, None, None, None].sqrt() * x0
            + (1 - ABAR[t, None, None, None, None]).sqrt() * noise
        ),
    ]
    for q_sample in kinds:
        assert_diffusion(SimpleNamespace(alphas_cumprod=abar, q_sample=q_sample))
    with pytest.raises(MistakeError, match="noise is sigma\\^2, the variance"):
        assert_diffusion(
            SimpleNamespace(
                alphas_cumprod=abar,
                q_sample=lambda x0, t, noise: abar[t] ** 0.5 * x0 + (1 - abar[t]) * noise,
            )
        )


def test_noise_that_is_drawn_is_replaced() -> None:
    def q_sample(x0: Tensor, t: Tensor) -> Tensor:
        abar = ABAR[t, None]
        return abar.sqrt() * x0 + (1 - abar).sqrt() * torch.randn_like(x0)

    def loss(model: Any, x0: Tensor, t: Tensor) -> Tensor:
        noise = torch.randn_like(x0)
        abar = ABAR[t, None]
        return (noise - model(abar.sqrt() * x0 + (1 - abar).sqrt() * noise, t)).square().mean(1)

    assert_diffusion(SimpleNamespace(abar=ABAR, q_sample=q_sample, training_loss=loss))


@pytest.mark.parametrize("first", [0, 1])
def test_times_counted_from_another_number_are_mapped(first: int) -> None:
    def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        abar = ABAR[t - 1, None]
        return abar.sqrt() * x0 + (1 - abar).sqrt() * noise

    thing = SimpleNamespace(alpha_bar=ABAR, q_sample=q_sample)
    if first == 1:
        assert_diffusion(thing, first=1)
        assert "times 1 to 40, noise levels of alpha_bar" in str(of(thing, first=1))
    else:
        with pytest.raises(MistakeError, match="of index t - 1, where -1 is the last"):
            assert_diffusion(thing)


def test_an_entry_of_clean_data_is_left_out() -> None:
    with_clean = torch.cat([torch.ones(1).double(), ABAR])
    thing = SimpleNamespace(alpha_bar=with_clean, betas=np.append(0.0, BETAS))
    assert str(of(thing)).startswith("SimpleNamespace: times 1 to 40, noise levels of alpha_bar")
    assert_diffusion(thing)


def test_betas_alone_give_the_noise_levels() -> None:
    thing = SimpleNamespace(betas=BETAS.tolist(), sqrt_alphas_cumprod=ABAR.sqrt())
    assert names(thing) == ["betas", "sqrt_alphas_cumprod"]
    assert_diffusion(thing)
    thing = SimpleNamespace(betas=[*BETAS[:3], 1.5])
    with pytest.raises(AssertionError, match=r"betas: levels\(3\): wanted finite alpha >= 0"):
        assert_diffusion(thing)


def test_a_class_is_no_instance() -> None:
    class Diffusion:
        alphas_cumprod = ABAR

    with pytest.raises(ValueError, match=r"thing: wanted an instance, such as Diffusion\(\), got"):
        assert_diffusion(Diffusion)


def test_an_object_of_unknown_names_is_not_passed_in_silence() -> None:
    thing = SimpleNamespace(alphas_cumprod=ABAR, noise_it=lambda x0, t, noise: x0)
    with pytest.warns(UncheckedWarning, match="nothing is compared: no name of a formula is known"):
        assert_diffusion(thing)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_loss_of_a_network_that_comes_later_is_checked(wrong: bool) -> None:
    class Diffusion:
        model: Any = None
        alphas_cumprod = ABAR

        def p_losses(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            abar = ABAR[t, None]
            x_t = abar.sqrt() * x0 + (1 - abar).sqrt() * noise
            target = x0 if wrong else noise
            return (self.model(x_t, t) - target).square().mean()

    if wrong:
        with pytest.raises(MistakeError, match="the target is x0, where eps is predicted"):
            assert_diffusion(Diffusion())
    else:
        assert_diffusion(Diffusion())


@pytest.mark.parametrize("first", [None, 0, 1])
def test_a_table_with_clean_data_beside_betas_without(first: int | None) -> None:
    """The time of the first entry with noise is 1, or what is said."""
    with_clean = torch.cat([torch.ones(1).double(), ABAR])
    shift = 1 if first == 0 else 0

    def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        abar = with_clean[t + shift, None]
        return abar.sqrt() * x0 + (1 - abar).sqrt() * noise

    thing = SimpleNamespace(abar=with_clean, betas=BETAS, q_sample=q_sample)
    options = {} if first is None else {"first": first}
    assert_diffusion(thing, **options)
    low = 1 if first is None else first
    assert f"times {low} to {low + 39}," in str(of(thing, **options))


def test_levels_of_the_caller_s_are_taken() -> None:
    flow = SimpleNamespace(
        add_noise=lambda x0, noise, t: (1 - t[:, None] / 10) * x0 + t[:, None] / 10 * noise
    )
    levels = lambda t: (1 - t / 10, t / 10)  # noqa: E731
    assert_diffusion(flow, levels=levels, times=range(1, 11))
    with pytest.raises(ValueError, match="levels: wanted levels and times, or neither"):
        of(flow, levels=levels)
    with pytest.raises(ValueError, match=r"thing: wanted an object with .*, got SimpleName"):
        of(flow)


def test_tables_of_different_lengths_are_told() -> None:
    thing = SimpleNamespace(alphas_cumprod=ABAR, betas=BETAS[:-1])
    with pytest.raises(AssertionError, match="betas: wanted 40 entries, as many as alphas_cumprod"):
        assert_diffusion(thing)


def test_names_are_known_once_and_parameters_are_all_known() -> None:
    methods = [name for function in FUNCTIONS for name in function.names]
    tables = [name for known in TABLE_NAMES.values() for name in known]
    assert len({*methods, *tables}) == len(methods) + len(tables)
    assert TABLE_NAMES.keys() <= TABLES.keys()
    assert {what for function in FUNCTIONS for what in function.takes} == PARAMETERS.keys()


def test_checks_are_a_sequence_for_parametrize() -> None:
    checks = of(OneTime())
    assert len(checks) == 5 and str(checks[0]) == "betas" and checks[:2] == checks.checks[:2]
    assert isinstance(checks, testing.FormulaChecks)
