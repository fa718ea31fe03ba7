"""Explained neurons as one HTML file."""
