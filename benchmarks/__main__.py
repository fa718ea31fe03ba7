"""Measure wirework against plain code, and compare with an earlier run.

    python -m benchmarks                        # all figures, in under 15 minutes on two cores
    python -m benchmarks --only step selection
    python -m benchmarks sweep                  # cost against density: studies/results/scaling.*
    python -m benchmarks --json now.json --compare before.json

One thread unless `--threads` says otherwise, and then CPU time, which hardly depends on what else
runs. Exit code 1 if a figure got slower than in the file of `--compare`.
"""

import sys

from benchmarks.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], __doc__ or ""))
