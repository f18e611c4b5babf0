"""Check an installed wheel: `check_wheel.py SITE ASSETS`.

SITE is the folder the wheel was installed in and must come first on the path; ASSETS holds the
NUL-separated names of the files the wheel must carry. Exits 1 with one line for the first thing
that is wrong.
"""

import importlib
import sys
from pathlib import Path

FORBIDDEN = ("transformers", "diffusers", "matplotlib", "PIL", "sd", "experiments")


def main(site: Path, listing: Path) -> None:
    names = [name for name in listing.read_text().split("\0") if name]
    if not any(name.endswith(".safetensors") for name in names):
        sys.exit("wheel: the checkout tracks no weights under sd/assets")
    lost = [name for name in names if not (site / name).is_file()]
    if lost:
        sys.exit(f"wheel: not carried: {', '.join(lost)}")

    primitives = importlib.import_module("diffusion_math")
    if not Path(str(primitives.__file__)).resolve().is_relative_to(site.resolve()):
        sys.exit(f"wheel: diffusion_math came from {primitives.__file__}, not from the wheel")
    brought = [name for name in FORBIDDEN if name in sys.modules]
    if brought:
        sys.exit(f"wheel: import diffusion_math brought {', '.join(brought)}")

    pipeline = importlib.import_module("sd.pipeline")
    pipeline.TextToImage.load("shapes")
    print(f"wheel: carries {len(names)} assets; the embedded model loads from {site}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
