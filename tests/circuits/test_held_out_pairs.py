"""The pairs of a circuit that a user's function made."""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hand_wired.circuits import circuit_of
from hand_wired.quote_closer import plant

from wirework.circuit_format import Document
from wirework.circuits import Circuit, find_attacks, validate
from wirework.circuits.held_out import pairs_of
from wirework.errors import InputError
from wirework.model import Model
from wirework.tasks import load_task

MINE = """
from pathlib import Path
from random import Random
from wirework.tasks import load_task

log = Path(__file__).with_name("ran")
log.write_text(log.read_text() + "x" if log.exists() else "x")
known = load_task("single_double_quote", n=1000).pairs

def make(rng):
    return rng.choice(known)

def others(rng):
    return rng.choice(load_task("single_double_quote", seed=1, n=100).pairs)
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path}/mine.py:make"


@pytest.fixture
def found(mine: str) -> tuple[Circuit, Model]:
    """A circuit of a function's pairs, drawn with a seed and number of their own."""
    planted = plant()
    task = load_task(mine, seed=3, n=64)
    circuit = circuit_of(replace(planted, task=task))
    assert circuit.document.task.path == mine
    Path(mine.partition(":")[0]).with_name("ran").unlink()
    return circuit, planted.model


def has_run(mine: str) -> bool:
    return Path(mine.partition(":")[0]).with_name("ran").exists()


def test_a_function_in_circuit_json_is_not_run(found, mine: str) -> None:
    circuit, model = found
    with pytest.raises(InputError, match=r"not run.*name it yourself: --task '.*mine\.py:make'"):
        validate(circuit, model, short=True)
    with pytest.raises(InputError, match=r"not run.*name it yourself: --task"):
        find_attacks(circuit, model, progress=False)
    with pytest.raises(InputError, match=r"not run.*name it yourself: --own-task"):
        validate(circuit, model, load_task("single_double_quote", seed=9, n=64), short=True)
    assert not has_run(mine)


def test_a_module_in_circuit_json_is_not_imported(found, tmp_path, monkeypatch) -> None:
    circuit, model = found
    monkeypatch.syspath_prepend(tmp_path)
    about = circuit.document.task.model_copy(update={"path": "mine:make"})
    strange = replace(circuit, document=circuit.document.model_copy(update={"task": about}))
    with pytest.raises(InputError, match="name it yourself: --task 'mine:make'"):
        validate(strange, model, short=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", [None, ""])
def test_a_function_in_the_place_of_a_name_is_not_run(found, mine: str, path: str | None) -> None:
    circuit, model = found
    about = circuit.document.task.model_copy(update={"path": path, "name": mine})
    strange = replace(circuit, document=circuit.document.model_copy(update={"task": about}))
    with pytest.raises(InputError, match=r"not run.*name it yourself: --task"):
        validate(strange, model, short=True)
    assert not has_run(mine)


@pytest.mark.slow
def test_the_function_that_the_user_names_gives_the_same_report_as_before(found, mine) -> None:
    circuit, model = found
    own = load_task(mine, seed=3, n=64)
    report = validate(circuit, model, own, short=True)
    assert report["judged"]["n_pairs"] == circuit.document.task.n_pairs
    assert report == validate(circuit, model, own_task=own, short=True)
    # by its name alone, as on the command line, the pairs are drawn again with the circuit's seed
    assert report == validate(circuit, model, own_task=load_task(mine), short=True)
    other = load_task(mine.replace(":make", ":others"), n=64)
    held_out = validate(circuit, model, other, own_task=own, short=True)["held_out"]
    assert held_out["n_pairs"] > 0
    assert find_attacks(circuit, model, load_task(mine), pairs=4, progress=False).points


def test_a_task_that_is_not_the_circuits_own(found) -> None:
    circuit, model = found
    other = load_task("for_while", n=64)
    with pytest.raises(InputError, match="for_while is not the one that the circuit was found for"):
        validate(circuit, model, own_task=other, short=True)


def test_other_templates_of_the_same_pairs_are_told_of() -> None:
    planted = plant()
    circuit, task = circuit_of(planted), planted.task
    assert pairs_of(circuit.document, planted.model, task).judge is not None
    labels = reversed([pair.template for pair in task.pairs])
    relabelled = [
        replace(pair, template=label) for pair, label in zip(task.pairs, labels, strict=True)
    ]
    with pytest.raises(InputError, match="gives other training and judging pairs"):
        pairs_of(circuit.document, planted.model, task.take(relabelled))


def test_a_function_that_gives_other_pairs_now_is_told_of(found, mine) -> None:
    circuit, model = found
    path = Path(mine.partition(":")[0])
    path.write_text(MINE.replace("n=1000", "n=900, seed=7"))
    with pytest.raises(InputError, match="gives other pairs now"):
        validate(circuit, model, load_task(mine, n=64), short=True)


def text_places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where a JSON value holds text."""
    if isinstance(value, str):
        yield place
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from text_places(inner, (*place, name))


def test_no_text_of_circuit_json_makes_a_function_run(found, mine: str) -> None:
    circuit, model = found
    plain = circuit.document.to_json()
    places = [place for place in text_places(plain) if "examples" not in place]
    assert ("task", "path") in places
    assert ("task", "name") in places
    for path in (mine, None):
        for place in places:
            values = deepcopy(plain)
            values["task"]["path"] = path
            inner = values
            for name in place[:-1]:
                inner = inner[name]
            inner[place[-1]] = mine
            with suppress(InputError):
                pairs_of(Document.of_json(values, "circuit.json"), model, None)
            assert not has_run(mine), place
