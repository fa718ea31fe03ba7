"""Pruned embedding edges of the quote closer, whose embedding is known."""

from pathlib import Path

import pytest
import torch
from hand_wired import quote_closer
from hand_wired.edge_masks import Corpus, Planted
from present import present

from wirework.circuit_format import EMBED, MEANS
from wirework.circuits import Circuit, NodeCircuit, explain_circuit, prune, validate
from wirework.circuits.masking.means import Means, with_embedding_means
from wirework.circuits.reading.embedding_reading import EmbeddingReading
from wirework.circuits.reading.explanation_text import embedding_row, to_markdown
from wirework.circuits.validation.validation_report import ValidationReport
from wirework.commands.circuit_tables import print_report
from wirework.config import PruneConfig
from wirework.errors import InputError

QUICK = PruneConfig(
    trials=1, parallel=1, steps=40, batch_pairs=8, eval_pairs=24, lr=1e-2, k_coef=1e-3,
    finalists=1, extra_rankings=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def planted() -> Planted:
    return quote_closer.plant()


@pytest.fixture(scope="module")
def corpus(planted: Planted) -> Corpus:
    return Corpus(present(planted.model.tokenizer), planted.task)


def found(planted: Planted, corpus: Corpus, *, embedding_edges: bool, target: float) -> NodeCircuit:
    return prune(
        planted.model,
        planted.task,
        QUICK,
        target_loss=target,
        data=corpus,
        progress=False,
        embedding_edges=embedding_edges,
    )


@pytest.fixture(scope="module")
def circuit(planted: Planted, corpus: Corpus) -> NodeCircuit:
    return found(planted, corpus, embedding_edges=True, target=0.01)


@pytest.fixture(scope="module")
def loose(planted: Planted, corpus: Corpus) -> NodeCircuit:
    """The same search at a higher target loss."""
    return found(planted, corpus, embedding_edges=True, target=0.15)


@pytest.fixture(scope="module")
def whole(planted: Planted, corpus: Corpus) -> NodeCircuit:
    """The same search without embedding edges."""
    return found(planted, corpus, embedding_edges=False, target=0.01)


def validated(circuit: NodeCircuit, planted: Planted, corpus: Corpus) -> ValidationReport:
    return validate(circuit, planted.model, planted.task, data=corpus, short=True, progress=False)


def printed(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Return the cells of the tables that were printed."""
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]


def kept(circuit: NodeCircuit) -> set[tuple[str, int, int]]:
    names = [group.name for group in circuit.token_groups]
    return {(names[e.group], e.channel, e.n_entries) for e in circuit.embedding_edges}


SINGLE, DOUBLE = 'deciding tokens before "\')"', "deciding tokens before '\")'"


class TestPrune:
    def test_the_kept_edges_are_those_that_were_wired(self, circuit: NodeCircuit):
        """Channel 0 says which quote opened the string, channel 3 that the token opens one."""
        assert kept(circuit) == {(SINGLE, 0, 2), (DOUBLE, 0, 2), (SINGLE, 3, 2), (DOUBLE, 3, 2)}
        assert circuit.reached
        assert circuit.task_loss < 0.01

    def test_at_a_loose_target_fewer_are_kept(self, loose: NodeCircuit):
        assert kept(loose) < {(SINGLE, 0, 2), (DOUBLE, 0, 2), (SINGLE, 3, 2), (DOUBLE, 3, 2)}
        assert loose.reached
        assert present(loose.document.embedding_edges).n_all == 4

    def test_a_circuit_that_misses_its_target_keeps_all(self, planted: Planted, corpus: Corpus):
        config = QUICK.model_copy(update={"allow_unreached": True})
        missed = prune(
            planted.model, planted.task, config, target_loss=1e-7, data=corpus, progress=False,
            embedding_edges=True,
        )  # fmt: skip
        assert not missed.reached
        part = present(missed.document.embedding_edges)
        assert len(part.edges) == part.n_all > 0

    def test_nodes_and_edges_are_those_without_them(self, circuit: NodeCircuit, whole: NodeCircuit):
        assert (circuit.nodes, circuit.edges) == (whole.nodes, whole.edges)
        assert circuit.n_edges == whole.n_edges

    def test_without_the_setting_nothing_is_written(self, whole: NodeCircuit):
        values = whole.document.to_json()
        assert "embedding_edges" not in values
        assert "embedding_edges" not in values["provenance"]["settings"]
        assert "n_embedding_edges" not in whole.summary()
        assert EMBED not in whole.means

    def test_they_are_counted_apart(self, circuit: NodeCircuit):
        sizes = circuit.sizes()
        assert (sizes["n_embedding_edges"], sizes["n_token_groups"]) == (4, 2)

    def test_input_edges_are_those_of_kept_entries(self, circuit: NodeCircuit):
        read = {edge.token for edge in circuit.io_edges if edge.target is not None}
        assert read <= {"'", "('", '"', '("'}

    def test_given_means_without_a_text_are_refused_in_one_line(
        self, planted: Planted, whole: NodeCircuit
    ):
        with pytest.raises(InputError, match=r"embedding edges \(--embedding-edges\) need it") as e:
            with_embedding_means(Means(whole.means), planted.model, None, 1000)
        assert "\n" not in str(e.value)


class TestSaved:
    def test_a_saved_circuit_is_the_same_and_runs_the_same(
        self, circuit: NodeCircuit, planted: Planted, tmp_path: Path
    ):
        loaded = Circuit.load(circuit.save(tmp_path / "c"))
        assert loaded.document == circuit.document
        loss = circuit.evaluate(planted.model, planted.task)
        assert loaded.evaluate(planted.model, planted.task) == loss

    def test_a_circuit_runs_without_the_removed_entries(
        self, circuit: NodeCircuit, planted: Planted
    ):
        """Embedding edges of the opening quotes removed by hand: the answer is lost."""
        part = present(circuit.document.embedding_edges)
        none = part.model_copy(update={"edges": ()})
        document = circuit.document.model_copy(update={"embedding_edges": none})
        loss = NodeCircuit(document, circuit.means, circuit.activations).evaluate(
            planted.model, planted.task
        )
        assert loss == pytest.approx(0.693, abs=0.02)

    def test_validate_runs_the_circuit_without_the_removed_entries(
        self, loose: NodeCircuit, planted: Planted, corpus: Corpus
    ):
        report = validated(loose, planted, corpus)
        assert report.held_out.circuit == pytest.approx(present(loose.losses.circuit_held_out))
        assert report.held_out.model == pytest.approx(loose.losses.model, abs=1e-3)
        assert loose.task_loss > 10 * loose.losses.model

    def test_a_report_counts_them_after_the_other_edges(
        self,
        loose: NodeCircuit,
        whole: NodeCircuit,
        planted: Planted,
        corpus: Corpus,
        capsys: pytest.CaptureFixture[str],
    ):
        report = validated(loose, planted, corpus)
        sizes = loose.embedding_sizes()
        assert {name: report.to_dict()[name] for name in sizes} == sizes
        names = list(report.summary())
        first = names.index("n_kept_edges") + 1
        assert names[first : first + 2] == list(sizes)
        print_report(report.to_dict())
        rows = [row[0] for row in printed(capsys) if row[0]]
        assert rows[rows.index("n_kept_edges") + 1 :][:2] == list(sizes)
        other = validated(whole, planted, corpus)
        assert sizes.keys().isdisjoint(other.to_dict().keys() | other.summary().keys())
        print_report(other.to_dict())
        assert sizes.keys().isdisjoint(row[0] for row in printed(capsys))

    def test_the_table_lists_groups_and_channels(self, circuit: NodeCircuit):
        table = circuit.to_dataframe("embedding_edges")
        assert set(table.itertuples(index=False, name=None)) == kept(circuit)

    def test_a_circuit_without_the_mean_of_the_embedding_is_refused(
        self, circuit: NodeCircuit, planted: Planted
    ):
        means = {site: mean for site, mean in circuit.means.items() if site != EMBED}
        without = NodeCircuit(circuit.document, means, circuit.activations)
        with pytest.raises(InputError, match=f"no {MEANS}{EMBED}"):
            without.edge_masks(planted.model)

    def test_the_mean_is_that_of_the_tokens_of_the_text(
        self, circuit: NodeCircuit, planted: Planted, corpus: Corpus
    ):
        ids = torch.as_tensor(corpus.ids)
        mean = planted.model.transformer.embed.weight[ids].mean(0)
        # Half of the text, in windows, stands for all of it.
        assert torch.allclose(circuit.means[EMBED], mean, atol=0.1)
        assert float(circuit.means[EMBED][1]) == 1.0


class TestExplained:
    def test_the_explanation_states_which_tokens_each_channel_reads(
        self, circuit: NodeCircuit, planted: Planted, corpus: Corpus
    ):
        explanation = explain_circuit(
            circuit, planted.model, planted.task, data=corpus, pairs=8, progress=False
        )
        readings = present(explanation.embedding)
        assert [(r.channel, r.group, r.readers, r.mean_entry) for r in readings] == [
            (0, SINGLE, ("0.attn.act_in.0",), 1.0),
            (0, DOUBLE, ("0.attn.act_in.0",), -1.0),
            (3, SINGLE, ("0.attn.act_in.3",), 1.0),
            (3, DOUBLE, ("0.attn.act_in.3",), 1.0),
        ]
        assert all(r.loss_without > explanation.loss for r in readings)
        page = to_markdown(explanation)
        assert f"| 0 | `0.attn.act_in.0` | {SINGLE} | `'`, `('` | +1.00 |" in page

    def test_page_and_terminal_have_the_same_row_of_an_edge(self):
        reading = EmbeddingReading(
            3, ("0.attn.act_in.3", "unembedding"), "numbers\n", ("1", "|"), 4, -0.5, 0.25
        )
        assert embedding_row(reading) == {
            "channel": "3",
            "read by": "`0.attn.act_in.3`, `unembedding`",
            "token group": "numbers\\n",
            "tokens": "`1`, `|`, 2 more",
            "mean entry": "-0.50",
            "loss without": "0.250",
        }

    def test_without_embedding_edges_it_says_nothing_of_them(
        self, whole: NodeCircuit, planted: Planted
    ):
        explanation = explain_circuit(whole, planted.model, planted.task, pairs=8, progress=False)
        assert explanation.embedding is None
        assert "embedding" not in explanation.to_dict()
        assert "What it reads from the embedding" not in to_markdown(explanation)
