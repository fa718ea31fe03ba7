"""Turn a circuit into words: sentences by rules, each backed by an experiment on held-out pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.circuits.adversarial.reading import CircuitOnModel
from wirework.circuits.circuit import Circuit
from wirework.circuits.held_out import pairs_of
from wirework.circuits.loading import load_inputs
from wirework.circuits.masking.means import disjoint_windows, training_text_of, windows_at
from wirework.circuits.reading.attention import HeadAttention, head_attention
from wirework.circuits.reading.driving_tokens import DrivingTokens, driving_tokens
from wirework.circuits.reading.node_reading import NodeReading, read_nodes
from wirework.circuits.reading.patching import Patcher
from wirework.circuits.reading.places import Recorded
from wirework.circuits.reading.sentences import Sentence, chosen, sentences
from wirework.circuits.reading.words import Contexts
from wirework.circuits.validation.context import ValidationContext
from wirework.console import Progress
from wirework.errors import InputError
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.summaries import NotMeasured, Report
from wirework.tasks import Task, TokenizedPairs, tokenizer_of

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

LEAST_PAIRS = 8
"""Fewest held-out pairs for the experiments."""
_TEXT_TOKENS = 100_000
"""Tokens of training text on which driving tokens are read."""


@dataclass(frozen=True, repr=False)
class CircuitExplanation(Report):
    """A circuit in words, with the experiments behind each sentence. Losses are task losses."""

    task: str
    target_loss: float
    n_nodes: int
    n_explained: int
    """Nodes in a sentence that its experiment confirms."""
    n_pairs: int
    """Held-out pairs of the experiments."""
    loss: float
    """Loss in nats of the circuit on these pairs."""
    loss_explained: float
    """The same of the explained nodes alone: the others at their means over text, constants at
    their averages."""
    first: str
    """The first context of the pairs in words."""
    second: str
    """The second context in words."""
    deciding: str
    """The tokens that decide."""
    sentences: tuple[Sentence, ...]
    """In execution order, those about constants last."""
    nodes: tuple[NodeReading, ...]
    """In the order of the circuit."""
    heads: tuple[HeadAttention, ...]


@unchanged_weights()
def explain_circuit(
    circuit: Circuit | str | Path,
    model: "Model | str | Path | None" = None,
    task: Task | str | Path | None = None,
    *,
    data: "Tokens | None" = None,
    pairs: int = 64,
    progress: bool | None = True,
) -> CircuitExplanation:
    """Explain a circuit in words and test every sentence by patching.

    Contrasts of nodes are read from pairs that the search has seen, experiments use held-out ones.

    Args:
        circuit: the circuit; a path is loaded.
        model: its model; a path is loaded; None to load it from the path saved in the circuit.
        task: the circuit's task, or what `ww.task` takes; required for a task of a user's function.
        data: training text that shows which tokens drive a node; None for the text of the model's
            run. Without text, these entries give a `reason`.
        pairs: most pairs to read, and most held-out pairs for the experiments.
        progress: show progress on standard error; None: as the caller does.

    Raises:
        InputError: the circuit is of another model or empty, the task does not fit it, or fewer
            than eight pairs are held out.

    Source: Gao et al. 2025, sec. 4 (circuits read by hand); Geiger et al. 2021 (interchange).
    """
    if pairs < LEAST_PAIRS:
        raise InputError(f"an explanation needs at least {LEAST_PAIRS} pairs, got {pairs}")
    circuit, model, task = load_inputs(circuit, model, task)
    if not circuit.nodes:
        raise InputError("the circuit has no nodes to explain")
    used = pairs_of(circuit.document, model, task)
    context = ValidationContext.of(circuit, model, used, data)
    held_out = context.first_held_out(pairs)
    if held_out.n_pairs < LEAST_PAIRS:
        raise InputError(
            f"the experiments need at least {LEAST_PAIRS} held-out pairs, "
            f"task {used.held_out.name} has {held_out.n_pairs}: give more pairs"
        )
    seen = context.train if context.judged is None else context.judged
    with Progress(f"explain {used.full_task.name}", 3, shown=progress) as bar:
        recorded = Recorded.of(context.masked_circuit, _first(seen, pairs))
        patcher = Patcher.of(context.masked_circuit, held_out, circuit.means, recorded)
        driving = _driving_tokens(context, model, recorded.channels)
        bar.advance()
        readings = read_nodes(patcher, recorded, driving)
        bar.advance()
        on_model = CircuitOnModel(model, context.edge_masks, context.gates)
        heads = head_attention(on_model, patcher)
        contexts = Contexts.of(patcher.recorded, tokenizer_of(model))
        said = sentences(circuit, readings, heads, patcher, contexts)
        bar.advance()
    confirmed = {node for sentence in said if sentence.stands for node in sentence.nodes}
    return CircuitExplanation(
        task=used.full_task.name,
        target_loss=circuit.document.target_loss,
        n_nodes=circuit.n_nodes,
        n_explained=len(confirmed),
        n_pairs=held_out.n_pairs,
        loss=patcher.loss(),
        loss_explained=_loss_explained(patcher, readings, confirmed),
        first=contexts.first,
        second=contexts.second,
        deciding=contexts.deciding,
        sentences=said,
        nodes=readings,
        heads=heads,
    )


def _first(batch: TokenizedPairs, count: int) -> TokenizedPairs:
    return batch.select(torch.arange(min(batch.n_pairs, count)))


def _driving_tokens(
    context: ValidationContext, model: "Model", channels: Mapping[str, Tensor]
) -> Mapping[str, tuple[DrivingTokens, ...]] | NotMeasured:
    try:
        text = training_text_of(model, context.data)
    except InputError as error:
        return NotMeasured(str(error))
    n_ctx = min(model.config.n_ctx, text.n_tokens)
    starts, _ = disjoint_windows(text, n_ctx, -(-_TEXT_TOKENS // n_ctx))
    windows = windows_at(text, starts, n_ctx)
    return driving_tokens(model.transformer, windows, channels, tokenizer_of(model))


def _loss_explained(
    patcher: Patcher, readings: tuple[NodeReading, ...], confirmed: set[str]
) -> float:
    """Return the loss with unexplained nodes ablated and constants fixed."""
    outside = [reading for reading in readings if reading.node not in confirmed]
    constants = [
        reading for reading in readings if reading.node in confirmed and reading.role == "constant"
    ]
    return patcher.loss_with(ablated=chosen(outside, patcher), fixed=chosen(constants, patcher))
