"""The folder that `steer` writes: `steering.json`, `steering.safetensors`, `checksums.json`.

The tensors are the directions of the circuit's nodes in the steered model, by the name of the node.
`steering.json` says at which residual location each acts, so that a forward hook of any framework
can use them (docs/bridges.md).
"""

from pathlib import Path

import torch

from wirework import files
from wirework.bridges.bridged import Bridged
from wirework.bridges.steering_report import SteeringReport

FORMAT = "wirework-steering"
VERSION = 1
JSON, TENSORS, PICTURE = "steering.json", "steering.safetensors", "steering.png"


def save_steering(report: SteeringReport, bridged: Bridged, folder: Path) -> None:
    """Write a steering report, its directions and its figure, whole or not at all.

    Args:
        report: result of `steer`.
        bridged: the models that it is about.
        folder: the folder, replaced if wirework wrote it.

    Raises:
        InputError: the folder cannot be written, or holds other files.
    """
    from wirework.view.figures.figure_canvas import write_png
    from wirework.view.figures.figure_steering import draw_steering

    model = bridged.dense if report.target == "dense" else bridged.sparse
    values = report.to_dict()
    directions = {name: torch.tensor(vector) for name, vector in values.pop("directions").items()}
    about = {
        "format": FORMAT,
        "version": VERSION,
        "model": {"path": str(model.path), "fingerprint": model.fingerprint},
        **values,
    }
    with files.atomic_dir(folder) as partial:
        files.write_record(partial / JSON, about)
        files.save_tensors(partial / TENSORS, directions, {"format": FORMAT})
        write_png(draw_steering(about), partial / PICTURE)


def check_steering_folder(folder: Path) -> None:
    """Make sure, before the work, that a folder can be written.

    Raises:
        InputError: it holds files that `steer` did not write, or cannot be written.
    """
    files.check_folder(folder, "a steering report", (JSON, TENSORS, PICTURE))
