"""Cost of a search for path edges, compared with one forward pass of the whole model per edge.

    python benchmarks/acdc.py
    python benchmarks/acdc.py --layers 8 --heads 16 --tau 0.001
    python benchmarks/acdc.py --threads 2

The model has random weights, large enough that a fair number of edges is kept. The whole pass is a
float32 forward pass of the plain transformer on the same prompts: the lowest cost of one edge
without caching. With one thread the CPU seconds of this process are measured, with more the elapsed
time. Passes and searches alternate; medians are reported.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from wirework.circuits.path_patching.contrast import Contrast
from wirework.circuits.path_patching.patched import Patched
from wirework.circuits.path_patching.search import SearchResult, search
from wirework.circuits.path_patching.state import PatchedState
from wirework.config import ModelConfig
from wirework.nn import Transformer


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    transformer = random_transformer(args.layers, args.heads, args.vocab, args.weights)
    contrast = random_prompts(args.prompts, args.length, args.vocab)
    print(f"torch {torch.__version__}, {args.layers} layers, {args.heads} heads, d_model 128")
    print("     tau  edges  kept  seconds ms an edge whole pass ms")
    for tau in args.tau:
        report(transformer, contrast, tau, args.repeats)


def report(transformer: Transformer, contrast: Contrast, tau: float, repeats: int) -> None:
    """Time searches and whole passes alternately, and print a line."""
    costs, passes = [], []
    for _ in range(repeats):
        passes += [
            timed(lambda: transformer(contrast.clean, contrast.last_positions))[1] for _ in range(5)
        ]
        search, seconds = timed(lambda: searched(transformer, contrast, tau))
        costs.append(seconds)
    edges, cost = len(search.increases), median(costs)
    print(
        f"{tau:8g} {edges:6} {len(search.kept):5} {cost:8.2f} {1e3 * cost / edges:10.3f} "
        f"{1e3 * median(passes):13.2f}",
        flush=True,
    )


def searched(transformer: Transformer, contrast: Contrast, tau: float) -> SearchResult:
    """Search as `acdc` does, including the clean and corrupted runs."""
    state = PatchedState(Patched.of(transformer, contrast), "kl")
    return search(state, state.graph.edges, tau)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a function, and its seconds."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    with torch.no_grad():
        result = work()
    return result, clock() - start


def random_transformer(layers: int, heads: int, vocab: int, weights: float) -> Transformer:
    """Return a GPT-Neo-like model of width 128 whose initial matrices are scaled."""
    config = ModelConfig.of({
        "vocab_size": vocab, "n_ctx": 256, "n_layer": layers, "d_model": 128, "n_head": heads,
        "d_head": 128 // heads, "act_fraction": None, "norm": "layer", "positions": "added",
        "sinks": False, "bigram": False, "activation": "gelu_tanh",
    })  # fmt: skip
    transformer = Transformer(config)
    with torch.no_grad():
        for weight in transformer.parameters():
            if weight.dim() == 2:
                weight *= weights
    return transformer


def random_prompts(count: int, length: int, vocab: int) -> Contrast:
    """Return prompts whose corrupted twins differ at two tokens."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(vocab, (count, length), generator=generator)
    corrupted = clean.clone()
    places = [length // 7, 2 * length // 3]
    corrupted[:, places] = torch.randint(vocab, (count, 2), generator=generator)
    last_positions = torch.full((count,), length - 1)
    return Contrast(
        clean, corrupted, last_positions, torch.randint(vocab, (count, 2), generator=generator)
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--length", type=int, default=15)
    parser.add_argument("--weights", type=float, default=4, help="times the initial matrices")
    parser.add_argument("--tau", type=float, nargs="+", default=[0.01, 0.001, 0.0003, 0.0001])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
