"""AdamW as in Gao et al. 2025, App. A.2, and scaling of the gradient.

eps 0.1 is only reasonable for a gradient whose root mean square is about 1, so the two belong
together.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wirework.config import OptimizerConfig
from wirework.nn import Transformer
from wirework.training.live_gradient import LiveGradient

_USUAL_EPS = 1e-8
_OWN_LR = "own_lr"
"""Key of the peak learning rate in a group that is trained apart."""


def make_optimizer(
    transformer: Transformer,
    config: OptimizerConfig,
    gates: Mapping[str, nn.Parameter] = MappingProxyType({}),
    apart: Sequence[tuple[float, Iterable[nn.Parameter]]] = (),
) -> torch.optim.AdamW:
    """Return fused AdamW over all trained parameters.

    Weight decay acts on matrices only, including embedding and unembedding: not on biases, norms,
    sinks, positions or the bigram table.

    Args:
        transformer: the model on its final device, after all priors have wrapped it.
        config: settings; the loop sets the learning rate again at every step.
        gates: parameters of priors that are trained as the model's, by name.
        apart: peak learning rate and parameters of priors that are trained apart; see
            `Prior.own_lr`.

    Source: Gao et al. 2025, App. A.2.
    """
    named = [p.name for p in transformer.prunable() if p.parameter.dim() == 2]
    matrices = {*named, *(name for name, parameter in gates.items() if parameter.dim() == 2)}
    parameters_by_name = {**dict(transformer.named_parameters()), **gates}
    trained = [(n, p) for n, p in parameters_by_name.items() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "params": [p for n, p in trained if n in matrices],
            "weight_decay": config.weight_decay,
        },
        {"params": [p for n, p in trained if n not in matrices], "weight_decay": 0.0},
    ]
    groups += [
        {"params": list(parameters), "weight_decay": 0.0, "eps": _USUAL_EPS, _OWN_LR: own_lr}
        for own_lr, parameters in apart
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def set_learning_rate_(optimizer: torch.optim.Optimizer, rate: float, factor: float = 1.0) -> None:
    """Set the learning rates of a step.

    Args:
        optimizer: result of `make_optimizer`.
        rate: learning rate of the model.
        factor: that of the schedule, by which learning rates of parameters trained apart are
            multiplied.
    """
    for group in optimizer.param_groups:
        group["lr"] = group[_OWN_LR] * factor if _OWN_LR in group else rate


@torch.no_grad()
def gradient_rms(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the root mean square of the whole gradient, a scalar float32.

    Args:
        parameters: at least one; those without a gradient are ignored.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm: Tensor = torch.nn.utils.get_total_norm(gradients)
    rms: Tensor = norm / max(sum(g.numel() for g in gradients), 1) ** 0.5
    return rms


@torch.no_grad()
def scale_gradients_(
    parameters: Iterable[nn.Parameter],
    mode: Literal["normalise", "clip", "clip_norm", "none"],
    live: LiveGradient | None = None,
) -> Tensor:
    """Bring the root mean square, or the norm, of the whole gradient to 1, in place.

    Args:
        parameters: all parameters; those without a gradient are ignored.
        mode: `normalise` always scales the root mean square to 1, `clip` only if it is above 1,
            `clip_norm` scales the norm to 1 if it is above 1, `none` scales nothing.
        live: matrices of which only entries are trained. Their whole gradient counts, by an
            estimate.

    Returns:
        Scalar float32: the root mean square before scaling. If it is 0, NaN or infinite, the
        gradient is not changed, and the caller must check it.

    Source: Gao et al. 2025, App. A.2 (clip); the authors' code (normalise).
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    entries = sum(g.numel() for g in gradients)
    norm: Tensor = torch.nn.utils.get_total_norm(gradients)
    if live is not None and live.matrices:
        live.take_explored()
        gradients += live.gradients()
        entries += live.n_weights()
        norm = torch.hypot(norm, live.norm())
    rms: Tensor = norm / max(entries, 1) ** 0.5
    if mode == "none":
        return rms
    factor = (norm if mode == "clip_norm" else rms).reciprocal()
    factor = factor if mode == "normalise" else factor.clamp(max=1.0)
    usable = factor.isfinite() & (factor > 0)
    torch._foreach_mul_(gradients, torch.where(usable, factor, 1.0))
    return rms
