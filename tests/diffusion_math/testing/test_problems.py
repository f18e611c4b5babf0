"""The exact flow of the mixture, against its equation solved to 25 digits."""

import pytest
import torch

from diffusion_math.schedule import RectifiedFlow, VPLinear
from diffusion_math.testing.problems import MIXTURE, POINT, _f64, flow, point_denoiser, starts
from tests.support.tensors import f64

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes have tests of their own

FLOW = {
    0.75: (1.2313561406998788, 0.74172075406238686, -0.63710414346138263, 0.92627748579340798),
    0.309: (1.2274284071355782, 0.93120408266688247, -0.39990955537370777, 0.91891070630778054),
    0.1: (1.4090511496582077, 1.1278719482910694, -0.55159242209436515, 1.047648580822673),
    0.01: (1.5335729681990388, 1.2333235127200279, -0.61345561295299447, 1.1395065988331047),
}
"""Where du/dtau = (u - E[x_0 | u]) / tau leads from starts 0 and 11: mpmath.odefun, 25 digits."""


def test_numbers_are_doubles():
    assert torch.equal(_f64(0.1, 0.5), f64(0.1, 0.5))


def test_the_flow_solves_its_equation():
    """On rectified flow u = x and tau = t; to about 1e-10, as it says, and 1e-4 is of it."""
    found = flow(RectifiedFlow(), f64(*FLOW))
    assert found.shape == (len(FLOW), 16, 2)
    wanted = f64(*FLOW.values()).reshape(-1, 2, 2)
    assert torch.allclose(found[:, [0, 11]], wanted, rtol=0, atol=1e-10)
    assert flow(RectifiedFlow(), f64(1e-4)).isfinite().all()


def test_on_any_schedule_the_flow_is_the_same_but_for_its_scale():
    """x = (alpha + sigma) u at the time where sigma / (alpha + sigma) is tau."""
    schedule, tau = VPLinear(), f64(*FLOW)
    times = schedule.time(2 * ((1 - tau) / tau).log())
    alpha, sigma = schedule(times)
    wanted = (alpha + sigma)[:, None, None] * f64(*FLOW.values()).reshape(-1, 2, 2)
    assert torch.allclose(flow(schedule, times)[:, [0, 11]], wanted, rtol=0, atol=1e-10)


def test_the_flow_ends_at_a_tau_that_is_told():
    with pytest.raises(ValueError, match=r"^times: wanted tau of at least 0\.0001, got 9e-05$"):
        flow(RectifiedFlow(), f64(0.5, 9e-5, 2e-4))


def test_there_are_sixteen_starts():
    assert starts().shape == (16, 2) and starts().dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_denoiser_answers_in_the_dtype_of_x(dtype):
    x, t = torch.ones(3, 2, dtype=dtype), f64(0.5)[0]
    for exact in (point_denoiser, MIXTURE.denoiser(VPLinear())):
        assert exact(x, t).dtype == dtype
    assert torch.equal(point_denoiser(x, t), POINT.to(dtype).expand(3, 2))
