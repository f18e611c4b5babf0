"""Training of the embedded model: text encoder, autoencoder, U-Net."""
