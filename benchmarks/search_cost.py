"""Cost of the search for a circuit, compared with 256 independent complete trials.

    python benchmarks/search_cost.py runs/twenty single_double_quote bracket_counting for_while

Both draw settings from the same ranges and train masks for the same number of steps on the same
pairs. Of the independent trials the smallest is cleaned up; in the *merged* rows the `finalists`
smallest are cleaned up and then merged like ours. The cost is the CPU time of this process on one
thread for everything that a row needs.
"""

import argparse
import time
from typing import NamedTuple

import torch

import wirework as ww
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.pruning.prune import PruningRun
from wirework.config import PruneConfig
from wirework.model import Model
from wirework.tasks import Task


class Outcome(NamedTuple):
    nodes: int
    edges: int  # kept edges
    seconds: float


def main() -> None:
    args = _arguments()
    torch.set_num_threads(1)
    model = ww.load(args.model)
    base = {"target_loss": args.target, "steps": args.steps, "batch_pairs": args.pairs}
    alone = {"trials": args.independent, "sampler": "random", "stop_at": (), "extra_rankings": ()}
    print(f"{'task':28} {'search':20} {'nodes':>5} {'edges':>5} {'seconds':>8}", flush=True)
    for name in args.tasks:
        task = ww.task(name)
        independent = outcomes(model, task, PruneConfig.of({**base, **alone}), (1, None))
        (ours,) = outcomes(model, task, PruneConfig.of({**base, "trials": args.ours}), (None,))
        rows = zip(
            ("independent", "independent, merged", "ours"), (*independent, ours), strict=True
        )
        for title, one in rows:
            edges, seconds = one.edges / ours.edges, one.seconds / ours.seconds
            beside = f"{edges:.2f} times our edges, {seconds:.1f} times our seconds"
            print(
                f"{name:28} {title:20} {one.nodes:5} {one.edges:5} {one.seconds:8.1f}  {beside}",
                flush=True,
            )


def outcomes(
    model: Model, task: Task, config: PruneConfig, counts: tuple[int | None, ...]
) -> list[Outcome]:
    """Search once, then build a circuit from the best trials, for each number of trials."""
    start = time.process_time()
    pruning_run = PruningRun.of(model, task, config, AblationBaseline.of(model, None, config))
    ranked = pruning_run.ranked()
    search = time.process_time() - start
    outcomes_ = []
    for count in counts:
        start = time.process_time()
        circuit = pruning_run.circuit_from(ranked[:count])
        seconds = search + time.process_time() - start
        outcomes_.append(Outcome(circuit.n_nodes, circuit.n_kept_edges, seconds))
    return outcomes_


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--independent", type=int, default=256, help="trials of the one search")
    parser.add_argument("--ours", type=int, default=8, help="trials of the other")
    parser.add_argument("--steps", type=int, default=100, help="of one trial")
    parser.add_argument("--pairs", type=int, default=16, help="of one step")
    parser.add_argument("--target", type=float, default=0.15, help="nats")
    return parser.parse_args()


if __name__ == "__main__":
    main()
