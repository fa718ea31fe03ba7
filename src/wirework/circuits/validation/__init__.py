"""Checks of a circuit, its controls and the verdict."""
