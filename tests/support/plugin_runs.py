"""Runs of the pytest plugin in a project of their own."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "pytest_diffusion_math"

FOUR = """
import pytest

@pytest.mark.diffusion(limits={"bound": "it has order 1"}, defects={"wrong": "issue 3"})
def mine():
    def sound(): pass
    def bound(): assert 1 > 2, "order 0.9"
    def wrong(): assert False, "sigma^2"
    def other(): assert False, "a shifted index"
    return [sound, bound, wrong, other]
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project that has the plugin, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)
    return pytester


def run(project: pytest.Pytester, text: str, *options: str) -> pytest.RunResult:
    project.makepyfile(test_mine=text)
    return project.runpytest_inprocess("-p", PLUGIN, "-p", "no:xdist", *options)


def lines(result: pytest.RunResult) -> str:
    return result.stdout.str()
