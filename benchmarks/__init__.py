"""Timings of this project beside those of its peers."""
