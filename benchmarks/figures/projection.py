"""Projection of all matrices to 1/64 with a floor of 4, over reading and writing them once."""

import torch

from benchmarks.figure import Figure
from benchmarks.settings import Settings
from benchmarks.step import D_HEAD, VOCAB
from benchmarks.timing import Step, alternate, over
from wirework.config import ModelConfig
from wirework.nn import Transformer
from wirework.nn.projection import Projection

TARGET = 3.0


def measure(settings: Settings) -> list[Figure]:
    """Return the ratio for a model of four layers, after a small change of its weights."""
    width = 64 if settings.quick else 512
    disturb, project, read_and_write = functions(width)
    seconds = alternate(
        {"project": project, "read and write": read_and_write},
        3 * settings.counted_rounds,
        before_round=disturb,
    )
    return [
        Figure.of(
            f"projection width {width} / reading and writing once",
            over(seconds["project"], seconds["read and write"]),
            target=None if settings.quick else TARGET,
        ),
        Figure.of(
            f"projection width {width}", [1e3 * value for value in seconds["project"]], unit="ms"
        ),
    ]


def functions(width: int) -> tuple[Step, Step, Step]:
    """Return a small change of all matrices, their projection, and one pass over them."""
    config = ModelConfig(vocab_size=VOCAB, d_model=width, n_layer=4, d_head=D_HEAD)
    matrices = [p for p in Transformer(config).prunable() if p.parameter.dim() == 2]
    projections = [Projection(p.parameter, floor=4, floor_dim=p.floor_dim) for p in matrices]
    generator = torch.Generator().manual_seed(0)

    def project() -> None:
        for projection in projections:
            projection.keep_(max(1, projection.weight.numel() // 64))

    def read_and_write() -> None:
        for projection in projections:
            projection.weight.data.mul_(1.0)

    def disturb() -> None:
        for projection in projections:
            weight = projection.weight.data
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=1e-4)

    project()
    return disturb, project, read_and_write
