"""E1 to E8: each holds, and none would if our function were the printed form."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_math import gaussian, langevin, langevin_law, loss, prediction
from diffusion_math.gaussian import Gaussian
from diffusion_math.schedule import Discrete
from experiments.common.statistics import kolmogorov_bound, variance_interval
from experiments.errata import erratum, reverse
from experiments.errata import run as errata
from experiments.errata.run import ERRATA
from experiments.output.result import Result
from experiments.verify.claims import ROOT, claims
from tests.support.result_schema import check

FEW = 1000
PAGE = ROOT / "docs" / "derivations" / "errata.md"
IDS = tuple(f"E{k}" for k in range(1, 9))


@pytest.fixture(scope="module")
def result() -> Result:
    return errata.run(errata.Config(samples=FEW))


def test_all_eight_hold(result: Result) -> None:
    """False alarm 8e-8, for 8 bounds at 1e-8; the seed is fixed."""
    check(result, "errata")
    assert [row.name for row in result.rows] == ["errata", *(f"errata-{id}" for id in IDS)]
    assert [row.verdict for row in result.rows] == ["holds"] * 9
    assert result.rows[0].measured == 8
    assert [figure.name for figure in result.figures] == [f"erratum-{id}.png" for id in IDS]
    for figure in result.figures:
        assert len(figure.image) < 120_000
    for off in result.data["errata"].values():
        assert off["true_off"] <= 1 < off["printed_off"]


def test_they_are_the_errata_of_the_claims(result: Result) -> None:
    """Ids and corrected claims are those of docs/claims.md."""
    shares_with_a_row = {claim.id: claim.of for claim in claims() if claim.id.startswith("E")}
    assert set(ERRATA) == set(shares_with_a_row)
    for row in result.rows[1:]:
        id, of = re.match(r"(E\d) \((.*?)\), printed: ", row.claim).groups()  # type: ignore[union-attr]
        assert row.name == f"errata-{id}"
        assert of == shares_with_a_row[id]


def nothing_left(self: Discrete, t: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """E1 as printed: abar_T falls to 0, here as 1 / (T + 1), whatever the betas."""
    abar = 1 / (torch.as_tensor(t, dtype=torch.float64) + 1)
    return abar.sqrt(), (1 - abar).sqrt()


def root_for_abar(self: Discrete, t: Any) -> torch.Tensor:
    """E2 as printed: (1/2)^{t/2} for abar_t."""
    abar = 0.5 ** (torch.as_tensor(t, dtype=torch.float64) / 2)
    return abar.log() - torch.log1p(-abar)


def along_a_path(step: Gaussian, before: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
    """E3 as printed: the product at one x_t in place of its integral."""
    k = len(line) // 2 + 20
    return Gaussian(step.mean[k].expand_as(line), step.variance).log_density(line).exp() * before[k]


def one_step_variance(schedule: Discrete, x0: torch.Tensor, t: Any) -> Gaussian:
    """E4 as printed: 1 - alpha_t = beta_t for 1 - abar_t."""
    time = torch.as_tensor(t)
    return Gaussian(schedule(t)[0] * x0, schedule.betas[time.long() - 1])


def between_0_and_1(schedule: Discrete, generator: torch.Generator, batch: int) -> torch.Tensor:
    """E5 as printed."""
    return torch.rand(batch, generator=generator, dtype=torch.float64)


def always_up(score: langevin.Score, delta: float) -> langevin.Move:
    """E6 as printed: a step that raises the likelihood whatever its size."""
    return ascent(score, min(delta, 1.9))


def the_target_itself(target: Gaussian, delta: float) -> Gaussian:
    """E7 as printed: the chain's limit is q."""
    return target


def unturned(schedule: Any, x_t: torch.Tensor, score: torch.Tensor, t: float) -> torch.Tensor:
    """E8 as printed: x - x_hat is eps, so that S is eps / sigma^2."""
    return schedule(t)[1].square() * score


ascent = langevin.ascent
PRINTED: dict[str, tuple[Any, str, Any]] = {
    "E1": (Discrete, "__call__", nothing_left),
    "E2": (Discrete, "log_snr", root_for_abar),
    "E3": (reverse, "integrated", along_a_path),
    "E4": (gaussian, "marginal", one_step_variance),
    "E5": (loss, "uniform_times", between_0_and_1),
    "E6": (langevin, "ascent", always_up),
    "E7": (langevin_law, "ula_stationary", the_target_itself),
    "E8": (prediction, "eps_from_score", unturned),
}


@pytest.mark.parametrize("id", IDS)
def test_the_printed_form_in_our_place_is_found_out(
    monkeypatch: pytest.MonkeyPatch, id: str
) -> None:
    monkeypatch.setattr(*PRINTED[id])
    found = ERRATA[id](FEW, 0)
    assert found.row().verdict == "does not hold"
    assert found.true_off > 1
    others = [one(FEW, 0) for name, one in ERRATA.items() if name == "E6" != id]
    assert errata._summary([found, *others]).verdict == "does not hold"


def test_not_a_number_holds_nothing() -> None:
    """A printed form that can't be told apart, or a number that isn't one, is no proof."""
    found = ERRATA["E6"](FEW, 0)
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    for wrong in ({"true_off": float("nan")}, {"printed_off": 1.0}, {"printed_off": float("nan")}):
        assert erratum.Erratum(**{**fields, **wrong}).verdict == "does not hold"
    assert erratum.Erratum(**fields).verdict == "holds"


def test_intervals_cover() -> None:
    """The variance's interval against chi-squared by hand; Kolmogorov's bound in closed form."""
    low, high = variance_interval(2.0, 11, 0.05)
    assert (low, high) == pytest.approx((20 / 20.4831774, 20 / 3.2469728), rel=1e-7)
    assert erratum.variance_off(2.0, high, 11, 0.05) == pytest.approx(1)
    assert erratum.variance_off(2.0, low, 11, 0.05) == pytest.approx(1)
    assert erratum.variance_off(2.0, 2.0, 11, 0.05) == 0
    assert kolmogorov_bound(200, 2 * 2.718281828459045**-4) == pytest.approx(0.1)


def test_the_page_has_all_eight_with_pictures_that_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = re.findall(r"^## (E\d)\b", text, re.M)
    assert sections == list(IDS)
    pictures = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)
    assert [Path(link).name for _, link in pictures] == [f"erratum-{id}.png" for id in IDS]
    for _, link in pictures:
        picture = PAGE.parent / link
        assert picture.is_file()
        assert picture.stat().st_size < 120_000
    tags = [int(k) for k in re.findall(r"\\tag\{errata\.(\d+)\}", text)]
    assert tags == list(range(1, len(tags) + 1))
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert (PAGE.parent / link).exists(), link


def test_the_page_names_functions_and_tests_that_prove_them() -> None:
    """Each section names the function and the test of one of its lines of the verification page."""
    text = PAGE.read_text(encoding="utf-8")
    text_of = (ROOT / "docs" / "verification.json").read_text(encoding="utf-8")
    rows = json.loads(text_of)["rows"]
    for part in text.split("\n## ")[1:]:
        of = [row for row in rows if row["id"] == part[:2]]
        assert of
        for row in of:
            assert row["function"].removeprefix("diffusion_math.") in part
            assert row["test"].rpartition("::")[2] in part
