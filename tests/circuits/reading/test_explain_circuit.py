"""Circuits in words, on hand-wired models whose mechanism is known."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hand_wired import PLANT, averager, exclusive_or, quote_closer, relay, type_tracker
from hand_wired.circuits import circuit_of
from hand_wired.edge_masks import Corpus, Planted
from present import present

from wirework.circuits import CircuitExplanation, explain_circuit
from wirework.circuits.reading.explanation_text import by_contrast, to_markdown
from wirework.circuits.reading.sentences import Sentence
from wirework.errors import InputError
from wirework.summaries import NotMeasured
from wirework.tasks import load_task

Explained = tuple[Planted, CircuitExplanation]


def explained(planted: Planted) -> Explained:
    text = Corpus(present(planted.model.tokenizer), planted.task)
    return planted, explain_circuit(
        circuit_of(planted), planted.model, planted.task, data=text, progress=False
    )


@pytest.fixture(scope="module")
def quotes() -> Explained:
    return explained(quote_closer.plant())


@pytest.fixture(scope="module")
def average() -> Explained:
    return explained(averager.plant())


@pytest.fixture(scope="module")
def types() -> Explained:
    return explained(type_tracker.plant())


def about(explanation: CircuitExplanation, *nodes: str) -> Sequence[Sentence]:
    return [sentence for sentence in explanation.sentences if sentence.nodes == nodes]


class TestExplainCircuit:
    def test_every_node_of_the_quote_circuit_is_explained(self, quotes: Explained):
        _, explanation = quotes
        assert explanation.n_explained == explanation.n_nodes == 5
        assert all(sentence.stands for sentence in explanation.sentences)
        assert explanation.loss_explained == pytest.approx(explanation.loss)

    def test_roles_are_those_that_were_wired(self, quotes: Explained):
        roles = {node.node: node.role for node in quotes[1].nodes}
        assert roles == {
            "0.attn.act_in.0": "signal",  # which quote
            "0.attn.act_in.3": "marker",  # that there is one
            "0.attn.k.0": "marker",
            "0.attn.v.1": "signal",
            "0.attn.resid_delta.2": "signal",
        }

    def test_the_contexts_are_named_by_their_answers_and_deciding_tokens(self, quotes: Explained):
        explanation = quotes[1]
        assert (explanation.first, explanation.second) == ("before `')`", 'before `")`')
        assert explanation.deciding.count(" against ") == 1

    def test_a_swap_at_the_right_place_flips_every_answer_and_its_control_none(
        self, quotes: Explained
    ):
        for name, place in (("0.attn.v.1", "deciding"), ("0.attn.resid_delta.2", "last")):
            (sentence,) = about(quotes[1], name)
            swap = present(sentence.swap)
            assert (swap.place, swap.flipped, swap.flipped_by_same) == (place, 1.0, 0.0)
            assert swap.moved == pytest.approx(1.0)

    def test_the_key_sets_the_attention(self, quotes: Explained):
        (head,) = quotes[1].heads
        assert head.keys_and_queries == ("0.attn.k.0",)
        assert head.deciding > 0.99
        (attention,) = about(quotes[1], "0.attn.k.0")
        assert attention.kind == "attention"
        assert present(attention.loss_after) > present(attention.loss_before) + 0.3

    def test_the_unembedding_weights_are_stated(self, quotes: Explained):
        (sentence,) = about(quotes[1], "0.attn.resid_delta.2")
        assert "+3.00 for `')` and -3.00 for `\")`" in sentence.text

    def test_a_head_without_keys_averages(self, average: Explained):
        (sentence,) = [one for one in average[1].sentences if one.kind == "attention"]
        assert sentence.text.startswith("Head 0.attn.0 averages")
        assert sentence.stands
        head = average[1].heads[0]
        assert head.deciding == pytest.approx(head.if_even * (1 - head.sink), rel=0.05)

    def test_both_hops_are_told_apart(self, types: Explained):
        """The type tokens carry the context; names, keys and the query say whose type it is."""
        _, explanation = types
        assert explanation.n_explained == explanation.n_nodes == 10
        assert all(sentence.stands for sentence in explanation.sentences)
        assert any("averages over the last 3 tokens" in one.text for one in explanation.sentences)
        places = {node.node: (node.role, node.at_place.place) for node in explanation.nodes}
        assert places == {
            "0.attn.act_in.0": ("referent", "rest"),
            "0.attn.v.1": ("referent", "rest"),
            "0.attn.resid_delta.2": ("referent", "deciding"),
            "1.attn.act_in.0": ("referent", "last"),
            "1.attn.act_in.2": ("referent", "deciding"),
            "1.attn.act_in.3": ("signal", "deciding"),
            "1.attn.q.0": ("referent", "last"),
            "1.attn.k.0": ("referent", "deciding"),
            "1.attn.v.1": ("signal", "deciding"),
            "1.attn.resid_delta.9": ("signal", "last"),
        }

    def test_a_referent_follows_the_last_token_and_nothing_else(self, types: Explained):
        (sentence,) = about(types[1], "1.attn.q.0")
        swap = present(sentence.swap)
        assert swap.place == "last"
        assert swap.flipped > 0.5
        assert swap.flipped_by_same == 0
        assert present(swap.moved_by_same) == pytest.approx(0, abs=1e-6)

    def test_where_means_over_tokens_hide_the_context_tokens_are_named(self, types: Explained):
        (sentence,) = about(types[1], "1.attn.act_in.3")
        assert "1.17 on `·set`" in sentence.text
        assert '-1.17 on `·""⏎`' in sentence.text

    def test_nodes_of_refused_sentences_are_not_explained(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("wirework.circuits.reading.sentences.LEAST_MOVED_BY_GROUP", 0.8)
        _, explanation = explained(type_tracker.plant())
        refused = {
            node
            for sentence in explanation.sentences
            for node in sentence.nodes
            if not sentence.stands
        }
        assert {"1.attn.act_in.3", "1.attn.v.1"} <= refused
        kept = {n for s in explanation.sentences if s.stands for n in s.nodes}
        assert explanation.n_explained == len(kept) < explanation.n_nodes
        assert explanation.loss_explained > explanation.loss + 0.1

    @pytest.mark.parametrize(
        "name",
        ["agreement", "superposed", "three-valued", "competing heads", "correlated distractor"],
    )
    def test_every_node_of_a_circuit_that_reads_the_deciding_token_is_explained(self, name: str):
        _, explanation = explained(PLANT[name]())
        assert explanation.n_explained == explanation.n_nodes
        assert all(sentence.stands for sentence in explanation.sentences)
        assert explanation.loss_explained == pytest.approx(explanation.loss)

    def test_a_switch_is_read_by_its_token_though_it_tells_no_answer_alone(self):
        """Means over contexts hide the switch; its tokens and the swap do not."""
        _, explanation = explained(exclusive_or.plant())
        assert explanation.n_explained == explanation.n_nodes == 8
        (switches,) = about(explanation, "0.attn.act_in.0", "0.attn.act_in.8")
        assert "1.36 on `·on`" in switches.text
        assert present(switches.swap).flipped == 1

    def test_a_relay_passes_the_context_on_between_the_deciding_and_the_last_token(self):
        """Both colours are in both prompts; the noun after each takes its colour over."""
        _, explanation = explained(relay.plant())
        places = {node.node: node.at_place.place for node in explanation.nodes}
        passed_on = ("0.attn.resid_delta.2", "1.attn.act_in.2", "1.attn.v.1")
        assert {places[name] for name in passed_on} == {"between"}
        standing = {node for one in explanation.sentences if one.stands for node in one.nodes}
        assert set(passed_on) <= standing
        assert explanation.n_explained == explanation.n_nodes
        assert explanation.loss_explained == pytest.approx(explanation.loss)

    def test_a_node_that_follows_from_the_token_is_explained_by_it(self):
        """The key of the relay and its input say which noun it is, the same in both contexts."""
        _, explanation = explained(relay.plant())
        found = [one for one in explanation.sentences if one.kind == "token"]
        assert [one.nodes for one in found] == [("1.attn.act_in.3",), ("1.attn.k.0",)]
        assert all(one.stands for one in found)
        assert "follows from the token alone: 1.11 on `·ball`, 0.00 on" in found[0].text

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_models_of_other_precisions_are_explained(self, dtype: torch.dtype):
        planted = quote_closer.plant()
        circuit = circuit_of(planted)
        planted.model.transformer.to(dtype)
        of_dtype = replace(
            circuit,
            document=circuit.document.model_copy(
                update={
                    "model": circuit.document.model.model_copy(
                        update={"fingerprint": planted.model.fingerprint}
                    )
                }
            ),
        )
        explanation = explain_circuit(of_dtype, planted.model, planted.task, progress=False)
        assert explanation.n_explained == 5

    def test_the_unit_is_a_mean_whatever_the_search_summed(self, quotes: Explained):
        planted = quote_closer.plant()
        circuit = circuit_of(planted)
        summed = replace(
            circuit,
            document=circuit.document.model_copy(
                update={"loss_reduction": "sum", "target_loss": 0.3}
            ),
        )
        explanation = explain_circuit(summed, planted.model, planted.task, progress=False)
        assert explanation.target_loss == pytest.approx(0.15)
        assert explanation.loss == pytest.approx(quotes[1].loss)
        assert [node.role for node in explanation.nodes] == [n.role for n in quotes[1].nodes]

    def test_pairs_of_another_task_are_refused(self):
        planted = quote_closer.plant()
        other = load_task("single_double_quote", seed=5, n=80)
        with pytest.raises(InputError, match="not the one that the circuit was found for"):
            explain_circuit(circuit_of(planted), planted.model, other, progress=False)

    def test_without_text_the_reason_is_given(self):
        planted = quote_closer.plant()
        explanation = explain_circuit(
            circuit_of(planted), planted.model, planted.task, pairs=8, progress=False
        )
        assert isinstance(explanation.nodes[0].driving_tokens, NotMeasured)
        assert explanation.n_pairs == 8

    def test_too_few_pairs_and_an_empty_circuit_are_refused(self):
        planted = quote_closer.plant()
        circuit = circuit_of(planted)
        with pytest.raises(InputError, match="at least 8 pairs, got 7"):
            explain_circuit(circuit, planted.model, planted.task, pairs=7, progress=False)
        few = planted.task.take(planted.task.pairs[:20])
        with pytest.raises(InputError, match="at least 8 held-out pairs"):
            explain_circuit(
                circuit_of(replace(planted, task=few)), planted.model, few, progress=False
            )
        empty = circuit_of(replace(planted, nodes=[]))
        with pytest.raises(InputError, match="no nodes to explain"):
            explain_circuit(empty, planted.model, planted.task, progress=False)


class TestToMarkdown:
    def test_it_has_a_line_for_each_sentence_and_each_node(self, quotes: Explained):
        explanation = quotes[1]
        page = to_markdown(explanation)
        assert page.startswith("# The circuit of `single_double_quote` in words\n")
        for number, sentence in enumerate(explanation.sentences, 1):
            assert f"\n{number}. {sentence.text}\n" in page
        rows = [line for line in page.splitlines() if line.startswith("| `")]
        assert [row.split("`")[1] for row in rows] == [n.node for n in by_contrast(explanation)]

    def test_nodes_are_ranked_by_contrast(self, quotes: Explained):
        contrasts = [abs(node.contrast) for node in by_contrast(quotes[1])]
        assert contrasts == sorted(contrasts, reverse=True)
        assert contrasts[0] == pytest.approx(1.0)
