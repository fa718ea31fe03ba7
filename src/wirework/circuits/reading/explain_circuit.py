"""Turn a circuit into words: sentences by rules, each backed by an experiment on held-out pairs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.circuits.adversarial.reading import CircuitOnModel
from wirework.circuits.circuit import Circuit
from wirework.circuits.held_out import pairs_of
from wirework.circuits.loading import load_inputs
from wirework.circuits.masking.training_text import disjoint_windows, training_text_of, windows_at
from wirework.circuits.node_assembly import CHANCE
from wirework.circuits.reading.attention import HeadAttention, head_attention
from wirework.circuits.reading.driving_tokens import DrivingTokens, driving_tokens
from wirework.circuits.reading.embedding_reading import EmbeddingReading, read_embedding
from wirework.circuits.reading.node_pattern import NodePattern
from wirework.circuits.reading.node_reading import NodeReading, kept_nodes, read_nodes
from wirework.circuits.reading.patching import Patcher, with_common_places
from wirework.circuits.reading.places import Recorded
from wirework.circuits.reading.sentences import Sentence, sentences
from wirework.circuits.reading.words import Contexts
from wirework.circuits.validation.context import ValidationContext
from wirework.console import Progress
from wirework.errors import InputError
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.summaries import NotMeasured, Report, absent
from wirework.tasks import Task, TokenizedPairs, tokenizer_of
from wirework.tasks.task_loss import chance_loss

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_LEAST_HELD_OUT = 8
"""Fewest held-out pairs for the experiments."""
_TEXT_TOKENS = 100_000
"""Tokens of training text on which driving tokens are read."""


@dataclass(frozen=True, repr=False)
class CircuitExplanation(Report):
    """A circuit in words, with the experiments behind each sentence.

    Losses are task losses, means over both prompts of a pair. Everything outside the circuit is at
    its mean over text, also for a circuit that was searched under resample ablation.
    """

    task: str
    target_loss: float
    """Target of its search, in the same unit."""
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
    embedding: tuple[EmbeddingReading, ...] | None = absent()
    """What it reads from the embedding, by channel; absent if no embedding edge was pruned."""
    patterns: tuple[NodePattern, ...] | None = absent()
    """Token patterns that say where its nodes are above and below 0, from `measures.node_patterns`;
    absent unless asked for."""


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

    Nodes are read on pairs that the search has seen, sentences are tested on held-out pairs. Means
    over text stand for everything outside the circuit.

    Args:
        circuit: the circuit; a path is loaded.
        model: its model; a path is loaded; None to load it from the path saved in the circuit.
        task: the circuit's own task, or what `ww.task` takes; required for a task of a user's
            function, because code that only a file names is not run.
        data: training text that shows which tokens drive a node; None for the text of the model's
            run. Without text, these entries give a `reason`.
        pairs: most pairs to read, and most held-out pairs for the experiments.
        progress: show progress on standard error; None: as the caller does.

    Raises:
        InputError: the circuit is of another model, is empty or answers wrongly on average, the
            task is not its own or does not fit it, or fewer than eight pairs are held out.

    Source: Gao et al. 2025, sec. 4 (circuits read by hand); Geiger et al. 2021 (interchange).
    """
    if pairs < _LEAST_HELD_OUT:
        raise InputError(f"an explanation needs at least {_LEAST_HELD_OUT} pairs, got {pairs}")
    circuit, model, task = load_inputs(circuit, model, task)
    if not circuit.nodes:
        raise InputError("the circuit has no nodes to explain")
    used = pairs_of(circuit.document, model, task)
    context = ValidationContext.of(circuit, model, used, data)
    if context.judged is None:
        raise InputError(
            f"task {used.held_out.name} is not the one that the circuit was found for: contrasts "
            "are read from the pairs of its search"
        )
    held_out = context.first_held_out(pairs)
    if held_out.n_pairs < _LEAST_HELD_OUT:
        raise InputError(
            f"the experiments need at least {_LEAST_HELD_OUT} held-out pairs, "
            f"task {used.held_out.name} has {held_out.n_pairs}: give more pairs"
        )
    masked_circuit = replace(context.masked_circuit, loss_reduction="mean")
    with Progress(f"explain {used.full_task.name}", 3, shown=progress) as bar:
        recorded = Recorded.of(masked_circuit, _first(context.judged, pairs))
        on_seen, on_held_out = (
            Patcher.of(masked_circuit, batch, circuit.means, recorded)
            for batch in (recorded.batch, held_out)
        )
        on_seen, on_held_out = with_common_places(on_seen, on_held_out)
        driving = _driving_tokens(context, model, recorded.channels)
        bar.advance()
        readings = read_nodes(on_seen, driving, tokenizer_of(model))
        del on_seen  # it holds residual streams
        bar.advance()
        on_model = CircuitOnModel(model, context.edge_masks, context.gates)
        heads = head_attention(on_model, on_held_out)
        contexts = Contexts.of(on_held_out.recorded, tokenizer_of(model))
        written = sentences(circuit, readings, heads, on_held_out, contexts)
        embedding = read_embedding(context, held_out)
        bar.advance()
    confirmed = {node for sentence in written if sentence.stands for node in sentence.nodes}
    return CircuitExplanation(
        task=used.full_task.name,
        target_loss=circuit.document.target_loss * CHANCE / chance_loss(circuit.loss_reduction),
        n_nodes=circuit.n_nodes,
        n_explained=len(confirmed),
        n_pairs=held_out.n_pairs,
        loss=on_held_out.loss(),
        loss_explained=_loss_explained(on_held_out, readings, confirmed),
        first=contexts.first,
        second=contexts.second,
        deciding=contexts.deciding,
        sentences=written,
        nodes=readings,
        heads=heads,
        embedding=embedding,
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
    return patcher.loss_with(
        ablated=kept_nodes(outside, patcher), fixed=kept_nodes(constants, patcher)
    )
