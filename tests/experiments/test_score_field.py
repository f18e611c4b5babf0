"""The score's field: it holds, and notices a wrong score, denoiser and time."""

from dataclasses import replace

import pytest

from diffusion_math.densities.checkerboard import Checkerboard
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.toy import DENSITIES
from experiments.score_field import run as score_field
from experiments.score_field.run import Config
from tests.support.result_schema import check

TINY = Config(density="ring", times=(1000,), samples=300)


def verdicts(config: Config) -> dict[str, str]:
    return {row.name: row.verdict for row in score_field.run(config).rows}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures and their curves, which what is tested does not touch."""
    monkeypatch.setattr(score_field, "_to_noise", lambda *_: [])
    for name in ("_field", "_denoised", "_noise_figure"):
        monkeypatch.setattr(score_field, name, lambda *_: "a figure")


def test_the_field_holds() -> None:
    result = score_field.run(TINY)
    check(result, "score-field")
    assert {row.verdict for row in result.rows} == {"holds"}
    assert [figure.name for figure in result.figures] == [
        "score-field.png",
        "score-field-denoiser.png",
        "score-field-noise.png",
    ]
    # The cosine table leaves less of the data at T than the others, and its score is nearer -x.
    last = {name: line[-1]["value"] for name, line in result.data["distance_from_noise"].items()}
    assert last["cosine"] < last["linear"] < last["scaled_linear"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", DENSITIES)
def test_it_holds_for_every_density_from_the_first_time_on(name: str) -> None:
    """False alarm 1e-8 each, which is the experiment's own."""
    config = replace(TINY, density=name, times=(1, 30, 300, 1000))
    assert set(verdicts(config).values()) == {"holds"}


@pytest.mark.usefixtures("undrawn")
def test_a_score_that_is_not_the_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the time before: only the denoiser, which needs no score, stays."""
    right = GaussianMixture.score
    monkeypatch.setattr(
        GaussianMixture, "score", lambda self, schedule, x, t: right(self, schedule, x, t - 1)
    )
    found = verdicts(replace(TINY, times=(300,)))
    assert found["score-field"] == "does not hold"
    assert found["score-field-tweedie"] == "does not hold"
    assert found["score-field-denoiser"] == "holds"


@pytest.mark.usefixtures("undrawn")
def test_a_score_of_the_wrong_sign_is_not_that_of_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    right = GaussianMixture.score
    monkeypatch.setattr(GaussianMixture, "score", lambda *given: -right(*given))
    assert verdicts(TINY)["score-field-noise"] == "does not hold"


@pytest.mark.usefixtures("undrawn")
def test_a_denoiser_that_is_not_the_mean_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """x_t itself, shrunk back, in the mean's place: Tweedie fails, and so do the drawn pairs."""
    monkeypatch.setattr(
        Checkerboard, "posterior_mean", lambda _, schedule, x, t: x / schedule(t)[0]
    )
    found = verdicts(Config(density="checkerboard", times=(300,), samples=1000))
    assert found["score-field-tweedie"] == "does not hold"
    assert found["score-field-denoiser"] == "does not hold"
    assert found["score-field"] == "holds"
