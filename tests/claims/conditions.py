"""Wrong versions."""
