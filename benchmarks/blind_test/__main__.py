"""Calibrate the verdict of `validate`, or let it sort circuits whose kind it is not told.

    python -m benchmarks.blind_test calibrate --out DIR [--run RUN]
    python -m benchmarks.blind_test sort --out DIR [--run RUN]

RUN is a run of `recipes/demo.yaml`; without it there are circuits of hand-wired models only. The
same command resumes a stopped one. One thread.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import torch

from benchmarks.blind_test import calibrate, sort
from benchmarks.machine import this_machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("calibrate", "sort"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("wirework").setLevel("ERROR")  # searches without a mechanism find none
    options.out.mkdir(parents=True, exist_ok=True)
    print(this_machine().line(), flush=True)
    if options.part == "calibrate":
        measured = calibrate.result(calibrate.measure(options.out / "records.jsonl", options.run))
        _write(options.out / "calibration.json", measured)
        print(calibrate.in_words(measured))
    else:
        sorted_ = sort.sort(options.out, options.run)
        _write(options.out / "sorted.json", sorted_)
        print(sort.in_words(sorted_))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
