"""The same step by the method's definition, over ours; the reference of the tests. Minutes.

All attention scores are in memory, masks are made by a sort, and global gates take two whole
passes.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.figure import Figure
from benchmarks.figures import self_ablation as gated
from benchmarks.settings import Settings
from benchmarks.step import VOCAB, Step
from benchmarks.timing import alternate, over
from wirework.malloc import freed_memory_kept


def measure(settings: Settings) -> list[Figure]:
    """Return the ratios of both, in float32."""
    layers, batch = (1, 2) if settings.quick else (gated.LAYERS, gated.BATCH)
    figures: list[Figure] = []
    with freed_memory_kept():
        for level in gated.LEVELS:
            ours = gated.make_step(level, layers, batch, "float32")
            steps = {"defined": defined_step(level, layers, batch), "ours": ours}
            seconds = alternate(steps, min(3, settings.counted_rounds))
            name = f"self-ablation {layers}x{batch} {level}, definition / ours"
            ratios = over(seconds["defined"], seconds["ours"])
            figures.append(Figure.of(name, ratios, better="higher"))
    return figures


def defined_step(level: str, layers: int, batch: int) -> Step:
    """Return a step of the reference implementation."""
    sys.path.append(str(Path(__file__).parents[2] / "tests" / "interop"))
    from self_ablating_reference import BASE, Reference, random_state

    config: dict[str, Any] = {
        **BASE, "vocab_size": VOCAB, "hidden_size": gated.WIDTH, "mlp_hidden_size": None,
        "num_layers": layers, "num_heads": gated.HEADS, "max_position_embeddings": gated.CONTEXT,
        "attention_layers": None, "k_attention": gated.K, "k_neurons": gated.K,
        "has_layer_by_layer_ablation_mask": level == "local",
        "has_overall_ablation_mask": level == "global",
    }  # fmt: skip
    small = {name: 0.05 * tensor for name, tensor in random_state(config).items()}
    model = Reference(config, small, torch.float32)
    optimizer = torch.optim.AdamW(model.state.values(), lr=1e-3)
    tokens, targets = gated.batch_of(batch)

    def step() -> None:
        optimizer.zero_grad()
        plain = level == "plain"
        loss = model.plain_loss(tokens, targets) if plain else model(tokens, targets)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.state.values(), 1.0)
        optimizer.step()

    return step
