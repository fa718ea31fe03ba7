"""Results of each finder on the planted circuits of the tests: exact or not, and AUROC.

    python benchmarks/planted.py

Node AUROC: how well the finder's score separates the planted nodes from all others. Edge AUROC: the
same for all nonzero weights of the model; an edge has the lower score of its two nodes.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "circuits"))

from hand_wired import PLANT, Corpus, Planted

from wirework.circuits import METHODS, auroc, find_edges
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.pruning.prune import PruningRun
from wirework.config import PruneConfig

FINDERS = ("learned", *METHODS)
QUICK = PruneConfig(
    trials=3, parallel=3, steps=40, batch_pairs=8, eval_pairs=24, lr=1e-2, k_coef=1e-3
)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'model':14} {'finder':20} {'nodes':>9} {'edges':>9} exact  node AUROC  edge AUROC")
    for name, plant in PLANT.items():
        planted = plant()
        corpus = Corpus(planted.model.tokenizer, planted.task)
        for finder in FINDERS:
            config = QUICK.model_copy(update={"finder": finder})
            baseline = AblationBaseline.of(planted.model, corpus, config)
            pruning_run = PruningRun.of(planted.model, planted.task, config, baseline)
            print(f"{name:14} {finder:20} {report(planted, pruning_run)}", flush=True)


def report(planted: Planted, pruning_run: PruningRun) -> str:
    circuit = pruning_run.run()
    score, space = pruning_run.ranked()[0].tau, pruning_run.ablation.space
    nodes = [(node.site, node.index) for node in circuit.nodes]
    edges = [(edge.source, edge.target) for edge in circuit.edges]
    exact = nodes == list(planted.nodes) and edges == [(s, t) for s, t, _ in planted.edges]
    truth = torch.zeros(space.size, dtype=torch.bool)
    all_nodes = space.locate(torch.arange(space.size))
    truth[[all_nodes.index(node) for node in planted.nodes]] = True
    joined = find_edges(planted.model.transformer, all_nodes)
    ends = torch.tensor([(edge.source, edge.target) for edge in joined])
    wanted = {(planted.nodes[s], planted.nodes[t]) for s, t, _ in planted.edges}
    true = torch.tensor([(all_nodes[s], all_nodes[t]) in wanted for s, t in ends.tolist()])
    return (
        f"{len(nodes):>4} of {len(planted.nodes):<2} {len(edges):>4} of {len(planted.edges):<2} "
        f"{'yes' if exact else 'no':5}  {auroc(score, truth):10.3f}  "
        f"{auroc(score[ends].amin(1), true):10.3f}"
    )


if __name__ == "__main__":
    main()
