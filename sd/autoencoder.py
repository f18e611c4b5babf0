"""What the pipeline asks of a VAE."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from sd.networks.vae import Latent

__all__ = ["Autoencoder"]


@runtime_checkable
class Autoencoder(Protocol):
    """Pictures in [-1, 1] to the distribution of their latents, and latents to pictures."""

    def encode(self, x: Tensor) -> Latent: ...

    def decode(self, z: Tensor) -> Tensor: ...
