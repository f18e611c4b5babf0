"""Packages of the peers: asked for before any work."""

import importlib.util

EXTRA = "bench"


def require_packages(*names: str) -> None:
    """Raise ValueError, which names the extra that has them, unless all packages are installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    install = f"pip install 'diffusion-math[{EXTRA}]'"
    if missing:
        raise ValueError(f"not installed: {', '.join(missing)}; {install}")
