"""A training step with gates over a plain one: the model of Ferrao et al. 2025, sec. 5."""

from typing import Any

import torch

from benchmarks.figure import Figure
from benchmarks.settings import Settings
from benchmarks.step import VOCAB, Step, job_step, started_job
from benchmarks.timing import alternate, over
from wirework.malloc import freed_memory_kept

LAYERS, WIDTH, HEADS, CONTEXT, BATCH, K = 8, 128, 16, 256, 32, 8
TARGETS = {"local": 1.8, "global": 1.9}
LEVELS = ("plain", "local", "global")


def measure(settings: Settings) -> list[Figure]:
    """Return ratios to the plain step of the same round, and milliseconds."""
    layers, batch = (1, 2) if settings.quick else (LAYERS, BATCH)
    with freed_memory_kept():  # as in `train`
        steps = {level: make_step(level, layers, batch, settings.precision) for level in LEVELS}
        seconds = alternate(steps, min(4, settings.counted_rounds))
    where = f"self-ablation {layers}x{batch}"
    return [
        *(
            Figure.of(
                f"{where} {level} / plain",
                over(seconds[level], seconds["plain"]),
                target=None if settings.quick else target,
            )
            for level, target in TARGETS.items()
        ),
        *(
            Figure.of(f"{where} {level}", [1e3 * s for s in values], unit="ms")
            for level, values in seconds.items()
        ),
    ]


def make_step(level: str, layers: int, batch: int, precision: str) -> Step:
    """Return the training loop's step with gates of a level, or `plain`."""
    gating: dict[str, Any] = {"level": level, "k_attention": K, "k_neurons": K}
    settings = {
        "batch_size": batch, "model": shape(layers), "weight_sparsity": None, "device": "cpu",
        "precision": precision, "gating": None if level == "plain" else gating,
        "optimizer": {"lr": 1e-3, "eps": 1e-8, "grad_scale": "clip"},
    }  # fmt: skip
    tokens, targets = batch_of(batch)
    return job_step(started_job(settings), tokens, targets)


def batch_of(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and targets, (B, T) each."""
    generator = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(VOCAB, (2, batch, CONTEXT), generator=generator)
    return tokens, targets


def shape(layers: int) -> dict[str, Any]:
    """Return settings of the model."""
    return {
        "vocab_size": VOCAB, "n_ctx": CONTEXT, "n_layer": layers, "d_model": WIDTH,
        "n_head": HEADS, "d_head": WIDTH // HEADS, "activation": "gelu_tanh", "norm": "layer",
        "positions": "added", "attention_scale": "none", "qkv_bias": False,
        "tied_embedding": True, "sinks": False, "bigram": False, "act_fraction": None,
    }  # fmt: skip
