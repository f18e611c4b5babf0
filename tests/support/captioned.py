"""Folders of small captioned images."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SAID = {"a.png": ["a"], "b.png": ["b"], "c.png": ["c"]}


def picture(seed: int, side: int = 8) -> np.ndarray:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def captioned(
    folder: Path,
    said: Mapping[str, Sequence[str]] = SAID,
    layout: str = "metadata.csv",
    side: int = 8,
) -> Path:
    """Write random images with these captions in a layout; images that are not named go."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for seed, name in enumerate(said):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(seed, side)).save(folder / name)
    pairs = [(name, text) for name, texts in said.items() for text in texts]
    with (folder / layout).open("w", encoding="utf-8", newline="") as file:
        if layout == "metadata.csv":
            csv.writer(file).writerows([("file_name", "text"), *pairs])
        elif layout == "metadata.jsonl":
            for name, texts in said.items():
                text = texts[0] if len(texts) == 1 else list(texts)
                file.write(json.dumps({"file_name": name, "text": text}) + "\n")
        else:
            file.writelines(f"{name}\t{text}\n" for name, text in pairs)
    return folder
