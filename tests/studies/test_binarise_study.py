import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "circuits"))

from hand_wired import Corpus
from hand_wired.quote_closer import plant
from present import present

from wirework.circuits import prune
from wirework.circuits.validation import checks
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.files import read_record
from wirework.model import load
from wirework.studies import binarise
from wirework.studies.binarise import circuit_folders, rows_of

QUICK = PruneConfig(
    trials=1, parallel=1, steps=30, batch_pairs=8, eval_pairs=16, lr=1e-2, k_coef=1e-3,
    extra_rankings=(), mean_tokens=1000,
)  # fmt: skip


def record(model: str, task: str, loss: float, n_weights: int = 1000) -> dict[str, Any]:
    return {
        "model": f"runs/{model}", "fingerprint": model, "task": task, "n_weights": n_weights,
        "n_nonzero": 100, "circuit": loss / 2, "start": 2 * loss, "loss": loss,
    }  # fmt: skip


class TestRows:
    def test_means_by_hand_over_all_circuits_and_over_shared_tasks(self) -> None:
        first, second = rows_of([
            record("large", "quotes", 0.1, 4000), record("small", "quotes", 0.4),
            record("small", "brackets", 0.6), record("large", "loops", 0.5, 4000),
        ])  # fmt: skip
        assert (first.model, second.model) == ("runs/small", "runs/large")
        assert (first.n_circuits, first.loss, first.circuit, first.start) == (2, 0.5, 0.25, 1.0)
        assert second.loss == pytest.approx(0.3)
        assert first.n_shared == second.n_shared == 1
        assert (first.shared_loss, second.shared_loss) == (0.4, 0.1)

    def test_without_a_shared_task_nothing_is_shared(self) -> None:
        rows = rows_of([record("a", "quotes", 0.1), record("b", "loops", 0.2)])
        assert [(row.n_shared, row.shared_loss) for row in rows] == [(0, None), (0, None)]

    def test_means_and_sums_over_prompts_are_not_compared(self) -> None:
        sums = record("b", "quotes", 0.2) | {"loss_reduction": "sum"}
        assert rows_of([sums])[0].loss_reduction == "sum"
        with pytest.raises(InputError, match="give circuits of one kind"):
            rows_of([record("a", "quotes", 0.1), sums])


class TestCircuitFolders:
    def test_circuits_are_found_below_a_folder_once_each(self, tmp_path: Path) -> None:
        for name in ("b/two", "a/one"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "circuit.json").touch()
        expected = [tmp_path / "a" / "one", tmp_path / "b" / "two"]
        assert circuit_folders([tmp_path]) == expected
        assert circuit_folders([expected[1], tmp_path]) == expected[::-1]

    def test_a_place_without_circuits_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no circuit at .*: no circuit\.json"):
            circuit_folders([tmp_path])
        with pytest.raises(InputError, match="no circuit was given"):
            circuit_folders([])


def test_circuits_are_binarised_once_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted = plant()
    model = load(planted.model.save(tmp_path / "model"))
    corpus = Corpus(model.tokenizer, planted.task)
    circuit = prune(model, planted.task, QUICK, data=corpus, progress=False)
    circuit.save(tmp_path / "circuits" / "quotes")
    (tmp_path / "circuits" / "broken").mkdir()
    (tmp_path / "circuits" / "broken" / "circuit.json").write_text("{}")
    out = tmp_path / "study"
    result = binarise([tmp_path / "circuits"], out, progress=False)
    (row,) = result.models
    assert (row.n_weights, row.n_nonzero) == model.transformer.weight_counts()
    assert row.loss == present(row.shared_loss) < 0.05
    assert row.circuit < 0.15 < row.start
    assert len(result.failed) == 1
    assert "broken" in result.failed[0]
    assert "the study goes on" in capsys.readouterr().err
    assert Path(result.figure).stat().st_size > 1000
    assert read_record(Path(result.results))["models"] == [row.to_dict()]

    def fail(*_: object) -> None:
        raise AssertionError("the circuit was binarised again")

    monkeypatch.setattr(checks, "binarise", fail)
    assert binarise([tmp_path / "circuits"], out, progress=False) == result
    again = circuit.save(tmp_path / "circuits" / "0.05" / "quotes")
    with pytest.raises(InputError, match="are circuits of one task in one model: give one of them"):
        binarise([tmp_path / "circuits"], out, progress=False)
    shutil.rmtree(again)
    (tmp_path / "circuits" / "quotes" / "circuit.json").write_text("{}")
    with pytest.raises(InputError, match=r"no circuit can be binarised; .*quotes"):
        binarise([tmp_path / "circuits" / "quotes"], out, progress=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(InputError, match="is no study of binarisation"):
        binarise([tmp_path / "circuits"], tmp_path / "other", progress=False)
