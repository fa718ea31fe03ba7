"""Time of a training step with gates, compared with a plain step and a direct implementation.

    python benchmarks/self_ablation.py [--batch 32] [--rounds 5] [--ours] [--usual-malloc] [--json]

The model of Ferrao et al. 2025, sec. 5, with a vocabulary of 2,048: 8 layers, width 128, 16 heads,
context 256, float32. `plain`, `local` and `global` are ours; `written-out local` and so on follow
the definition with all attention scores in memory, masks by a sort, and two whole passes for global
gates (the reference implementation of the tests). A step is forward, backward, gradient clip and
AdamW. Variants alternate; the table has medians of seconds, and of the ratio to the plain step of
the same round, because the machine's speed varies. Freed memory is kept as in `wirework train`, but
not with `--usual-malloc`.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from wirework.config import GatingConfig, ModelConfig, OptimizerConfig
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.gates import Gates
from wirework.training.malloc import freed_memory_kept
from wirework.training.optimizer import make_optimizer, scale_gradients_
from wirework.training.prior import losses_of
from wirework.training.self_ablation import SelfAblation

sys.path.append(str(Path(__file__).parents[1] / "tests" / "interop"))
from self_ablating_reference import BASE, Reference, random_state

VOCAB, LAYERS, WIDTH, HEADS, CONTEXT = 2048, 8, 128, 16, 256
LEVELS = ("plain", "local", "global")
CONFIG = ModelConfig(
    vocab_size=VOCAB, n_ctx=CONTEXT, n_layer=LAYERS, d_model=WIDTH, n_head=HEADS,
    d_head=WIDTH // HEADS, activation="gelu_tanh", norm="layer", positions="added",
    attention_scale="none", qkv_bias=False, tied_embedding=True, sinks=False, bigram=False,
    act_fraction=None,
)  # fmt: skip
Step = Callable[[], None]


def gating(level: str, k: int) -> GatingConfig:
    return GatingConfig.of({"level": level, "k_attention": k, "k_neurons": k})


def our_step(level: str, k: int, tokens: Tensor, targets: Tensor) -> Step:
    transformer = Transformer(CONFIG)
    priors = [] if level == "plain" else [SelfAblation(gating(level, k), seed=0)]
    for prior in priors:
        prior.wrap_model(transformer)
    gates = {name: p for prior in priors for name, p in prior.parameters().items()}
    optimizer = make_optimizer(transformer, OptimizerConfig(lr=1e-3, eps=1e-8), gates)
    parameters = [*transformer.parameters(), *gates.values()]

    def step() -> None:
        optimizer.zero_grad()
        losses_of(transformer, priors, tokens, targets)["total"].backward()
        scale_gradients_(parameters, "clip")
        optimizer.step()

    return step


def written_out_step(level: str, k: int, tokens: Tensor, targets: Tensor) -> Step:
    config: dict[str, Any] = {
        **BASE, "vocab_size": VOCAB, "hidden_size": WIDTH, "mlp_hidden_size": None,
        "num_layers": LAYERS, "num_heads": HEADS, "max_position_embeddings": CONTEXT,
        "attention_layers": None, "k_attention": k, "k_neurons": k,
        "has_layer_by_layer_ablation_mask": level == "local",
        "has_overall_ablation_mask": level == "global",
    }  # fmt: skip
    small = {name: 0.05 * t for name, t in random_state(config).items()}
    model = Reference(config, small, torch.float32)
    optimizer = torch.optim.AdamW(model.state.values(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        plain = level == "plain"
        loss = model.plain_loss(tokens, targets) if plain else model(tokens, targets)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.state.values(), 1.0)
        optimizer.step()

    return step


def inference(level: str, k: int, tokens: Tensor) -> Step:
    """Time a plain forward pass of a model with and without gates."""
    transformer = Transformer(CONFIG)
    gates = None if level == "plain" else Gates(CONFIG, gating(level, k))
    model = Model(transformer, gates=gates)

    @torch.inference_mode()
    def step() -> None:
        model(tokens)

    return step


def measure(batch: int, k: int, rounds: int, ours: bool) -> dict[str, list[float]]:
    """Return the seconds of a step in each round, for each variant."""
    generator = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(VOCAB, (2, batch, CONTEXT), generator=generator)
    steps = {level: our_step(level, k, tokens, targets) for level in LEVELS}
    for level in () if ours else LEVELS:
        steps[f"written-out {level}"] = written_out_step(level, k, tokens, targets)
    for level in LEVELS[:2]:
        steps[f"inference {level}"] = inference(level, k, tokens)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def over(seconds: list[float], others: list[float]) -> float:
    return median(one / other for one, other in zip(seconds, others, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ours", action="store_true", help="nothing written out")
    parser.add_argument("--usual-malloc", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with nullcontext() if args.usual_malloc else freed_memory_kept():
        seconds = measure(args.batch, args.k, args.rounds, args.ours)
    if args.json:
        medians = {name: median(times) for name, times in seconds.items()}
        print(json.dumps({"machine": platform.processor(), "batch": args.batch, **medians}))
        return
    print(f"{torch.get_num_threads()} threads, batch {args.batch}, k {args.k}")
    print(f"{'':20}{'s/step':>9}{'over plain':>12}{'written out over ours':>24}")
    for name, times in seconds.items():
        slower = seconds.get(f"written-out {name}")
        against = "" if slower is None else f"{over(slower, times):24.1f}"
        print(f"{name:20}{median(times):9.3f}{over(times, seconds['plain']):12.2f}{against}")


if __name__ == "__main__":
    main()
