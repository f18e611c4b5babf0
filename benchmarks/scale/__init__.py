"""What the computations cost against their sizes: measured on this machine, modelled beyond it."""
