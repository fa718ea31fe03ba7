"""The planted circuit of a hand-wired model as the value that a finder would return."""

import torch

from hand_wired.edge_masks import Corpus, Planted
from wirework.circuits import Ablation, EdgeMasks, FinderResult, NodeCircuit, assemble, node_means
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.masking.means import Means
from wirework.circuits.masking.training_text import training_windows
from wirework.tasks.task_split import parts_of


def circuit_of(planted: Planted) -> NodeCircuit:
    """Return the planted nodes with all edges between them, judged on a quarter of the pairs."""
    model, task = planted.model, planted.task
    assert model.tokenizer is not None
    corpus = Corpus(model.tokenizer, task)
    windows = training_windows(corpus, model.config.n_ctx, 2)
    means = node_means(model.transformer, windows)
    ablation = Ablation.of(model.transformer, means)
    kept: dict[str, list[int]] = {}
    for site, channel in planted.nodes:
        kept.setdefault(site, []).append(channel)
    edge_masks = EdgeMasks.of(ablation, ablation.space.gates(kept))
    parts = parts_of(task.fitted(model.tokenizer, model.config.n_ctx), 16, seed=0)
    rest, gates = AblationBaseline(Means(means)), torch.ones(edge_masks.size)
    found = FinderResult(edge_masks, gates, None, 0.15, True, "hand", {}, rest, seed=0)
    return assemble(model, task, parts, found)
