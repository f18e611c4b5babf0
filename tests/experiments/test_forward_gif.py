"""The forward animation: every density, frames in order, points where the contours are."""

import io
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from diffusion_math.densities.toy import DENSITIES
from experiments import plots
from experiments.densities import Name
from experiments.forward import run as forward
from experiments.forward.run import Config
from experiments.plots import plane
from tests.support.result_schema import check

TINY = Config(samples=100, times=(0, 5, 50), frames=3)


def test_the_animation_is_among_the_figures() -> None:
    result = forward.run(TINY)
    check(result, "forward")
    (figure,) = (one for one in result.figures if one.name == "forward.gif")
    picture = Image.open(io.BytesIO(figure.image))
    assert picture.n_frames == 3
    shots = []
    for k in range(3):
        picture.seek(k)
        shots.append(np.asarray(picture.convert("RGB")).astype(int))
    assert all(shot.shape == shots[0].shape for shot in shots)
    assert all(np.abs(one - two).max() > 100 for one, two in pairwise(shots))


@pytest.mark.slow
@pytest.mark.parametrize("name", DENSITIES)
def test_every_density_is_offered(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn are the points of the steps and the density of their own time.

    Each frame's density integrates to the share of q(x_t) in the window: 95% or more.
    """
    seen = []

    def moment(panels, reach, **size):  # type: ignore[no-untyped-def]
        (cloud,) = panels
        at, density = cloud.density
        share = density.sum() * (at[1] - at[0]) ** 2
        seen.append((cloud.title, cloud.points.copy(), float(share)))
        return Figure(figsize=(1, 1))

    monkeypatch.setattr(plane, "moment", moment)
    monkeypatch.setattr(plots, "png", lambda _: b"")
    result = forward.run(replace(TINY, density=name, times=(0, 1000)))
    assert name in get_args(Name)
    assert result.rows[0].verdict == "holds"
    titles = [title for title, _, _ in seen]
    assert titles == [
        "t = 0,  alpha = 1.00,  sigma = 0.00",
        "t = 250,  alpha = 0.82,  sigma = 0.57",
        "t = 1000,  alpha = 0.07,  sigma = 1.00",
    ]
    assert all(at.shape == (100, 2) for _, at, _ in seen)
    # The lattice's sum of a density is its integral to a thousandth where it is not sharp.
    assert all(0.93 < share < 1.02 for _, _, share in seen)
    # A hundred normals lie within five of the origin but once in 10^4; here the seed is fixed.
    assert np.abs(seen[-1][1]).max() < 5


def test_times_crowd_where_much_moves() -> None:
    shots = forward._frame_times(1000, 40)
    assert (shots[0], shots[-1], len(shots)) == (0, 1000, 40)
    gaps = np.diff(shots)
    assert (np.diff(gaps) >= -1).all()
    assert forward._frame_times(1, 40) == [0, 1]


def test_points_do_not_depend_on_the_frames() -> None:
    """More frames look more often at the same walk."""
    few, many = (forward.run(replace(TINY, frames=count)) for count in (2, 5))
    wanted = [one.image for one in few.figures if one.name == "forward-plane.png"]
    assert wanted == [one.image for one in many.figures if one.name == "forward-plane.png"]
