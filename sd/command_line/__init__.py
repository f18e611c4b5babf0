"""TODO: sd/command_line."""
