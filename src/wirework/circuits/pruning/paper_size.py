"""Size of a circuit as the paper measures it: plain bisection of the ranking of one mask.

Our circuits are also cleaned up, merged and pruned of edges, so their sizes are no match for the
paper's. Shapes: G gates. Source: Gao et al. 2025, sec. 2.2, App. A.5.
"""

from collections.abc import Sequence

from torch import Tensor

from wirework.circuit_format import PaperSize
from wirework.circuits.calibration import IDENTITY, calibrate, calibrated_loss
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.pruning.discretise import discretise
from wirework.circuits.pruning.merging import size_of
from wirework.circuits.pruning.search_folder import Candidate
from wirework.tasks import TokenizedPairs


def paper_mask(
    ablation: Ablation,
    candidates: Sequence[tuple[Candidate, Tensor]],
    batch: TokenizedPairs,
    target: float,
) -> Tensor | None:
    """Return the mask with the fewest edges that bisection of one candidate's ranking gives.

    Args:
        ablation: the model with its gates, as the search used it.
        candidates: candidates of one finder, each with its mask (G,) after bisection.
        batch: the judging pairs.
        target: task loss in nats.

    Returns:
        (G,), or None if no mask reaches the target. If the search has other ablation modes too, the
        smallest candidate is bisected again under mean ablation alone, as in the paper.
    """
    candidate, mask = min(candidates, key=lambda one: size_of(ablation, one[1]))
    if len(ablation.ablation_modes()) > 1:
        ablation = ablation.with_mean_ablation()
        mask = discretise(ablation, candidate.tau, batch, target, int(mask.sum()))
    return mask if ablation.within(mask, batch, target) else None


def paper_size(
    ablation: Ablation, mask: Tensor, judge: TokenizedPairs, held_out: TokenizedPairs
) -> PaperSize:
    """Return the size of the circuit of a mask, and its losses under mean ablation.

    Args:
        ablation: the model with its gates.
        mask: (G,).
        judge: the judging pairs, on which scale and shift are fitted too.
        held_out: the held-out pairs.
    """
    size, ablation = size_of(ablation, mask), ablation.with_mean_ablation()
    judged, unseen = (ablation.all_logit_diffs(mask[None], pairs)[0] for pairs in (judge, held_out))
    calibration, reduction = calibrate(judged), ablation.loss_reduction
    return PaperSize(
        n_nodes=size.nodes,
        n_edges=size.edges,
        task_loss=calibrated_loss(judged, IDENTITY, reduction),
        task_loss_calibrated=calibrated_loss(judged, calibration, reduction),
        held_out_loss=calibrated_loss(unseen, IDENTITY, reduction),
        held_out_loss_calibrated=calibrated_loss(unseen, calibration, reduction),
    )
