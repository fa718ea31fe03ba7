"""AUROC: how well a score separates nodes of a circuit from other nodes."""

from torch import Tensor

from wirework.errors import InputError


def auroc(score: Tensor, truth: Tensor) -> float:
    """Return the area under the ROC curve of a score.

    It is the share of pairs of a true and a false entry in which the true one scores higher, ties
    counted half: 1 is a perfect score, 0.5 chance.

    Args:
        score: (N,), higher is more likely true.
        truth: (N,) bool.

    Raises:
        InputError: the shapes differ, `truth` holds only one kind, or a score is not a number.
    """
    from scipy.stats import rankdata  # slow to import

    if score.dim() != 1 or score.shape != truth.shape:
        raise InputError(f"scores {tuple(score.shape)} and truth {tuple(truth.shape)} do not pair")
    if bool(score.isnan().any()):
        raise InputError("AUROC got a score that is not a number")
    truth = truth.bool().cpu()
    true = int(truth.sum())
    false = len(truth) - true
    if not true or not false:
        raise InputError(f"AUROC needs true and false entries, got {true} and {false}")
    ranks = rankdata(score.double().cpu().numpy())  # from 1, ties at their middle
    wins = float(ranks[truth.numpy()].sum()) - true * (true + 1) / 2
    return wins / (true * false)
