"""Score the nodes of a model for a task with a method given by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from wirework.circuits.circuit import tokenize_task
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.saved_means import means_for
from wirework.circuits.scoring.atp_star import atp_star
from wirework.circuits.scoring.node_attribution import (
    attribution,
    integrated_gradients,
    random_order,
)
from wirework.config import PruneConfig
from wirework.errors import InputError, nearest, number_of, quoted
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.node_names import node_name
from wirework.renamed_names import old_arguments
from wirework.summaries import shown_as
from wirework.tasks import Task, TokenizedPairs, load_task, tokenizer_of

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_BY_GRADIENT: Mapping[str, Callable[[Ablation, TokenizedPairs], Tensor]] = MappingProxyType(
    {
        "attribution": attribution,
        "signed_attribution": partial(attribution, signed=True),
        "integrated_gradients": integrated_gradients,
        "atp_star": atp_star,
    }
)

METHODS = (*_BY_GRADIENT, "random")
"""Names of the scoring methods."""


@dataclass(frozen=True)
class Scores:
    """Score of each node of a model for a task; higher is more important."""

    method: str
    task: str
    sites: Mapping[str, Tensor]
    """Site to (width,) float32, sites in execution order."""

    def __repr__(self) -> str:
        best = ", ".join(f"{node_name(site, i)} {score:.4g}" for site, i, score in self.top(3))
        return shown_as(
            "Scores",
            f"{self.method} for {quoted(self.task)}: {number_of(self.n_nodes, 'node')} at "
            f"{number_of(len(self.sites), 'site')}",
            f"highest {best}",
        )

    @property
    def n_nodes(self) -> int:
        """Number of nodes of the model."""
        return sum(len(part) for part in self.sites.values())

    def top(self, count: int = 20) -> list[tuple[str, int, float]]:
        """Return site, channel and score of the best-scored nodes, ties in node order."""
        scored_nodes = [
            (site, index, score)
            for site, part in self.sites.items()
            for index, score in enumerate(part.tolist())
        ]
        return sorted(scored_nodes, key=lambda node: -node[2])[: max(0, count)]


@unchanged_weights()
def attribute(
    model: "Model | str | Path",
    task: Task | str | Path,
    config: PruneConfig | str | None = None,
    *,
    method: str | None = None,
    data: "Tokens | None" = None,
    **overrides: Any,
) -> Scores:
    """Score every node of a model for a task, without searching for a circuit.

    Args:
        model: with a tokeniser; a path is loaded.
        task: a task, or what `ww.task` takes. All its pairs are used; for fewer, use `task.take`
            or `ww.task(name, n=64)`.
        config: its `mean_tokens`, `seed` and, where it is a score, `finder` count; None for the
            defaults. A text stands for `method`.
        method: a name of `METHODS`: `attribution`, `signed_attribution`, `integrated_gradients`,
            `atp_star` or `random`; None for the `finder` of the settings, or `attribution`.
        data: tokens of the corpus the model was trained on, for the means; None as in `prune`.
        **overrides: `mean_tokens` (of text for the means; None for the default) and `seed` (of
            `random`); they win over `config`.

    Raises:
        InputError: unknown method, the task does not fit the model, or there are no means.

    Source: Gao et al. 2025, Fig. 31; Kramar et al. 2024 (AtP*).
    """
    from wirework.model import load

    if isinstance(config, str):
        config, method = None, config
    changes = {name: value for name, value in overrides.items() if value is not None}
    settings = PruneConfig.overridden(config, changes, only=("mean_tokens", "seed"))
    if method is None:
        method = "attribution" if settings.finder == "learned" else settings.finder
    check_method(method)
    model, task = load(model), load_task(task)
    batch = tokenize_task(task.fitted(tokenizer_of(model), model.config.n_ctx), model)
    ablation = Ablation.of(model.transformer, means_for(model, data, settings.mean_tokens).first)
    parts = ablation.space.split(score_nodes(ablation, batch, method, settings.seed))
    return Scores(method, task.name, {name: part.clone().cpu() for name, part in parts.items()})


@old_arguments(rows="batch")
def score_nodes(ablation: Ablation, batch: TokenizedPairs, method: str, seed: int = 0) -> Tensor:
    """Return the score of each node by a named method.

    Args:
        ablation: the model and the means of its nodes.
        batch: pairs on which to score.
        method: a name of `METHODS`.
        seed: of `random`.

    Returns:
        (N,) float32, on the device of the model.

    Raises:
        InputError: unknown method.
    """
    check_method(method)
    if method == "random":
        return random_order(ablation.space.size, seed).to(batch.tokens.device)
    return _BY_GRADIENT[method](ablation, batch)


def check_method(method: str) -> None:
    """Check that a method is known.

    Raises:
        InputError: it is not; with the nearest name.
    """
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise InputError(
            f"no method {method!r} to score nodes by; methods are {known}{nearest(method, METHODS)}"
        )
