"""`python -m sd.train NAME`: train the embedded model, one network after the other, or all."""

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import nn

from diffusion_math.schedule import Discrete
from sd import weights
from sd.config import SHAPES
from sd.text_encoder import TextEncoder
from sd.tokenizer import Tokenizer
from sd.train.clip import CLIPTraining, train_clip
from sd.train.unet import UNetTraining, train_unet
from sd.train.vae import VAETraining, pictures, psnr, standardise, train_vae
from sd.unet import UNet
from sd.vae import VAE
