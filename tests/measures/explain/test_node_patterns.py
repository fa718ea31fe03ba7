"""Where in text the nodes of a circuit are high, and where they are below 0."""

from pathlib import Path

import pytest
from planted_neurons import DEAD, FIRST, PAIR_NEURON, SECOND, SITE, TOKEN, TOKEN_NEURON

from wirework.circuit_format import Node
from wirework.config import ExplainConfig
from wirework.data import Prepared, Tokenizer
from wirework.errors import InputError
from wirework.measures import explain_neurons, node_patterns
from wirework.model import Model
from wirework.view.neurons.neuron_file import read_neurons
from wirework.view.visible_text import quoted_label


def node(index: int, site: str = SITE) -> Node:
    return Node(site=site, index=index, mean=0.0)


def test_a_node_has_a_pattern_on_each_side_of_zero_that_it_reaches(
    model: Model, text: Prepared, config: ExplainConfig, tokenizer: Tokenizer
) -> None:
    nodes = [node(i) for i in (TOKEN_NEURON, PAIR_NEURON, DEAD)]

    def negate(x):
        x[..., TOKEN_NEURON] *= -1
        return x

    with model.transformer.edited({SITE: negate}):
        below, above = node_patterns(nodes, model, text=text, config=config, progress=False)
    token, first, second = (quoted_label(tokenizer.token(i)) for i in (TOKEN, FIRST, SECOND))
    assert (below.node, below.negated, below.pattern) == (f"{SITE}.{TOKEN_NEURON}", True, token)
    assert (above.node, above.negated) == (f"{SITE}.{PAIR_NEURON}", False)
    assert above.pattern == f"{second} after {first}"
    assert min(below.score or 0.0, above.score or 0.0) > 0.98


def test_a_node_that_the_model_lacks_is_refused(
    model: Model, text: Prepared, config: ExplainConfig
) -> None:
    with pytest.raises(InputError, match=r"0\.mlp\.post_act has neurons 0 \.\. 5, got 6"):
        node_patterns([node(6)], model, text=text, config=config, progress=False)


def test_no_node_has_no_pattern(model: Model, text: Prepared, config: ExplainConfig) -> None:
    assert node_patterns([], model, text=text, config=config, progress=False) == ()


def test_a_neuron_and_its_negated_twin_have_files_of_their_own(
    model: Model, text: Prepared, config: ExplainConfig, tmp_path: Path
) -> None:
    names = (f"{SITE}.{TOKEN_NEURON}", f"{SITE}.{TOKEN_NEURON}.negated")
    asked = config.model_copy(update={"only": names})
    found = explain_neurons(model, asked, text=text, out=tmp_path, progress=False)
    again = explain_neurons(model, asked, text=text, out=tmp_path, progress=False)
    assert again.neurons == found.neurons
    assert {path.stem for path in (tmp_path / "neurons").glob("*.json")} == set(names)
    live, negated = read_neurons(tmp_path)
    assert (live.name, live.dead) == (names[0], False)
    assert (negated.name, negated.dead) == (names[1], True)  # it is never below 0
