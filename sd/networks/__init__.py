"""The networks of Stable Diffusion: the U-Net, the VAE, the CLIP text encoder, and their layers."""
