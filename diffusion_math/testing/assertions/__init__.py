"""Assertions about somebody's own functions, each against exact values at every index."""
