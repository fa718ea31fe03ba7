"""The page of a circuit: one HTML file, or a local server."""
