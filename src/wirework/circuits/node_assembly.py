"""From a mask to a `NodeCircuit`: list nodes and edges, measure losses, record example activations.

Losses are measured on the judging pairs. The calibration (scale and shift) is fitted on these too;
the calibrated loss is measured on held-out pairs.

Shapes: N nodes of all sites, P example prompts, T tokens, n kept nodes, G gates of them and of the
edges between them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework import __version__
from wirework.circuit_format import (
    EMBED,
    AttackPart,
    CalibrationPart,
    Document,
    Edge,
    EmbeddingPart,
    Examples,
    IoEdge,
    Losses,
    LossPairs,
    ModelPart,
    Node,
    PaperSize,
    Provenance,
    TaskPart,
)
from wirework.circuits.calibration import IDENTITY, Calibration, calibrate, calibrated_loss
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.masking.ablation import moved
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.edges import find_io_edges
from wirework.circuits.node_circuit import NodeCircuit
from wirework.config import LossReduction
from wirework.errors import printable
from wirework.files import path_text
from wirework.nn import Edit
from wirework.renamed_names import old_arguments, old_attributes
from wirework.tasks import Task, TokenizedPairs, tokenizer_of
from wirework.tasks.task_loss import chance_loss, task_loss
from wirework.tasks.task_split import Parts, fingerprint, used_fingerprint

if TYPE_CHECKING:
    from wirework.data import Tokenizer
    from wirework.model import Model

CHANCE = math.log(2)
"""Task loss at chance, ln 2 nats, as a mean over the prompts of a pair."""

_EXAMPLE_PAIRS = 16
"""Number of judging pairs that are stored as examples."""


@old_attributes(wiring="edge_masks")
@dataclass(frozen=True)
class FinderResult:
    """Result of a finder, from which `assemble` makes a `NodeCircuit`."""

    edge_masks: EdgeMasks
    """Masks over the kept nodes and all edges between them. Removed parts are ablated with the
    means of the second sample, or with the only means if there is one sample."""
    gates: Tensor
    """(G,), 1 for every node and for the kept edges."""
    score: Tensor | None
    """(N,), higher is more important; None without a score."""
    target: float
    """Target task loss in nats."""
    reached: bool
    """Whether the target is met in all ablation modes of the search."""
    finder: str
    settings: Mapping[str, Any]
    baseline: AblationBaseline
    """Ablation values that the search used."""
    seed: int
    """Seed with which `parts_of` split the task; `validate` repeats the split."""
    paper_size: PaperSize | None = None
    """Size at plain bisection; None without a ranking or if this does not reach the target."""
    excluded: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Site to channels of the nodes that the search excluded."""
    embedding_edges: EmbeddingPart | None = None
    """The kept embedding edges, as `edge_masks` has them; None if none were pruned."""
    attack: AttackPart | None = None
    """What the search against an adversary did; None for other searches."""


def assemble(model: "Model", full_task: Task, parts: Parts, result: FinderResult) -> NodeCircuit:
    """Measure a mask and return the complete circuit.

    Args:
        model: a model with a tokeniser.
        full_task: the task as loaded, with all pairs.
        parts: its split. Losses, calibration and examples use the judging pairs; the calibrated
            loss is measured on the held-out pairs.
        result: the mask and its provenance.
    """
    edge_masks, means = result.edge_masks, result.edge_masks.ablation.means
    tokenizer = tokenizer_of(model)
    batch, held_out = tokenize_task(parts.judge, model), tokenize_task(parts.held_out, model)
    losses, calibration, logit_diffs = _losses(result, batch, held_out)
    kept = edge_masks.kept
    tokens = {t: tokenizer.token(t) for t in _prompt_tokens(batch)}
    answers = {t: tokenizer.token(t) for t in sorted(set(batch.answers.flatten().tolist()))}
    shown = batch.select(torch.arange(min(batch.n_pairs, _EXAMPLE_PAIRS)))
    error = result.baseline.means.error
    split = {"n_held_out": held_out.n_pairs, "used_fingerprint": used_fingerprint(parts)}
    task = task_part(full_task, batch.n_pairs).model_copy(update=split)
    document = Document(
        model=model_part(model),
        task=task,
        target_loss=result.target,
        loss_reduction=edge_masks.loss_reduction,
        reached=result.reached,
        losses=losses,
        loss_pairs=pairs_of_losses(losses),
        calibration=CalibrationPart(**calibration._asdict()),
        nodes=_nodes(edge_masks, result.score),
        edges=_edges(edge_masks, result.gates),
        n_edges=edge_masks.size - edge_masks.n_nodes,
        paper_size=result.paper_size,
        io_edges=_read_by(result, find_io_edges(model.transformer, kept, tokens, answers)),
        embedding_edges=result.embedding_edges,
        examples=shown_examples(tokenizer, shown, logit_diffs),
        provenance=Provenance(
            finder=result.finder,
            settings=dict(result.settings),
            seed=result.seed,
            wirework=__version__,
            means=result.baseline.origin,
            mean_tokens=result.baseline.means.n_tokens,
            mean_error_median=None if error is None else error.median,
            mean_error_largest=None if error is None else error.largest,
            mean_source=result.baseline.source,
            excluded=dict(result.excluded) or None,
            attack=result.attack,
        ),
    )
    baseline = {
        site: mean.detach().float().cpu()
        for site, mean in means.items()
        if site != EMBED or result.embedding_edges is not None
    }
    return NodeCircuit(document, baseline, _activations(edge_masks, result.gates, shown))


def _read_by(result: FinderResult, io_edges: Sequence[IoEdge]) -> tuple[IoEdge, ...]:
    """Return input and output edges without the embedding entries that a circuit removes."""
    if (part := result.embedding_edges) is None:
        return tuple(io_edges)
    kept, nodes = part.kept_entries(), result.edge_masks.kept
    return tuple(
        edge
        for edge in io_edges
        if edge.target is None or (edge.token_id, nodes[edge.target][1]) in kept
    )


def _losses(
    result: FinderResult, batch: TokenizedPairs, held_out: TokenizedPairs
) -> tuple[Losses, Calibration, Tensor]:
    """Return a circuit's losses, its calibration, and its logit differences on `batch`."""
    edge_masks, gates = result.edge_masks, result.gates[None]
    reduction = edge_masks.loss_reduction
    logit_diffs = edge_masks.all_logit_diffs(gates, batch)[0]
    held_out_diffs = edge_masks.all_logit_diffs(gates, held_out)[0]
    calibration = calibrate(logit_diffs)

    def with_means(means: Mapping[str, Tensor]) -> float:
        ablation = replace(edge_masks.ablation, means=moved(means, edge_masks.transformer))
        return float(replace(edge_masks, ablation=ablation).losses(gates, batch)[0])

    means = result.baseline.means
    group_losses = [
        with_means({site: part[group] for site, part in (means.groups or {}).items()})
        for group in range(means.n_groups)
    ]
    losses = Losses(
        **circuit_losses(edge_masks, result.gates, batch, logit_diffs),
        circuit_calibrated=calibrated_loss(held_out_diffs, calibration, reduction),
        circuit_held_out=calibrated_loss(held_out_diffs, IDENTITY, reduction),
        circuit_searched=None if means.groups is None else with_means(means.first),
        circuit_error=pair_error(logit_diffs, reduction) if len(logit_diffs) > 2 else None,
        circuit_means_error=standard_error(torch.tensor(group_losses))
        if len(group_losses) > 1
        else None,
    )
    return losses, calibration, logit_diffs


def pairs_of_losses(losses: Losses) -> dict[str, LossPairs]:
    """Return for each loss name whether it is of the judged or the held-out pairs.

    A calibrated loss is never of the pairs that the calibration was fitted on.
    """
    held_out_losses = {"circuit_calibrated", "circuit_held_out"}
    measured = losses.model_dump(exclude_none=True, exclude={"chance"})
    return {name: "held out" if name in held_out_losses else "judged" for name in measured}


def pair_error(logit_diffs: Tensor, reduction: LossReduction = "mean") -> float:
    """Return the standard error over pairs of the task loss of logit differences (2P,)."""
    return standard_error(task_loss(logit_diffs.view(-1, 2), reduction))


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of independent values (n,); 0 for a single one."""
    return float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0


@old_arguments(wiring="edge_masks", rows="batch")
def circuit_losses(
    edge_masks: EdgeMasks, gates: Tensor, batch: TokenizedPairs, logit_diffs: Tensor | None = None
) -> dict[str, float]:
    """Return the task losses in nats of a circuit, of the model with and without it, and of chance.

    Args:
        edge_masks: masks over its nodes and all edges between them.
        gates: (G,), 0 for removed edges.
        batch: tokenised pairs of a task.
        logit_diffs: logit differences of the circuit on them, (2P,), if already known.

    Returns:
        `model`: nothing ablated. `circuit`: everything outside the circuit ablated (sufficiency).
        `without_circuit`: only the circuit's nodes ablated (necessity, Fig. 32). `chance`: ln 2,
        or twice that where losses are sums over the prompts of a pair.

    Source: Gao et al. 2025, sec. 2.2.
    """
    nodes = edge_masks.mask(torch.ones_like(gates))
    masks = torch.stack([torch.ones_like(nodes), 1 - nodes])
    model, without = edge_masks.ablation.losses(masks, batch).tolist()
    logit_diffs = (
        edge_masks.all_logit_diffs(gates[None], batch)[0] if logit_diffs is None else logit_diffs
    )
    reduction = edge_masks.loss_reduction
    return {
        "model": model,
        "circuit": calibrated_loss(logit_diffs, IDENTITY, reduction),
        "without_circuit": without,
        "chance": chance_loss(reduction),
    }


def task_part(full_task: Task, n_pairs: int) -> TaskPart:
    """Return the description of a task for circuit.json; `n_pairs` counts the judging pairs."""
    return TaskPart(
        name=printable(full_task.name),
        answers=full_task.answers,
        n_pairs=n_pairs,
        path=path_text(full_task.path),
        seed=full_task.seed,
        n_all=len(full_task.pairs),
        fingerprint=fingerprint(full_task),
    )


def model_part(model: "Model") -> ModelPart:
    """Return the description of a model for circuit.json."""
    config = model.config
    n_weights, n_nonzero = model.transformer.weight_counts()
    return ModelPart(
        fingerprint=model.fingerprint,
        path=path_text(model.path),
        n_layer=config.n_layer,
        d_model=config.d_model,
        n_head=config.n_head,
        d_head=config.d_head,
        d_mlp=config.d_mlp,
        vocab_size=config.vocab_size,
        n_weights=n_weights,
        n_nonzero=n_nonzero,
        trained_on_tasks=model.trained_on_tasks,
    )


def _nodes(edge_masks: EdgeMasks, score: Tensor | None) -> tuple[Node, ...]:
    means = edge_masks.ablation.means
    indices = edge_masks.node_indices
    scores = [None] * edge_masks.n_nodes if score is None else score[indices].tolist()
    return tuple(
        Node(site=site, index=channel, mean=float(means[site][channel]), score=node_score)
        for (site, channel), node_score in zip(edge_masks.kept, scores, strict=True)
    )


def _edges(edge_masks: EdgeMasks, gates: Tensor) -> tuple[Edge, ...]:
    edge_gates = zip(edge_masks.edges(), gates[edge_masks.n_nodes :].tolist(), strict=True)
    kept = (edge for edge, gate in edge_gates if gate)
    return tuple(sorted(kept, key=lambda edge: (edge.source, edge.target)))


def _prompt_tokens(batch: TokenizedPairs) -> list[int]:
    """Return the distinct tokens of the prompts, without padding."""
    positions = torch.arange(batch.tokens.shape[1], device=batch.last_positions.device)
    is_token = positions <= batch.last_positions[:, None]
    return sorted(set(batch.tokens[is_token].tolist()))


def shown_examples(tokenizer: "Tokenizer", shown: TokenizedPairs, logit_diffs: Tensor) -> Examples:
    """Return prompts as token texts, with the logit differences (N,) of a circuit on them."""
    ends = (shown.last_positions + 1).tolist()
    prompts = [row[:end] for row, end in zip(shown.tokens.tolist(), ends, strict=True)]
    return Examples(
        prompts=tuple(tuple(tokenizer.token(t) for t in prompt) for prompt in prompts),
        answers=tuple(
            (tokenizer.token(right), tokenizer.token(wrong))
            for right, wrong in shown.answers.tolist()
        ),
        logit_diff=tuple(logit_diffs[: len(prompts)].tolist()),
    )


@torch.no_grad()
def _activations(edge_masks: EdgeMasks, gates: Tensor, shown: TokenizedPairs) -> Tensor:
    """Return (P, T, n): activations of the kept nodes in the circuit, 0 beyond a prompt's end."""
    transformer, space = edge_masks.transformer, edge_masks.ablation.space
    values: dict[str, Tensor] = {}
    with (
        edge_masks.applied(gates[None]),
        transformer.edited(_recorders(space.split(edge_masks.mask(gates)), values)),
    ):
        transformer.state(shown.tokens)
    activations = space.join(values)
    positions = torch.arange(activations.shape[1], device=activations.device)
    is_token = positions <= shown.last_positions[:, None]
    return (activations * is_token[..., None]).float().cpu()


def _recorders(gates: Mapping[str, Tensor], values: dict[str, Tensor]) -> dict[str, Edit]:
    """Return edits that copy each site's kept channels to `values` and change nothing.

    Recording all channels of all sites would take far more memory than the forward pass.
    """

    def recorder(site: str, channels: Tensor) -> Edit:
        def record(x: Tensor) -> Tensor:
            values[site] = x[..., channels]
            return x

        return record

    return {site: recorder(site, part.nonzero().flatten()) for site, part in gates.items()}
