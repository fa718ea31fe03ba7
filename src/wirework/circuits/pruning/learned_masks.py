"""Training of Heaviside masks: one parameter tau per node; the node is kept where tau > 0.

The forward pass uses the step function, the backward pass the derivative of a sigmoid (surrogate
gradient). The loss is the task loss plus `k_coef` times the number of kept nodes. R trials with
different settings share every forward and backward pass.
Shapes: R trials, G gates. Source: Gao et al. 2025, sec. 2.2, App. A.5.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.masks import length_groups, without_weight_gradients
from wirework.circuits.pruning.adversarial_training import TRAINING_TOKENS, worst_logit_diffs
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.renamed_names import old_arguments
from wirework.tasks import TokenizedPairs
from wirework.tasks.task_loss import reduced

_BETA1, _EPS, _CLIP = 0.9, 1e-8, 1.0
"""Settings of AdamW that are the same for all trials, and the largest norm of a gradient."""

AfterStep = Callable[[int, list[int], Tensor], list[bool]]
"""Gets the step (from 1), the trials still training and their tau; returns which continue."""


@dataclass(frozen=True)
class MaskSettings:
    """The hyperparameters of one trial; `PruneConfig` describes each."""

    k_coef: float
    init_noise_scale: float
    init_noise_bias: float
    weight_decay: float
    lr: float
    inv_beta2: float
    lr_warmup: float
    heaviside_temp: float


class _SettingColumns(NamedTuple):
    """`MaskSettings` of R trials, each (R, 1), to broadcast over gates."""

    k_coef: Tensor
    init_noise_scale: Tensor
    init_noise_bias: Tensor
    weight_decay: Tensor
    lr: Tensor
    inv_beta2: Tensor
    lr_warmup: Tensor
    heaviside_temp: Tensor


@old_arguments(rows="batch")
@unchanged_weights()
def learn_masks(
    ablation: Ablation,
    batch: TokenizedPairs,
    settings: Sequence[MaskSettings],
    *,
    steps: int,
    batch_pairs: int,
    seeds: Sequence[int],
    warm: Tensor | None = None,
    after_step: "AfterStep | None" = None,
) -> Tensor:
    """Train the Heaviside masks of several trials at once.

    Args:
        ablation: the model and the means of its nodes.
        batch: the task's training pairs.
        settings: hyperparameters of each trial.
        steps: optimizer steps.
        batch_pairs: pairs per step, the same pairs for all trials; at most all pairs.
        seeds: one per trial, for its initial noise; the first also draws the batches.
        warm: (G,) warm start from -1 to 1, which scales the initial mean of tau by 0 to 2; gates
            with low values are removed first. None: the same mean for all gates.
        after_step: may stop trials early; a stopped trial keeps its current tau.

    Returns:
        tau, (R, G) float32 in [-1, 1]; higher means more important.
    """
    columns = _columns(settings, batch.tokens.device)
    tau = _initial(columns, ablation.size, seeds, warm)
    first_moment, second_moment = torch.zeros_like(tau), torch.zeros_like(tau)
    final_tau, trials = tau.clone(), torch.arange(len(tau), device=tau.device)
    generator = torch.Generator().manual_seed(seeds[0])
    with without_weight_gradients(ablation.transformer):
        for step in range(1, steps + 1):
            pairs = torch.randperm(batch.n_pairs, generator=generator)[:batch_pairs]
            # Not one of the resamples that will judge the masks.
            resampled = replace(ablation, draw=ablation.n_resamples + step)
            gradient = _gradient(resampled, batch.select(pairs), tau, columns)
            rate = columns.lr * _schedule(step, steps, columns.lr_warmup)
            _adamw_(tau, gradient, first_moment, second_moment, columns, rate, step)
            tau.clamp_(-1, 1)
            final_tau[trials] = tau
            continues = [True] if after_step is None else after_step(step, trials.tolist(), tau)
            if not all(continues):
                trials, tau, first_moment, second_moment = (
                    tensor[continues] for tensor in (trials, tau, first_moment, second_moment)
                )
                columns = _SettingColumns(*(column[continues] for column in columns))
                if not len(trials):
                    break
    return final_tau


def heaviside(tau: Tensor, temp: Tensor | float) -> Tensor:
    """Return 1 where `tau` > 0, else 0, with the gradient of sigmoid(tau / temp).

    Args:
        tau: any shape.
        temp: broadcasts with `tau`.

    Source: Gao et al. 2025, App. A.5 (surrogate gradient).
    """
    gates: Tensor = _Heaviside.apply(tau, torch.as_tensor(temp, device=tau.device))  # type: ignore[no-untyped-call]
    return gates


class _Heaviside(torch.autograd.Function):
    """Step function forward, derivative of sigmoid(tau / temp) backward."""

    @staticmethod
    def forward(ctx: Any, tau: Tensor, temp: Tensor) -> Tensor:
        ctx.save_for_backward(tau, temp)
        return (tau > 0).to(tau.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        tau, temp = ctx.saved_tensors
        soft = torch.sigmoid(tau / temp)
        return grads[0] * soft * (1 - soft) / temp, None


def _gradient(
    ablation: Ablation, batch: TokenizedPairs, tau: Tensor, columns: _SettingColumns
) -> Tensor:
    """Return the gradient of task loss + k_coef x kept nodes per trial, norm at most 1; (R, G)."""
    leaf = tau.detach().requires_grad_()
    gradient = torch.zeros_like(tau)
    is_adversarial = ablation.value_range is not None
    tokens = TRAINING_TOKENS if is_adversarial else ablation.tokens_together
    for pairs in length_groups(batch, len(tau), tokens):
        gates, part = heaviside(leaf, columns.heaviside_temp), batch.select(pairs)
        logit_diffs = (
            worst_logit_diffs(ablation, gates, part)
            if is_adversarial
            else ablation.logit_diffs_together(gates, part)
        )
        losses = F.softplus(-logit_diffs).sum(1)
        share = len(pairs) / batch.n_pairs
        total = (
            reduced(losses.sum() / len(batch.last_positions), ablation.loss_reduction)
            + share * (columns.k_coef * ablation.nodes(gates)).sum()
        )
        gradient += torch.autograd.grad(total, leaf)[0]
    norm = gradient.norm(dim=1, keepdim=True)
    return gradient.mul_(_CLIP / norm.clamp(min=_CLIP))


def _adamw_(
    tau: Tensor,
    gradient: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    columns: _SettingColumns,
    rate: Tensor,
    step: int,
) -> None:
    """Do one AdamW step with separate settings per trial, which torch's optimizer cannot do."""
    beta2 = 1 - columns.inv_beta2
    first_moment.lerp_(gradient, 1 - _BETA1)
    second_moment.mul_(beta2).addcmul_(gradient * columns.inv_beta2, gradient)
    tau.mul_(1 - rate * columns.weight_decay)
    scale = (second_moment / (1 - beta2**step)).sqrt_().add_(_EPS)
    tau.sub_(rate / (1 - _BETA1**step) * first_moment / scale)


def _schedule(step: int, steps: int, warmup: Tensor) -> Tensor:
    """Return the learning-rate factor at a step (from 1): linear warmup, then linear decay to 0."""
    done = step / (steps + 1)
    rise = done / warmup.clamp(min=1e-9)
    return torch.minimum(rise, (1 - done) / (1 - warmup)).clamp(max=1)


def _initial(
    columns: _SettingColumns, size: int, seeds: Sequence[int], warm: Tensor | None
) -> Tensor:
    """Return noise_scale x N(0, 1) + noise_bias x (1 + warm), (R, G), clamped to [-1, 1]."""
    noise = [torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    scaled_noise = torch.stack(noise).to(columns.lr.device) * columns.init_noise_scale
    relative_mean = 1 if warm is None else 1 + warm
    return (scaled_noise + columns.init_noise_bias * relative_mean).clamp_(-1, 1)


def _columns(settings: Sequence[MaskSettings], device: torch.device) -> _SettingColumns:
    table = torch.tensor([astuple(trial) for trial in settings], device=device)
    return _SettingColumns(*table.unsqueeze(-1).unbind(1))
