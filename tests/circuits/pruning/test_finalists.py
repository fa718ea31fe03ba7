import torch

from wirework.circuits.pruning.finalists import affordable_candidates
from wirework.circuits.pruning.search_folder import Candidate


def test_orders_that_bisection_leaves_large_are_not_cleaned_up() -> None:
    def left(*sizes: int) -> list[int]:
        masks = [(torch.arange(3000) < size).float() for size in sizes]
        best = [Candidate(0, 0, mask) for mask in masks]
        return [int(mask.sum()) for _, mask in affordable_candidates(best, masks)]

    assert left(20, 250) == [20, 250]  # both take no time
    assert left(20, 257) == [20]
    assert left(900, 1800, 1801) == [900, 1800]
    assert left(2500) == [2500]
