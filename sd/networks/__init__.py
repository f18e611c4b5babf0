"""TODO: sd/networks."""
