"""Training of the embedded model: the text encoder, then the autoencoder, then the U-Net."""
