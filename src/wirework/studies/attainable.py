"""Whether a sparse model can have its number of nonzero weights, given the floor of its neurons."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from wirework.config import FrontierConfig, ModelConfig
from wirework.errors import InputError
from wirework.files import is_file
from wirework.nn import Transformer
from wirework.studies.points import CELLS, FrontierPoint, expected_vocabulary, settings_of
from wirework.training.weight_sparsity import kept_entries


def check_attainable(
    points: Sequence[FrontierPoint], study: FrontierConfig, out: str | Path
) -> None:
    """Check that no floor keeps more weights than a point asks for.

    Models whose training has begun are not checked, so that studies of earlier versions, which did
    not check, can be gone on with; neither are models with impossible settings, which fail alone.

    Raises:
        InputError: a floor keeps more weights.
    """
    for point in points:
        folder = Path(out) / CELLS / point.name
        has_begun = is_file(folder / "cell.json") or is_file(folder / "run" / "config.yaml")
        if point.l0_count is None or has_begun:
            continue
        try:
            config = settings_of(point, study, out)
        except InputError:
            continue
        if config.weight_sparsity is not None:
            model = config.model.model_copy(update={"vocab_size": expected_vocabulary(study)})
            _check(point, model, config.weight_sparsity.floor)


def _check(point: FrontierPoint, model: ModelConfig, floor: int) -> None:
    assert point.l0_count is not None
    kept = weights_kept(model, point.l0_count, floor)
    if kept > weights_kept(model, point.l0_count, 0):
        raise InputError(
            f"{point.name}: a floor of {floor} nonzeros per neuron and channel keeps {kept:,} "
            f"weights, l0_counts asks for {point.l0_count:,}: ask for at least "
            f"{least_l0(model, floor):,}, lower train.weight_sparsity.floor, or leave out width "
            f"{point.width}"
        )


def weights_kept(model: ModelConfig, l0_count: int, floor: int) -> int:
    """Return how many weights stay nonzero at the end of training.

    Args:
        model: the transformer.
        l0_count: nonzero entries that are asked for, spread over all tensors by their size.
        floor: fewest nonzeros of each neuron and channel.

    Source: Gao et al. 2025, sec. 2.1, App. A.2.
    """
    sizes = _sizes_and_floors(model, floor)
    share = l0_count / sum(size for size, _ in sizes)
    return sum(max(kept_entries(share, size), least) for size, least in sizes)


def least_l0(model: ModelConfig, floor: int) -> int:
    """Return the smallest `l0_count` of which no tensor's floor keeps more than its part."""
    sizes = _sizes_and_floors(model, floor)
    share = max(least / size for size, least in sizes)
    return math.ceil(share * sum(size for size, _ in sizes))


def _sizes_and_floors(model: ModelConfig, floor: int) -> list[tuple[int, int]]:
    """Return for each tensor its entries, and how many of them the floor keeps."""
    with torch.device("meta"):
        tensors = Transformer(model).prunable()
    sizes = []
    for _, parameter, dim in tensors:
        least = 0 if dim is None else parameter.shape[dim] * min(floor, parameter.shape[1 - dim])
        sizes.append((parameter.numel(), least))
    return sizes
