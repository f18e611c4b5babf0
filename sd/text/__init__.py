"""TODO: sd/text."""
