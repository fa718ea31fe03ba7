"""Merging: what comes of it is never larger than the smallest that went in."""

import pytest
import torch
from hand_wired.quote_closer import NODES

from wirework.circuits import Ablation
from wirework.circuits.masking.node_statistics import ablated_sites
from wirework.circuits.pruning.discretise import clean_up
from wirework.circuits.pruning.merging import CircuitSize, cleaned_and_merged, size_of
from wirework.model import Model
from wirework.tasks import TokenizedPairs


@pytest.mark.slow
def test_merging_never_loses_to_the_smallest(ablation: Ablation, rows: TokenizedPairs) -> None:
    everything = torch.ones(1, ablation.size)
    target = float(ablation.losses(everything, rows)) + 0.05
    generator = torch.Generator().manual_seed(3)
    masks = [torch.ones(ablation.size) for _ in range(3)]
    for mask in masks[1:]:
        for place in torch.randperm(ablation.size, generator=generator)[:40].tolist():
            mask[place] = 0
            if float(ablation.losses(mask[None], rows)) > target:
                mask[place] = 1
    told: list[tuple[float, float]] = []
    found, which = cleaned_and_merged(
        ablation, masks, rows, target, lambda *done: told.append(done)
    )
    alone = [size_of(ablation, clean_up(ablation, mask, rows, target)) for mask in masks]
    assert len(set(alone)) > 1
    assert alone[which] == min(alone)
    assert size_of(ablation, found) <= min(alone)
    assert float(ablation.losses(found[None], rows)) <= target
    ends = [done for done in told if all(float(part).is_integer() for part in done)]
    assert ends == [(1, 0), (2, 0), (3, 0), (3, 1), (3, 2)]
    assert len(told) > 2 * len(ends)  # and in between, at every try
    assert told == sorted(told)


def test_sizes_compare_by_edges_then_nodes(wired: Model) -> None:
    means = {
        name: torch.zeros(wired.transformer.sites[name].width)
        for name in ablated_sites(wired.transformer)
    }
    ablation = Ablation.of(wired.transformer, means)
    kept: dict[str, list[int]] = {}
    for site, index in NODES:
        kept.setdefault(site, []).append(index)
    assert size_of(ablation, ablation.space.gates(kept)) == CircuitSize(3, 5)
    assert CircuitSize(3, 5) < CircuitSize(3, 6) < CircuitSize(4, 2)
