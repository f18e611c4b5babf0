"""TODO: sd/files."""
