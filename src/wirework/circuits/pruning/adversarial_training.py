"""Learned masks against an adversary that sets the removed nodes of every prompt anew at each step.

The adversary takes single sign steps from the means (Goodfellow et al. 2015, arXiv 1412.6572), the
first over the whole range. It sets every node, kept ones too: the gradient of a gate is then the
loss that the adversary could add if the node were removed, to first order.
Shapes: R masks, G gates, N nodes of all sites, P pairs (two prompts each).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.ascent import at_ends
from wirework.circuits.masking.value_range import ValueRange
from wirework.nn import Edit
from wirework.nn.sites import MeanAblation
from wirework.tasks import TokenizedPairs, logit_difference

TRAINING_TOKENS = 4096
"""Tokens of all masks in one pass: every prompt of every mask has its own values."""


def worst_logit_diffs(ablation: Ablation, gates: Tensor, batch: TokenizedPairs) -> Tensor:
    """Return the logit differences (R, 2P) of masks at the values of an adversary.

    Args:
        ablation: the model with its gates and the range of its nodes.
        gates: (R, G); gradients flow to it.
        batch: P tokenised pairs.
    """
    assert ablation.value_range is not None
    masks = ablation.nodes(gates)
    values = worst_values(ablation, masks.detach(), batch, ablation.value_range)
    return _logit_diffs(ablation, masks, batch, values)


def worst_values(
    ablation: Ablation, masks: Tensor, batch: TokenizedPairs, bounds: ValueRange
) -> Tensor:
    """Return each node's end of its range that raises the loss of each prompt and mask.

    Args:
        ablation: the model and the means of its nodes.
        masks: (R, N), without gradients.
        batch: P tokenised pairs.
        bounds: range of each node.

    Returns:
        (R x 2P, N); a node without gradient stays at its mean.
    """
    means = ablation.space.join(ablation.means)
    means = means.expand(len(masks) * len(batch.last_positions), -1)
    change = torch.zeros_like(means).requires_grad_()
    logit_diffs = _logit_diffs(ablation, masks, batch, means, change)
    gradient = torch.autograd.grad(F.softplus(-logit_diffs).sum(), change)[0]
    return at_ends(gradient, bounds, means)


def _logit_diffs(
    ablation: Ablation,
    masks: Tensor,
    batch: TokenizedPairs,
    values: Tensor,
    change: Tensor | None = None,
) -> Tensor:
    """Return the logit differences (R, 2P) of masks (R, N) at values (R x 2P, N).

    `change`, (R x 2P, N), is added to every node at all tokens.
    """
    n_prompts, space = len(batch.last_positions), ablation.space
    gates = space.split(masks.repeat_interleave(n_prompts, 0))
    by_site = space.split(values)
    edits: dict[str, Edit] = {
        name: MeanAblation(gates[name][:, None], by_site[name][:, None], False) for name in gates
    }
    if change is not None:
        changes = space.split(change)
        edits = {name: _changed(edit, changes[name]) for name, edit in edits.items()}
    with ablation.transformer.edited(edits):
        logits = ablation.transformer(
            batch.tokens.repeat(len(masks), 1), batch.last_positions.repeat(len(masks))
        )
    return logit_difference(logits, batch.answers.repeat(len(masks), 1)).view(len(masks), -1)


def _changed(edit: Edit, change: Tensor) -> Edit:
    return lambda x: edit(x) + change[:, None]
