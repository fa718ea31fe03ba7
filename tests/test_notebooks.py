"""The notebooks of `examples/` hold the outputs of a run; `make notebook-test` runs them."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
ids = [path.stem for path in NOTEBOOKS]


def test_there_are_notebooks():
    assert {"read_a_circuit", "self_ablation", "train_and_prune"} <= set(ids)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_a_notebook_is_stored_executed_and_says_nothing_of_the_machine(path: Path):
    cells = json.loads(path.read_text())["cells"]
    ran = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert ran == list(range(1, len(ran) + 1))
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not any(output["output_type"] == "error" for output in outputs)
    texts = json.dumps([output for output in outputs if "image/png" not in output.get("data", {})])
    assert not re.search(r"/(home|root|tmp|usr|work|Users)/", texts)
