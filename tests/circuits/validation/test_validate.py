"""The report as a whole, on a planted circuit; each check has tests of its own in `checks/`."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from hand_wired.edge_masks import Corpus
from hand_wired.quote_closer import NODES
from present import present

from wirework.circuits import Circuit, NodeCircuit, held_out_losses, prune, prune_all, validate
from wirework.circuits.held_out import Pairs
from wirework.circuits.masking.saved_means import means_for, save_means
from wirework.circuits.node_assembly import standard_error
from wirework.circuits.pruning.search_folder import open_search
from wirework.circuits.validation.checks.adversarial_ablation import AdversarialAblation
from wirework.circuits.validation.checks.binarise import Binarised
from wirework.circuits.validation.checks.minimality import Minimality
from wirework.circuits.validation.checks.necessity import Necessity
from wirework.circuits.validation.context import ValidationContext
from wirework.circuits.validation.random_labels import random_labels
from wirework.circuits.validation.stability import Stability, stability
from wirework.circuits.validation.validate import check_circuit
from wirework.circuits.validation.validation_report import (
    RandomControl,
    Resampled,
    SearchedControl,
    ValidationReport,
)
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.files import locked, read_json
from wirework.model import Model
from wirework.summaries import NotMeasured
from wirework.tasks import Task, load_task
from wirework.tasks.task_split import parts_of

QUICK = PruneConfig(
    trials=3, parallel=3, steps=40, batch_pairs=8, eval_pairs=24, lr=1e-2, k_coef=1e-3,
    finalists=1, extra_rankings=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def circuit(wired: Model, task: Task, corpus) -> Circuit:
    return prune(wired, task, QUICK, data=corpus, progress=False)


@pytest.fixture(scope="module")
def report(circuit: Circuit, wired: Model, task: Task, corpus) -> ValidationReport:
    return validate(circuit, wired, task, data=corpus, runs=2)


class TestValidate:
    def test_a_planted_circuit_is_faithful_and_its_controls_are_not(
        self, report: ValidationReport
    ) -> None:
        assert report.faithful is True, report.reasons
        for control in (report.controls.random_labels, report.controls.shuffled_weights):
            assert isinstance(control, SearchedControl)
            assert control.reached is False
            assert control.verdict.faithful is False
            assert control.held_out.circuit > 0.3
            assert control.n_nodes > 0
        assert isinstance(report.controls.random_circuits, RandomControl)
        assert report.controls.random_circuits.n_sufficient == 0

    def test_every_part_is_there_and_is_json(
        self, report: ValidationReport, circuit: Circuit
    ) -> None:
        json.dumps(report.to_dict(), allow_nan=False)
        checks = [
            "judged", "held_out", "held_out_templates", "rephrased", "resampled", "interchange",
            "agreement", "coverage",
        ]  # fmt: skip
        assert list(report.to_dict()) == [
            "task", "target_loss", "loss_reduction", "n_nodes", "n_edges", "n_kept_edges", *checks,
            "adversarial_ablation", "binarised", "minimality", "necessity", "hypothesis_tests",
            "means", "stability", "controls", "verdict",
        ]  # fmt: skip
        controls = report.to_dict()["controls"]
        assert list(controls) == ["random circuits", "nonsense task", "shuffled weights"]
        about = ["task", "n_nodes", "n_edges", "n_kept_edges", "reached"]
        assert list(controls["nonsense task"]) == [*about, *checks, "verdict"]
        assert isinstance(report.minimality, Minimality)
        assert report.minimality.minimal is True
        assert report.coverage.n_edges == 3
        assert isinstance(report.necessity, Necessity)
        assert report.necessity.circuit[0] == pytest.approx(report.held_out.model, abs=1e-5)
        without = report.held_out.without_circuit
        assert report.necessity.circuit[-1] == pytest.approx(without, abs=1e-5)
        assert isinstance(report.binarised, Binarised)
        assert report.binarised.n_pairs == report.held_out.n_pairs
        means = present(report.means)
        assert means.n_tokens == present(circuit.document.provenance.mean_tokens)
        assert means.whole_text is True
        assert 0 < means.median_error < means.largest_error
        assert isinstance(report.resampled, Resampled)
        assert report.resampled.adversarial >= report.resampled.stochastic
        adversary = report.adversarial_ablation
        assert isinstance(adversary, AdversarialAblation)
        assert adversary.means == pytest.approx(report.held_out.circuit, abs=0.01)
        assert adversary.per_prompt >= adversary.per_node >= adversary.worst_draw
        assert adversary.limit == pytest.approx((0.15 + report.held_out.chance) / 2)
        assert (adversary.steps, adversary.n_pairs) == (100, 16)

    def test_a_planted_circuit_comes_back_in_every_run(self, report: ValidationReport) -> None:
        repeated = report.stability
        assert isinstance(repeated, Stability)
        assert repeated.runs == 2
        assert repeated.reached == (True, True)
        assert (repeated.n_reached, repeated.edge_share) == (2, 1.0)
        assert repeated.edge_shares == (1.0, 1.0, 1.0)
        assert repeated.node_shares == (1.0,) * len(NODES)
        assert repeated.overlap == (1.0, 1.0)

    @pytest.mark.usefixtures("few_random_circuits")
    def test_what_needs_text_says_so_where_there_is_none(self, circuit, wired, task) -> None:
        report = validate(circuit, wired, task)
        controls = report.controls
        entries = (
            report.resampled,
            report.adversarial_ablation,
            controls.random_labels,
            controls.shuffled_weights,
        )
        reasons = [entry.reason for entry in entries if isinstance(entry, NotMeasured)]
        assert len(reasons) == 4
        assert all("no training text for this model" in reason for reason in reasons)
        assert report.faithful is None
        levels = present(report.verdict.levels)
        assert levels.robust.met is None
        assert any(reason.startswith("not checked under resampling") for reason in report.reasons)

    def test_runs_are_for_the_whole_report(self, circuit, wired, task) -> None:
        with pytest.raises(InputError, match="no training text for this model"):
            validate(circuit, wired, task, runs=1)
        with pytest.raises(InputError, match="makes no searches: leave out short or the 2 runs"):
            validate(circuit, wired, task, short=True, runs=2)

    def test_verdict_only_is_the_short_report_with_all_that_the_verdict_reads(
        self, report: ValidationReport, circuit: Circuit, wired: Model, task: Task, corpus
    ) -> None:
        brief = validate(circuit, wired, task, data=corpus, verdict_only=True)
        assert brief.verdict == report.verdict
        levels = present(brief.verdict.levels)
        for level in (levels.sufficient, levels.specific, levels.robust, levels.minimal):
            assert level.met is True
        assert brief.binarised is brief.necessity is brief.adversarial_ablation is None
        assert brief.minimality == report.minimality
        with pytest.raises(InputError, match="leave one of the two out"):
            validate(circuit, wired, task, short=True, verdict_only=True)
        with pytest.raises(InputError, match="runs must be 0 or more, got -1"):
            validate(circuit, wired, task, runs=-1)

    def test_without_its_controls_nothing_is_called_faithful(
        self, circuit, wired, task, corpus
    ) -> None:
        report = validate(circuit, wired, task, data=corpus, short=True)
        assert report.faithful is None
        for entry in ("adversarial_ablation", "binarised"):
            assert getattr(report, entry) is None
            assert entry not in report.to_dict()

    @pytest.mark.usefixtures("few_random_circuits")
    def test_paths_stand_for_a_circuit_a_model_and_a_task(
        self, circuit, wired, task, tmp_path
    ) -> None:
        folder, model = circuit.save(tmp_path / "quote"), wired.save(tmp_path / "model")
        pairs = tmp_path / "mine.jsonl"
        more = load_task("single_double_quote", n=40, seed=1)
        pairs.write_text("".join(json.dumps(asdict(pair)) + "\n" for pair in more.pairs))
        expected = validate(circuit, wired, load_task(pairs), short=True)
        assert validate(str(folder), str(model), str(pairs), short=True) == expected
        assert validate(folder, model, pairs, short=True) == expected
        assert held_out_losses(folder, model, pairs) == expected.held_out
        assert circuit.evaluate(model, pairs) == circuit.evaluate(wired, load_task(pairs))

    def test_what_is_calibrated_is_not_reported_where_it_was_fitted(
        self, circuit, wired, task
    ) -> None:
        report = validate(circuit, wired, task, short=True)
        assert "circuit_calibrated" not in present(report.judged).to_dict()
        losses = circuit.losses
        fresh = report.held_out
        assert fresh.circuit_calibrated == pytest.approx(losses.circuit_calibrated, abs=1e-6)
        assert fresh.circuit == pytest.approx(losses.circuit_held_out, abs=1e-6)

    @pytest.mark.slow
    @pytest.mark.usefixtures("few_random_circuits")
    def test_minimality_freezes_as_the_search_did(self, wired, task, corpus) -> None:
        config = QUICK.model_copy(update={"ablation": "resample"})
        found = prune(wired, task, config, data=corpus, progress=False)
        by_means = prune(wired, task, QUICK, data=corpus, progress=False)
        assert by_means.edges == found.edges
        drawn, rested = (validate(one, wired, task, data=corpus) for one in (found, by_means))
        assert isinstance(drawn.minimality, Minimality)
        assert isinstance(rested.minimality, Minimality)
        assert drawn.minimality.minimal is rested.minimality.minimal is True
        pairs = zip(drawn.minimality.losses, rested.minimality.losses, strict=True)
        assert all(worst >= mean for worst, mean in pairs)
        assert drawn.minimality.losses != rested.minimality.losses


class TestStability:
    def test_overlap_is_of_edges_by_their_ends(self, circuit, wired, task, corpus) -> None:
        document = circuit.document.model_copy(update={"edges": circuit.edges[:2]})
        fewer = replace(circuit, document=document)
        found = stability(fewer, wired, task, QUICK, corpus, 1)
        assert found.edge_shares == (1.0, 1.0)
        assert found.overlap == (pytest.approx(2 / 3),)

    def test_a_run_that_misses_the_target_brings_nothing_back(
        self, circuit, wired, task, corpus
    ) -> None:
        hard = QUICK.model_copy(update={"target_loss": 1e-9, "trials": 1, "steps": 2})
        found = stability(circuit, wired, task, hard, corpus, 1)
        assert (found.reached, found.n_reached, found.edge_share) == ((False,), 0, 0.0)
        assert found.n_edges[0] > 3
        assert found.edge_shares == (0.0, 0.0, 0.0)
        assert found.overlap == (0.0,)


def test_the_error_of_a_mean_by_hand() -> None:
    assert standard_error(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(1 / 3**0.5)
    assert standard_error(torch.tensor([2.0])) == 0


def test_one_held_out_pair_is_enough_for_a_report(circuit, wired, task, corpus) -> None:
    more = load_task("single_double_quote", n=120, seed=1)
    one = replace(more, generated=False, pairs=more.pairs[:1])
    pairs = Pairs(task, None, one, task.take(task.pairs[:8]))
    checks = check_circuit(ValidationContext.of(circuit, wired, pairs, corpus), short=False)
    assert checks.held_out.n_pairs == 1
    assert checks.held_out.circuit_error == 0
    assert isinstance(checks.binarised, Binarised)
    assert (checks.binarised.n_train_pairs, checks.binarised.n_pairs) == (8, 1)


class TestPruneAll:
    @pytest.mark.slow
    def test_many_tasks_are_pruned_in_one_call_that_goes_on(
        self, wired, task, corpus, tmp_path
    ) -> None:
        other = replace(random_labels(task, wired, 0), name="random labels")
        rows = prune_all(wired, [task, other], tmp_path, QUICK, data=corpus, progress=False)
        assert rows[0]["n_edges"] == 3
        assert rows[0]["verdict"] == "open"
        assert (rows[0]["sufficient"], rows[0]["minimal"]) == ("met", "open")
        assert "own task loss" in rows[1]["reason"]
        saved = tmp_path / task.name
        assert NodeCircuit.load(saved).n_edges == 3
        assert (
            json.loads((tmp_path / f"{task.name}.report.json").read_text())["target_loss"] == 0.15
        )
        table = (tmp_path / "results.md").read_text()
        assert f"| {task.name} | 5 | 3 |" in table
        assert json.loads((tmp_path / "results.json").read_text())["rows"] == rows
        before = (saved / "circuit.json").stat().st_mtime_ns
        assert prune_all(wired, [task, other], tmp_path, QUICK, data=corpus, progress=False) == rows
        beside = tmp_path / "beside"
        assert rows == prune_all(wired, [task, other], beside, QUICK, data=corpus, jobs=2)
        assert read_json(beside / "results.json") == read_json(tmp_path / "results.json")
        assert (saved / "circuit.json").stat().st_mtime_ns == before
        changed = QUICK.model_copy(update={"target_loss": 0.2})
        prune_all(wired, [task], tmp_path, changed, data=corpus, progress=False)
        assert (saved / "circuit.json").stat().st_mtime_ns > before
        with pytest.raises(InputError, match="different names"):
            prune_all(wired, [task, task], tmp_path, QUICK, data=corpus, progress=False)

    @pytest.mark.slow
    @pytest.mark.usefixtures("few_random_circuits")
    def test_means_of_another_text_are_another_search(self, wired, task, corpus, tmp_path) -> None:
        def written(text: Corpus) -> int:
            prune_all(wired, [task], tmp_path, QUICK, data=text, progress=False)
            return (tmp_path / task.name / "circuit.json").stat().st_mtime_ns

        first = written(corpus)
        assert written(corpus) == first
        other = Corpus(wired.tokenizer, task.take(task.pairs[:40]))
        second = written(other)
        assert second > first
        assert Circuit.load(tmp_path / task.name).document.provenance.means == other.fingerprint
        assert len(list((tmp_path / f"{task.name}.search").iterdir())) == 2
        save_means(tmp_path, means_for(wired, corpus, 1).first, wired)
        placed = Model(wired.transformer, wired.tokenizer, tmp_path)
        times = []
        for _ in range(2):  # with the means beside the model
            prune_all(placed, [task], tmp_path, QUICK, progress=False)
            times.append((tmp_path / task.name / "circuit.json").stat().st_mtime_ns)
        assert second < times[0] == times[1]

    @pytest.mark.slow
    @pytest.mark.usefixtures("few_random_circuits")
    def test_damaged_files_beside_the_circuits_are_told_of(
        self, wired, task, corpus, tmp_path
    ) -> None:
        prune_all(wired, [task], tmp_path, QUICK, data=corpus, progress=False)
        for name in ("results.json", f"{task.name}.report.json"):
            whole = (tmp_path / name).read_text()
            for content in ("[]", "{}", "{", whole.replace('"held_out": ', '"held_out": 1', 1)):
                (tmp_path / name).write_text(content)
                with pytest.raises(
                    InputError, match=rf"{name} is (damaged.*delete it|not valid JSON)"
                ):
                    prune_all(wired, [task], tmp_path, QUICK, data=corpus, progress=False)
            (tmp_path / name).write_text(whole)

    @pytest.mark.usefixtures("few_random_circuits")
    def test_a_search_in_use_is_no_fault_of_the_task(self, wired, task, corpus, tmp_path) -> None:
        search = tmp_path / f"{task.name}.search"
        split = parts_of(task, QUICK.eval_pairs, QUICK.seed)
        folder = open_search(search, wired, task, split, QUICK, corpus.fingerprint)
        with locked(folder / "lock", "it"), pytest.raises(InputError, match="in use by another"):
            prune_all(wired, [task], tmp_path, QUICK, data=corpus, progress=False)
        assert (
            prune_all(wired, [task], tmp_path, QUICK, data=corpus, progress=False)[0]["n_edges"]
            == 3
        )
