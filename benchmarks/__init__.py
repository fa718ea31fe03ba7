"""Speed and memory of wirework, measured against plain code: `python -m benchmarks`."""
