"""Load and save checkpoints of Stable Diffusion v1 and v2."""

from sd.checkpoint import lora, textual_inversion
from sd.checkpoint.loader import Loaded, load
from sd.checkpoint.loading_report import LoadingReport
from sd.checkpoint.network import load_controlnet, load_unet
from sd.checkpoint.saver import save_folder, save_single

__all__ = [
    "Loaded",
    "LoadingReport",
    "load",
    "load_controlnet",
    "load_unet",
    "lora",
    "save_folder",
    "save_single",
    "textual_inversion",
]
