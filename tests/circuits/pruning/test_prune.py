import json
import math
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from hand_wired.quote_closer import EDGES, NODES
from present import present
from safetensors.torch import load_file, save_file

from wirework.circuit_format import Document, Edge
from wirework.circuits import (
    Circuit,
    NodeCircuit,
    held_out_losses,
    prune,
    validate,
)
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.pruning.hyperparameter_search import Round, n_finished
from wirework.circuits.pruning.prune import PruningRun
from wirework.circuits.pruning.search_folder import open_search, read_candidates
from wirework.circuits.pruning.search_progress import Pace
from wirework.circuits.validation.stability import Stability
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.files import locked, verify_dir, write_json, write_sums
from wirework.model import Model
from wirework.summaries import NotMeasured
from wirework.tasks import Pair, Task, load_task
from wirework.tasks.task_split import parts_of

QUICK = PruneConfig(
    trials=3, parallel=2, steps=40, batch_pairs=8, eval_pairs=24, lr=1e-2, k_coef=1e-3
)


@pytest.fixture(scope="module")
def circuit(wired: Model, task: Task, corpus) -> NodeCircuit:
    return prune(wired, task, QUICK, data=corpus, progress=False)


class TestPrune:
    def test_the_planted_circuit_is_found_exactly(self, circuit: NodeCircuit) -> None:
        assert [(node.site, node.index) for node in circuit.nodes] == NODES
        assert [(edge.source, edge.target, edge.weight) for edge in circuit.edges] == EDGES
        assert (circuit.n_nodes, circuit.n_edges) == (5, 3)

    def test_under_resampled_values_the_same_circuit_is_found(
        self, circuit, wired, task, corpus
    ) -> None:
        config = QUICK.model_copy(update={"ablation": "resample"})
        found = prune(wired, task, config, data=corpus, progress=False)
        assert found.edges == circuit.edges
        assert found.losses.circuit == pytest.approx(circuit.losses.circuit, abs=1e-6)
        with pytest.raises(InputError, match="text"):
            prune(wired, task, config, progress=False)

    def test_its_losses_stand_beside_chance_and_model(self, circuit: NodeCircuit) -> None:
        losses = circuit.losses
        assert losses.model < 0.05
        assert circuit.task_loss == losses.circuit <= 0.15
        assert present(losses.circuit_calibrated) <= present(losses.circuit_held_out)
        assert losses.without_circuit > 0.6
        assert losses.chance == pytest.approx(math.log(2))

    def test_its_io_edges_are_the_quotes_and_the_answers(self, circuit: NodeCircuit) -> None:
        into = {(edge.target, edge.weight) for edge in circuit.io_edges if edge.token}
        assert into == {(0, 1.0), (0, -1.0), (1, 1.0)}
        out = {(edge.answer, edge.source, edge.weight) for edge in circuit.io_edges if edge.answer}
        assert out == {("')", 4, 3.0), ('")', 4, -3.0)}

    def test_the_same_call_gives_the_same_circuit(
        self, circuit, wired, task, corpus, tmp_path
    ) -> None:
        again = prune(wired, task, QUICK, data=corpus, progress=False)
        assert again.document == circuit.document
        assert torch.equal(again.activations, circuit.activations)

    def test_examples_are_what_the_circuit_does(
        self, circuit: NodeCircuit, wired: Model, task: Task
    ) -> None:
        examples = circuit.document.examples
        judge = parts_of(task, QUICK.eval_pairs, QUICK.seed).judge
        assert len(examples.prompts) == 32
        assert "".join(examples.prompts[0]) == judge.pairs[0].prompts[0]
        assert examples.answers[:2] == (("')", '")'), ('")', "')"))
        assert min(examples.logit_diff) > 0
        longest = max(len(prompt) for prompt in examples.prompts)
        assert circuit.activations.shape == (32, longest, 5)
        shortest = min(range(32), key=lambda i: len(examples.prompts[i]))
        assert not circuit.activations[shortest, len(examples.prompts[shortest]) :].any()
        # Node 0 reads which quote opened the string: its largest value has that quote's sign.
        for i in (0, 1):
            reading = circuit.activations[i, :, 0]
            assert reading[reading.abs().argmax()].sign() == (1 if i == 0 else -1)

    def test_a_model_that_cannot_do_the_task_is_told_so(
        self, random_model, wired, task, corpus
    ) -> None:
        with pytest.raises(
            InputError, match=r"own task loss \d.* does not reach the target 0\.0001"
        ):
            prune(random_model, task, QUICK, target_loss=1e-4, data=corpus, progress=False)
        with pytest.raises(InputError, match="no training text for this model"):
            prune(wired, task, QUICK, progress=False)
        with pytest.raises(InputError, match="has 3 pairs, at least 4 are needed"):
            parts_of(task.take(task.pairs[:3]), 128, 0)

    def test_a_target_above_chance_is_refused(self, wired, task, corpus) -> None:
        with pytest.raises(
            InputError, match=r"\(--target-loss\) 0.7 asks for nothing: a circuit .* 0.693"
        ):
            prune(wired, task, QUICK, target_loss=0.7, data=corpus, progress=False)

    @pytest.mark.slow
    def test_where_no_order_reaches_the_target_the_closest_is_kept(
        self, random_model, task, corpus
    ) -> None:
        hard = QUICK.model_copy(update={"target_loss": 1e-4, "allow_unreached": True})
        found = prune(random_model, task, hard, data=corpus, progress=False)
        assert not found.reached
        assert found.task_loss < found.losses.model - 1e-4

    def test_a_search_on_disk_gives_the_same_circuit_and_is_not_made_twice(
        self, circuit, wired, task, corpus, tmp_path, monkeypatch
    ) -> None:
        def again() -> NodeCircuit:
            return prune(wired, task, QUICK, data=corpus, search=tmp_path / "s", progress=False)

        def stop(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        tell = Round.tell
        monkeypatch.setattr(Round, "tell", stop)  # killed after the masks were written
        with pytest.raises(KeyboardInterrupt):
            again()
        monkeypatch.setattr(Round, "tell", tell)
        assert again().document == circuit.document
        monkeypatch.setattr("wirework.circuits.pruning.trials.learn_masks", stop)
        assert again().document == circuit.document
        (folder,) = (tmp_path / "s").iterdir()
        # The round that was killed counts once.
        assert len(read_candidates(folder)) == min(QUICK.finalists, n_finished(folder))
        (folder / "best.safetensors").unlink()
        with pytest.raises(InputError, match=f"delete {folder} to search anew"):
            again()

    def test_a_search_is_held_by_one_process(self, wired, task, corpus, tmp_path) -> None:
        split = parts_of(task, QUICK.eval_pairs, QUICK.seed)
        folder = open_search(tmp_path, wired, task, split, QUICK, corpus.fingerprint)
        with locked(folder / "lock", "it"), pytest.raises(InputError, match="in use by another"):
            prune(wired, task, QUICK, data=corpus, search=tmp_path, progress=False)

    @pytest.mark.parametrize("count", [4, 20])
    def test_a_batch_has_no_more_pairs_than_there_are(
        self, wired, task, corpus, tmp_path, count
    ) -> None:
        path = tmp_path / "mine.jsonl"
        pairs = [{"prompts": pair.prompts, "answers": pair.answers} for pair in task.pairs[:count]]
        path.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
        large = QUICK.model_copy(update={"batch_pairs": 32})
        found = prune(wired, path, large, data=corpus, progress=False)
        assert found.n_edges == 3
        assert found.document.task.n_all == count

    @pytest.mark.parametrize("count", [1, 3])
    def test_fewer_than_four_pairs_are_refused(self, wired, task, corpus, count) -> None:
        few = task.take(task.pairs[:count])
        few = replace(few, generated=False)
        with pytest.raises(InputError, match=rf"has {count} pairs?, at least 4 are needed"):
            prune(wired, few, QUICK, data=corpus, progress=False)

    def test_a_batch_has_no_more_pairs_than_there_are_to_train_on(
        self, wired, task, corpus
    ) -> None:
        few, large = task.take(task.pairs[:20]), QUICK.model_copy(update={"batch_pairs": 11})
        found = prune(wired, few, large, data=corpus, progress=False)
        exact = large.model_copy(update={"batch_pairs": 10})
        assert found.edges == prune(wired, few, exact, data=corpus, progress=False).edges

    @pytest.mark.slow
    def test_a_circuit_fitted_to_a_small_sample_is_made_again_until_others_accept_it(
        self, random_model, task, corpus, monkeypatch
    ) -> None:
        target = 0.77
        noisy = QUICK.model_copy(
            update={
                "mean_tokens": 80, "allow_unreached": True, "trials": 1, "target_loss": target,
                "seed": 6,
            }
        )  # fmt: skip
        found = prune(random_model, task, noisy, data=corpus, progress=False)
        assert found.reached
        assert max(found.losses.circuit, present(found.losses.circuit_searched)) <= target
        monkeypatch.setattr("wirework.circuits.pruning.second_sample._RETRIES", 0)
        first = prune(random_model, task, noisy, data=corpus, progress=False)
        assert present(first.losses.circuit_searched) <= target < first.losses.circuit
        assert not first.reached

    def test_losses_say_how_sure_they_are_and_on_which_pairs_they_are(
        self, circuit, wired, task
    ) -> None:
        losses, document = circuit.losses, circuit.document
        assert document.provenance.mean_source == "given text"
        assert document.provenance.mean_tokens > 1000
        assert document.task.n_held_out == 18
        assert document.loss_pairs == {
            "model": "judged", "circuit": "judged", "circuit_searched": "judged",
            "without_circuit": "judged", "circuit_error": "judged", "circuit_means_error": "judged",
            "circuit_calibrated": "held out", "circuit_held_out": "held out",
        }  # fmt: skip
        assert 0 < losses.circuit_means_error < 1e-4
        fresh = held_out_losses(circuit, wired)
        assert losses.circuit_held_out == pytest.approx(fresh.circuit, abs=1e-6)
        assert losses.circuit_calibrated == pytest.approx(fresh.circuit_calibrated, abs=1e-6)

    def test_a_finder_by_score_ends_in_the_same_circuit(self, circuit, wired, task, corpus) -> None:
        scored = QUICK.model_copy(update={"finder": "integrated_gradients"})
        found = prune(wired, task, scored, data=corpus, progress=False)
        assert (found.nodes, found.edges) != (circuit.nodes, circuit.edges)  # other scores
        assert [(n.site, n.index) for n in found.nodes] == NODES
        assert found.document.provenance.finder == "integrated_gradients"
        plain = QUICK.model_copy(
            update={"finder": "random", "clean_up": False, "prune_edges": False}
        )
        assert prune(wired, task, plain, data=corpus, progress=False).n_nodes > 5

    @pytest.mark.parametrize("changes", [{"tie_qk": True}, {"warm_start": "atp_star"}])
    def test_ties_and_warm_starts_find_it_too(self, wired, task, corpus, changes) -> None:
        found = prune(wired, task, QUICK.model_copy(update=changes), data=corpus, progress=False)
        assert [(node.site, node.index) for node in found.nodes] == NODES
        assert found.n_edges == 3


class TestEvaluate:
    def test_it_evaluates_on_other_pairs_of_its_model_only(
        self, circuit, wired, random_model, task
    ) -> None:
        assert circuit.evaluate(wired, task) == pytest.approx(circuit.task_loss, abs=0.05)
        with pytest.raises(InputError, match="belongs to another model: fingerprint"):
            circuit.evaluate(random_model, task)

    def test_nodes_and_edges_that_the_model_lacks_are_refused(self, circuit, wired, task) -> None:
        def altered(**changes: Any) -> NodeCircuit:
            return replace(circuit, document=circuit.document.model_copy(update=changes))

        *first, last = circuit.nodes
        beyond = altered(nodes=(*first, last.model_copy(update={"index": 999})))
        with pytest.raises(InputError, match=f"keeps node 999 of {last.site}, which has"):
            beyond.evaluate(wired, task)
        joined = altered(edges=(Edge(source=0, target=4, weight=1.0), *circuit.edges))
        assert (0, 4) not in {(edge.source, edge.target) for edge in circuit.edges}
        with pytest.raises(InputError, match="has an edge from node 0 to 4, the model none"):
            joined.evaluate(wired, task)


class TestHeldOutLosses:
    def test_validation_reports_pairs_that_nothing_was_fitted_to(
        self, circuit, wired, task
    ) -> None:
        report = validate(circuit, wired, task, short=True)
        assert present(report.judged).circuit == pytest.approx(circuit.task_loss, abs=1e-6)
        assert report.held_out.n_pairs == 18
        assert report.held_out.circuit < 0.2
        assert report.held_out.without_circuit > 0.6
        assert validate(circuit, wired, short=True) == report  # the built-in task is drawn again
        assert held_out_losses(circuit, wired) == report.held_out
        with pytest.raises(InputError, match="does not say where its model lies"):
            validate(circuit)

    def test_pairs_that_the_circuit_was_fitted_to_are_never_held_out(
        self, circuit, wired, task
    ) -> None:
        parts = parts_of(task, QUICK.eval_pairs, QUICK.seed)
        own = held_out_losses(circuit, wired)
        some = task.take((*parts.train.pairs[:9], *parts.held_out.pairs))
        report = validate(circuit, wired, some, short=True)
        assert report.held_out == own
        assert report.judged is None
        more = load_task("single_double_quote", n=120, seed=1)
        fresh = [pair for pair in more.pairs if pair not in task.pairs]
        losses = held_out_losses(circuit, wired, more.take((*fresh, *parts.train.pairs)))
        assert losses.n_pairs == len(fresh)
        halves = [
            Pair((old.prompts[0], new.prompts[1]), new.answers)
            for old, new in zip(parts.train.pairs, fresh, strict=False)
            if old.answers == new.answers
        ]
        assert halves
        assert held_out_losses(circuit, wired, more.take((*fresh, *halves))) == losses
        used = parts.train.pairs[:8]
        turned = [Pair(pair.prompts[::-1], pair.answers[::-1]) for pair in used]
        with pytest.raises(InputError, match="search has seen prompts of all 16 pairs: give other"):
            held_out_losses(circuit, wired, task.take((*used, *turned)))

    def test_what_was_fitted_to_must_be_known(self, circuit, wired, task, tmp_path) -> None:
        def changed(**part) -> NodeCircuit:
            about = circuit.document.task.model_copy(update=part)
            document = circuit.document.model_copy(update={"task": about})
            return replace(circuit, document=document)

        lost = changed(name="mine", path=str(tmp_path / "mine.jsonl"))
        with pytest.raises(InputError, match="is unknown: cannot read task"):
            held_out_losses(lost, wired, task.take(task.pairs[:20]))
        with pytest.raises(InputError, match="gives other pairs now"):
            held_out_losses(changed(seed=5), wired)
        with pytest.raises(
            InputError, match="judged on 90 pairs, but the split of its task's 96 pairs"
        ):
            held_out_losses(changed(n_pairs=90), wired, task)

    def test_a_circuit_of_another_finder_validates_too(self, circuit, wired, task) -> None:
        provenance = circuit.document.provenance.model_copy(update={"settings": {}})
        document = circuit.document.model_copy(update={"provenance": provenance})
        other = replace(circuit, document=document)
        assert held_out_losses(other, wired) == held_out_losses(circuit, wired)

    @pytest.mark.slow
    def test_a_circuit_of_pairs_that_share_prompts_is_validated(self, wired, task, corpus) -> None:
        generator = Random(0)
        firsts, seconds = zip(*(pair.prompts for pair in task.pairs[:64]), strict=True)
        drawn = {(generator.choice(firsts), generator.choice(seconds)) for _ in range(800)}
        pairs = tuple(Pair(pair, task.pairs[0].answers) for pair in sorted(drawn))
        shared = Task("shared", pairs)
        found = prune(wired, shared, QUICK, data=corpus, progress=False)
        report = validate(found, wired, shared, data=corpus, short=True)
        assert report["judged"]["n_pairs"] == found.document.task.n_pairs
        assert 0 < report["held_out"]["n_pairs"] < len(pairs) // 8


class TestSaveAndLoad:
    def test_a_saved_circuit_comes_back(
        self, circuit: NodeCircuit, wired: Model, task: Task, tmp_path
    ) -> None:
        folder = circuit.save(tmp_path / "quote")
        verify_dir(folder)
        again = NodeCircuit.load(folder)
        assert again.document == circuit.document
        assert torch.equal(again.activations, circuit.activations)
        assert again.means.keys() == circuit.means.keys()
        assert again.evaluate(wired, task) == circuit.evaluate(wired, task)
        circuit.save(folder)  # a circuit may be replaced
        values = json.loads((folder / "circuit.json").read_text())
        assert (values["n_nodes"], values["n_edges"]) == (5, 3)
        assert values["format"] == "wirework-circuit"

    def test_the_page_reads_what_save_wrote(self, circuit: NodeCircuit, tmp_path) -> None:
        from wirework.view import load_page_data

        assert len(load_page_data(circuit.save(tmp_path / "quote"))["nodes"]) == 5

    def test_folders_that_are_no_circuit(self, circuit: NodeCircuit, tmp_path) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match="exists and is not a circuit: not overwritten"):
            circuit.save(tmp_path / "full")
        with pytest.raises(InputError, match="no circuit at"):
            Circuit.load(tmp_path / "absent")

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"format": "other"}, "is not a circuit: expected format"),
            ({"version": 2}, "has version 2, this wirework reads up to 1"),
            ({"version": "new"}, "expected version 1, got 'new'"),
            ({"nodes": [{"site": 1}]}, r"nodes\.0\.site"),
            ({"nodes": [], "n_nodes": 0}, "an edge names node"),
            ({"share_runs": 0}, "share_runs"),
            ({"edges": [{"source": 0, "target": 1, "weight": 1, "share": 2}]}, "edges.0.share"),
            (
                {"edges": [{"source": 0, "target": 1, "weight": 1, "share": 1}]},
                "share_runs is missing",
            ),
            ({"edges": [{"source": 1, "target": 0, "weight": 1}] * 2}, "edges must be sorted"),
            ({"nodes": [{"site": "0.attn.act_in", "index": 1, "mean": 0}] * 2}, "nodes must be in"),
            ({"target_loss": 0.2}, "does not match its checksum"),
        ],
    )
    def test_damaged_documents_are_refused(self, circuit, tmp_path, changes, problem: str) -> None:
        folder = circuit.save(tmp_path / "quote")
        spoil(folder, **changes)
        with pytest.raises(InputError, match=problem):
            Circuit.load(folder)

    def test_damaged_tensors_are_refused(self, circuit: NodeCircuit, tmp_path) -> None:
        folder = circuit.save(tmp_path / "quote")
        (folder / "circuit.safetensors").write_bytes(b"\0" * 40)
        with pytest.raises(InputError, match=r"circuit\.safetensors does not match its checksum"):
            Circuit.load(folder)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda found: found.pop("means/0.attn.y"), r"expected means/0\.attn\.y .*, got None"),
            (lambda found: found.update({"means/9.attn.y": torch.zeros(4)}), "of no site"),
            (lambda found: found.update({"means/0.attn.q": torch.zeros(1)}), r"means/0\.attn\.q"),
            (lambda found: found["means/0.attn.act_in"].fill_(torch.nan), "not finite"),
            (lambda found: found["examples/activations"].fill_(torch.inf), "not finite"),
            (
                lambda found: found.update(
                    {"means/0.attn.act_in": found["means/0.attn.act_in"][:-1]}
                ),
                r"means/0\.attn\.act_in",
            ),
        ],
    )
    def test_tensors_that_do_not_fit_the_document_are_refused(
        self, circuit: NodeCircuit, tmp_path, change, says: str
    ) -> None:
        folder = circuit.save(tmp_path / "quote")
        tensors = load_file(folder / "circuit.safetensors")
        change(tensors)
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "circuit.safetensors")
        write_sums(folder, ["circuit.json", "circuit.safetensors"])
        with pytest.raises(InputError, match=rf"circuit\.safetensors: .*{says}"):
            Circuit.load(folder)


class TestWithShares:
    def test_shares_of_searches_are_saved_with_the_circuit(
        self, circuit: NodeCircuit, tmp_path
    ) -> None:
        plain = (circuit.save(tmp_path / "quote") / "circuit.json").read_text()
        assert "share" not in plain
        found = {"runs": 4, "node_shares": (1, 1, 0.5, 1, 0), "edge_shares": (1, 0.25, 0)}
        again = NodeCircuit.load(circuit.with_shares(found).save(tmp_path / "quote"))
        assert [node.share for node in again.nodes] == [1, 1, 0.5, 1, 0]
        assert [edge.share for edge in again.edges] == [1, 0.25, 0]
        assert again.document.share_runs == 4
        assert [edge.model_copy(update={"share": None}) for edge in again.edges] == [*circuit.edges]
        with pytest.raises(
            InputError, match="shares of 5 nodes and 2 edges, but the circuit has 5"
        ):
            circuit.with_shares(found | {"edge_shares": (1, 0)})

    @pytest.mark.filterwarnings("error")
    def test_shares_are_read_from_the_fields_of_a_report(self, circuit: NodeCircuit) -> None:
        nodes, edges = (1.0, 1.0, 0.5, 1.0, 0.0), (1.0, 0.25, 0.0)
        measured = Stability(4, 4, 0.4, (True,) * 4, (3,) * 4, (1.0,) * 4, edges, nodes)
        shared = circuit.with_shares(measured)
        assert tuple(node.share for node in shared.nodes) == nodes
        assert tuple(edge.share for edge in shared.edges) == edges
        assert shared.document == circuit.with_shares(measured.to_dict()).document

    @pytest.mark.parametrize(
        ("stability", "message"),
        [
            (None, "the report has none; give runs=N"),
            (NotMeasured("no text"), "no shares to save: no text"),
            ({"reason": "no text"}, "no shares to save: no text"),
        ],
    )
    def test_shares_that_were_not_measured_are_one_line(self, circuit, stability, message) -> None:
        with pytest.raises(InputError, match=message):
            circuit.with_shares(stability)


def spoil(folder, **changes) -> None:
    values = json.loads((folder / "circuit.json").read_text())
    write_json(folder / "circuit.json", {**values, **changes})


class TestPartsOf:
    def test_the_three_parts_are_disjoint(self, task: Task) -> None:
        untagged = task.take([replace(pair, template=None) for pair in task.pairs])
        parts = parts_of(untagged, 10, 0)[:3]
        assert [len(part.pairs) for part in parts] == [62, 10, 24]
        assert len({pair for part in parts for pair in part.pairs}) == 96
        few = parts_of(task.take(task.pairs[:4]), 128, 0)[:3]
        assert [len(part.pairs) for part in few] == [2, 1, 1]

    def test_prompts_that_pairs_share_are_held_out_too(self) -> None:
        generator = Random(0)
        prompts = [f"x{i} = " for i in range(60)]
        drawn = {tuple(generator.sample(prompts, 2)) for _ in range(900)}
        pairs = tuple(Pair(pair, ("1", "2")) for pair in sorted(drawn))
        parts = parts_of(Task("few", pairs), 128, 0)[:3]
        used = [{prompt for pair in part.pairs for prompt in pair.prompts} for part in parts]
        assert all(used)
        assert not used[0] & used[1] | used[0] & used[2] | used[1] & used[2]
        baseline = tuple(Pair(("x = ", prompt), ("1", "2")) for prompt in prompts)
        with pytest.raises(InputError, match="too many of the 60 pairs of task one share"):
            parts_of(Task("one", baseline), 16, 0)

    def test_pairs_that_share_prompts_stay_together_where_they_can(self) -> None:
        blocks = [(f"a{b}{i}", f"b{b}{j}") for b in range(250) for i in range(2) for j in range(2)]
        in_blocks = Task("blocks", tuple(Pair(pair, ("1", "2")) for pair in blocks))
        parts = parts_of(in_blocks, 128, 0)[:3]
        assert [len(part.pairs) for part in parts] == [624, 128, 248]
        grid = [(f"a{i}", f"b{j}") for i in range(8) for j in range(8)]
        in_grid = Task("grid", tuple(Pair(pair, ("1", "2")) for pair in grid))
        parts = parts_of(in_grid, 16, 0)[:3]
        assert min(len(part.pairs) for part in parts) >= 2


def test_means_are_asked_for_in_tokens_and_files_that_name_batches_still_open(circuit) -> None:
    with pytest.raises(InputError, match="mean_batches is now mean_tokens, in tokens"):
        PruneConfig.of({"mean_batches": 8})
    settings = dict(circuit.document.provenance.settings)
    del settings["mean_tokens"]
    provenance = {"settings": {**settings, "mean_batches": 8}}
    about = circuit.document.provenance.model_copy(update=provenance)
    document = circuit.document.model_copy(update={"provenance": about})
    assert replace(circuit, document=document).search_config == QUICK
    values = document.to_json()
    new = ("circuit_searched", "circuit_held_out", "circuit_error", "circuit_means_error")
    for part, names in (("losses", new), ("provenance", ("mean_tokens", "mean_source"))):
        for name in names:
            del values[part][name]
    del values["loss_pairs"], values["task"]["n_held_out"]
    old = Document.of_json(values, "circuit.json")
    assert old.losses.circuit_searched is None
    assert (old.provenance.mean_source, old.loss_pairs) == ("", {})


class TestPruningRun:
    def test_what_misses_the_target_on_a_second_sample_is_not_reached(
        self, wired, task, corpus
    ) -> None:
        """The second sample's means of one channel speak for one answer; the first's do not."""
        baseline = AblationBaseline.of(wired, corpus, QUICK)
        assert baseline.means.groups is not None
        biased = dict(baseline.means.groups)
        biased["1.mlp.resid_delta"] = biased["1.mlp.resid_delta"] + 2 * (torch.arange(8) == 2)
        means = replace(baseline.means, groups=biased)
        found = PruningRun.of(wired, task, QUICK, replace(baseline, means=means)).run()
        assert present(found.losses.circuit_searched) <= 0.15 < found.losses.circuit
        assert found.reached is False
        assert found.means["1.mlp.resid_delta"][2] == pytest.approx(2, abs=0.1)

    def test_a_search_whose_trials_are_done_is_not_done(self, wired: Model, task: Task, corpus):
        shares: list[float] = []
        baseline = AblationBaseline.of(wired, corpus, QUICK)
        PruningRun.of(wired, task, QUICK, baseline).ranked(shares.append)
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(Pace.of(QUICK).trials)
        assert shares[-1] < 0.9
