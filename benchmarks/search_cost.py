"""What the search for a circuit costs, against 256 independent trials that run to their end.

    python benchmarks/search_cost.py runs/twenty single_double_quote bracket_counting for_while

Both searches draw from the same ranges, train masks for the same number of steps on the same pairs
and make whole circuits of their finalists in the same way. Cost: CPU seconds of this process on one
thread, of the search alone and with the circuits made of the finalists.
"""

import argparse
import time
from dataclasses import dataclass

import torch

import wirework as ww
from wirework.circuits.prune import Hunt
from wirework.config import PruneConfig
from wirework.model import Model
from wirework.tasks import Task


@dataclass(frozen=True)
class Outcome:
    nodes: int
    edges: int
    search: float
    whole: float


def main() -> None:
    given = _arguments()
    torch.set_num_threads(1)
    model = ww.load(given.model)
    base = {
        "target_loss": given.target,
        "steps": given.steps,
        "batch_pairs": given.pairs,
        "also": (),
    }
    searches = {
        "independent": {"trials": given.independent, "sampler": "random", "stop_at": ()},
        "ours": {"trials": given.ours},
        "ours, and AtP*": {"trials": given.ours, "also": ("atp_star",)},
    }
    print(f"{'task':28} {'search':16} {'nodes':>5} {'edges':>6} {'search s':>9} {'whole s':>8}")
    for name in given.tasks:
        task = ww.task(name)
        found = {}
        for title, changes in searches.items():
            found[title] = one = outcome(model, task, PruneConfig.of({**base, **changes}))
            row = f"{name:28} {title:16} {one.nodes:5} {one.edges:6}"
            print(f"{row} {one.search:9.1f} {one.whole:8.1f}", flush=True)
        slow = found.pop("independent")
        for title, one in found.items():
            print(
                f"{name:28} {title:16} {one.edges / slow.edges:.2f} of the edges, "
                f"1/{slow.search / one.search:.1f} of the search, "
                f"1/{slow.whole / one.whole:.1f} of the whole",
                flush=True,
            )


def outcome(model: Model, task: Task, config: PruneConfig) -> Outcome:
    start = time.process_time()
    hunt = Hunt.of(model, task, config)
    ranked = hunt.ranked()
    search = time.process_time() - start
    circuit = hunt.made_of(ranked)
    return Outcome(circuit.n_nodes, circuit.n_edges, search, time.process_time() - start)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--independent", type=int, default=256, help="trials of the one search")
    parser.add_argument("--ours", type=int, default=32, help="trials of the other")
    parser.add_argument("--steps", type=int, default=100, help="of one trial")
    parser.add_argument("--pairs", type=int, default=16, help="of one step")
    parser.add_argument("--target", type=float, default=0.15, help="nats")
    return parser.parse_args()


if __name__ == "__main__":
    main()
