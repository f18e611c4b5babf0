"""A reproducer of an audit, run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def said(script: Path, *paths: Path) -> tuple[int, str]:
    """The exit code of a script, and what it prints, run elsewhere with this project importable."""
    command = [sys.executable, "-W", "ignore", script.name]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT)))}
    done = subprocess.run(command, cwd=script.parent, env=env, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.strip()
