"""The planted circuit of a hand-wired model as the value that a finder would return."""

import torch

from hand_wired.wiring import Corpus, Planted
from wirework.circuits import Ablation, Circuit, Finding, Wiring, assemble, node_means
from wirework.circuits.means import training_windows
from wirework.circuits.split import parts_of


def circuit_of(planted: Planted) -> Circuit:
    """Return the planted nodes with all edges between them, judged on a quarter of the pairs."""
    model, task = planted.model, planted.task
    assert model.tokenizer is not None
    corpus = Corpus(model.tokenizer, task)
    windows = training_windows(corpus, model.config.n_ctx, 2)  # type: ignore[arg-type]
    ablation = Ablation.of(model.transformer, node_means(model.transformer, windows))
    kept: dict[str, list[int]] = {}
    for site, channel in planted.nodes:
        kept.setdefault(site, []).append(channel)
    wiring = Wiring.of(ablation, ablation.space.gates(kept))
    judge = parts_of(task.fitted(model.tokenizer, model.config.n_ctx), 16, seed=0).judge
    found = Finding(wiring, torch.ones(wiring.size), None, 0.15, True, "hand", {}, "", seed=0)
    return assemble(model, task, judge, found)
