"""Training steps: ours through the training loop's own code, and those of plain GPTs.

A step is forward, backward, gradient scale and AdamW; a weight-sparse one also projects. A shape is
width x layers x context x batch.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

import wirework
from benchmarks.plain_gpt import PlainGPT
from benchmarks.plain_sparse import PlainSparseGPT
from benchmarks.settings import Precision
from wirework.config import TrainConfig, WeightSparsityConfig
from wirework.training.job import Job, begin
from wirework.training.loop import training_step

VOCAB, D_HEAD = 2048, 16
Shape = tuple[int, int, int, int]
Step = Callable[[], None]


def make_step(
    variant: str,
    shape: Shape,
    device: str = "cpu",
    precision: Precision = "float32",
    l0_fraction: float = 1 / 64,
    floor: int = 4,
) -> Step:
    """Return a training step.

    Args:
        variant: `plain` (a plain dense GPT), `plain-sparse` (the method by public operations), or
            ours: `dense`, `activation-sparse`, `weight-sparse` with the exact gradient, `live` with
            the gradient of nonzero weights only, `live-careful` with four times as many dense
            gradients, `live-from-few` that begins with few weights.
        shape: width, layers, context, batch.
        device: device of the model.
        precision: of matrix products, by autocast.
        l0_fraction: nonzero share of each matrix of a weight-sparse model.
        floor: least nonzero weights of a neuron.
    """
    d_model, n_layer, n_ctx, batch = shape
    generator = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(0, VOCAB, (2, batch, n_ctx), generator=generator).to(device)
    if variant == "plain":
        plain = PlainGPT(VOCAB, d_model, n_layer, D_HEAD, n_ctx)
        return plain_step(plain.to(device), tokens, targets, precision)
    if variant == "plain-sparse":
        plain_sparse = PlainSparseGPT(VOCAB, d_model, n_layer, D_HEAD)
        return plain_step(plain_sparse.to(device), tokens, targets, precision)
    model = {
        "vocab_size": VOCAB, "d_model": d_model, "n_layer": n_layer, "n_ctx": n_ctx,
        "d_head": D_HEAD, "act_fraction": None if variant == "dense" else 0.25,
    }  # fmt: skip
    settings = {
        "batch_size": batch, "model": model, "device": device, "precision": precision,
        "weight_sparsity": weight_sparsity(variant, l0_fraction, floor),
    }  # fmt: skip
    return job_step(started_job(settings), tokens, targets)


FEW = 4
"""Nonzero weights at the start over those at the end, of a run that begins with few."""
LIVE_CALLS = {"live": 16, "live-careful": 4}
"""Steps of a live run in a round: a step computes the dense gradient of some matrices only."""
_STRIDE = 5
"""Added to the step number, so that four rounds see all of a cycle of 64 steps."""


def has_live_gradient() -> bool:
    """Return whether this version can compute the gradient of nonzero weights only."""
    return "gradient" in WeightSparsityConfig.model_fields


def weight_sparsity(variant: str, l0_fraction: float, floor: int) -> dict[str, Any] | None:
    """Return settings whose annealing ends in the first step."""
    if variant not in ("weight-sparse", "live", "live-careful", "live-from-few"):
        return None
    live: dict[str, Any] = {} if variant == "weight-sparse" else {"gradient": "live"}
    if variant == "live-careful":
        live |= {"dense_every": 4}
    sizes: dict[str, float] = {"l0_fraction": l0_fraction, "floor": floor}
    if variant == "live-from-few":
        sizes["start_fraction"] = min(1.0, FEW * l0_fraction)
    return {**sizes, "anneal_start": 0, "anneal_end": 1e-9, **live}


def started_job(settings: dict[str, Any]) -> Job:
    """Return a run as the training loop starts it, past its warm-up; its folder is deleted."""
    with TemporaryDirectory(prefix="wirework-") as folder:
        data = {
            "corpus": corpus(), "vocab_size": VOCAB, "cache": text_folder().name, "workers": 1,
        }  # fmt: skip
        common = {
            "name": "step", "runs": folder, "steps": 100_000, "bigram_start": "zeros", "data": data,
        }  # fmt: skip
        job = begin(TrainConfig.of({**common, **settings}), Path(folder), False, False)
        job.log.close()
    job.state.step = 2000
    return job


def corpus() -> str:
    """Return the folder of a text that is always there: source files of the library."""
    return str(Path(wirework.__file__).parent / "circuits")


@cache
def text_folder() -> "TemporaryDirectory[str]":
    """Return the folder of the tokenised text, which is prepared once a process."""
    return TemporaryDirectory(prefix="wirework-")


def job_step(job: Job, tokens: Tensor, targets: Tensor) -> Step:
    """Return the training loop's step on these tokens."""

    def step() -> None:
        training_step(job, tokens, targets)
        job.state.step += _STRIDE

    return step


def plain_step(
    model: PlainGPT | PlainSparseGPT, tokens: Tensor, targets: Tensor, precision: Precision
) -> Step:
    """Return a step in the usual form."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    kind, is_bf16 = tokens.device.type, precision == "bfloat16"

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(kind, torch.bfloat16, enabled=is_bf16):
            loss = model.loss(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if isinstance(model, PlainSparseGPT):
            model.project_()

    return step
