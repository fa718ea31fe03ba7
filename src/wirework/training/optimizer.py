"""AdamW as in Gao et al. 2025, App. A.2, and the scale of the gradient it sees.

eps 0.1 makes sense only for a gradient whose root mean square is about 1, so the two go together.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from wirework.config import OptimizerConfig
from wirework.nn import Transformer


def make_optimizer(
    transformer: Transformer,
    config: OptimizerConfig,
    gates: Mapping[str, nn.Parameter] = MappingProxyType({}),
) -> torch.optim.AdamW:
    """Return fused AdamW over all trained parameters.

    Weight decay acts on matrices (embedding and unembedding included) and on nothing else: not on
    biases, norms, sinks, positions or the bigram table.

    Args:
        transformer: on its final device, after priors added what they add.
        config: rates; the learning rate is set anew at every step by the loop.
        gates: what priors train beside it, matrices and biases.
    """
    named = [p.name for p in transformer.prunable() if p.parameter.dim() == 2]
    matrices = {*named, *(name for name, parameter in gates.items() if parameter.dim() == 2)}
    every = {**dict(transformer.named_parameters()), **gates}
    trained = [(n, p) for n, p in every.items() if p.requires_grad]
    groups = [
        {
            "params": [p for n, p in trained if n in matrices],
            "weight_decay": config.weight_decay,
        },
        {"params": [p for n, p in trained if n not in matrices], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def set_learning_rate_(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def scale_gradients_(
    parameters: Iterable[nn.Parameter], mode: Literal["normalise", "clip", "clip_norm", "none"]
) -> Tensor:
    """Bring the root mean square, or the norm, of the whole gradient to 1, in place.

    Args:
        parameters: all of them; those without a gradient count as absent.
        mode: `normalise` always, `clip` only from above, `clip_norm` the norm only from above,
            `none` never.

    Returns:
        Scalar float32: the root mean square before. Where it is 0, NaN or infinite the gradient is
        left as it was; the caller looks at it.

    Source: Gao et al. 2025, App. A.2 (clip); the authors' code (normalise).
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    entries = sum(g.numel() for g in gradients)
    norm: Tensor = torch.nn.utils.get_total_norm(gradients)
    rms: Tensor = norm / max(entries, 1) ** 0.5
    if mode == "none":
        return rms
    factor = (norm if mode == "clip_norm" else rms).reciprocal()
    factor = factor if mode == "normalise" else factor.clamp(max=1.0)
    usable = factor.isfinite() & (factor > 0)
    torch._foreach_mul_(gradients, torch.where(usable, factor, 1.0))
    return rms
