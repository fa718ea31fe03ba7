"""`ValidationContext`: a circuit on its model, with the pairs and the text to check it on.

Shapes: G gates of a circuit's nodes and edges.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.circuits.circuit import tokenize_task
from wirework.circuits.held_out import Pairs
from wirework.circuits.masking.activation_cache import ActivationCache, activation_cache_of
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.masked_circuit import MaskedCircuit
from wirework.circuits.masking.training_text import training_text_of
from wirework.circuits.node_circuit import NodeCircuit
from wirework.tasks import TokenizedPairs

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

COSTLY_CHECK_PAIRS = 32
"""Held-out pairs used for costly checks."""


@dataclass(frozen=True, eq=False)
class ValidationContext:
    """Inputs of the checks and controls of one circuit; built once per circuit."""

    circuit: NodeCircuit
    model: "Model"
    pairs: Pairs
    """The pairs of the task as text, by their use in the search."""
    data: "Tokens | None"
    """Training text that the caller gave; None for the text of the model's run."""
    edge_masks: EdgeMasks
    """Masks over the circuit's nodes and all edges between them."""
    gates: Tensor
    """(G,) the circuit: 1 for its nodes and edges, 0 for removed edges."""
    masked_circuit: MaskedCircuit
    """The circuit's nodes and edges, everything else ablated."""
    judged: TokenizedPairs | None
    """The pairs that judged the circuit in its search; None if other pairs were given."""
    held_out: TokenizedPairs
    """Pairs that neither trained nor judged it."""

    @classmethod
    def of(
        cls, circuit: NodeCircuit, model: "Model", pairs: Pairs, data: "Tokens | None"
    ) -> "ValidationContext":
        """Tokenise the pairs and make the masks of a circuit.

        Raises:
            InputError: the circuit is of another model, or a pair does not fit the model.
        """
        edge_masks, gates = circuit.edge_masks(model)
        return cls(
            circuit=circuit,
            model=model,
            pairs=pairs,
            data=data,
            edge_masks=edge_masks,
            gates=gates,
            masked_circuit=MaskedCircuit.of_edges(edge_masks, gates),
            judged=None if pairs.judge is None else tokenize_task(pairs.judge, model),
            held_out=tokenize_task(pairs.held_out, model),
        )

    @property
    def n_edges(self) -> int:
        """Number of nonzero weights between the circuit's nodes, recorded in its file or not."""
        return self.edge_masks.size - self.edge_masks.n_nodes

    def first_held_out(self, count: int = COSTLY_CHECK_PAIRS) -> TokenizedPairs:
        """Return the first held-out pairs, for checks that would take too long on all."""
        return self.held_out.select(torch.arange(min(self.held_out.n_pairs, count)))

    @cached_property
    def train(self) -> TokenizedPairs:
        """The training pairs of its search."""
        return tokenize_task(self.pairs.train, self.model)

    @cached_property
    def text(self) -> "Tokens":
        """Training text of the model.

        Raises:
            InputError: no text was given and the model is outside a run folder.
        """
        return training_text_of(self.model, self.data)

    @cached_property
    def activation_cache(self) -> ActivationCache:
        """Activations of all nodes on training text that no search uses.

        Raises:
            InputError: there is no text, or it is shorter than a context.
        """
        return activation_cache_of(self.model, self.text)
