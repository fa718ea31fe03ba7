"""Smooth L0 regularisation: each weight has a random gate, and the expected number of gates that
are not 0 is part of the loss.

While the model trains, the gates are drawn anew at each step. Evaluation and the saved model use
their deterministic values, of which many are exactly 0.
Source: Louizos et al. 2018 (arXiv 1712.01312), which Gao et al. 2025, App. D, compares with top-k.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from wirework.config import HardConcreteConfig
from wirework.nn import Transformer
from wirework.nn.replaced_weights import weights_replaced
from wirework.training.prior import Prior, StepLosses

_MIN_UNIFORM = 1e-6
"""Uniform numbers keep this distance from 0 and 1, whose logit is infinite."""


class HardConcrete(Prior):
    """The prior of smooth L0 regularisation, on every tensor that weight sparsity would project.

    Args:
        config: coefficient and shape of the gates.
        steps: number of training steps.

    Source: Louizos et al. 2018, sec. 2.2.
    """

    def __init__(self, config: HardConcreteConfig, steps: int) -> None:
        self.config = config
        self.steps = steps

    def wrap_model(self, transformer: Transformer) -> Transformer:
        """Create the gates, all with the same log_alpha, on the device of the model."""
        self._transformer = transformer
        start = _initial_log_alpha(self.config) / self.config.lr_scale
        self._weights = {entry.name: entry.parameter for entry in transformer.prunable()}
        # Flat: the optimizer gives weight decay to matrices, and gates have none.
        self._gates = {
            name: nn.Parameter(torch.full((weight.numel(),), start, device=weight.device))
            for name, weight in self._weights.items()
        }
        return transformer

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return log_alpha of each tensor, divided by `lr_scale`."""
        return {f"hard_concrete.{name}": gate for name, gate in self._gates.items()}

    def loss(self, clean: Callable[[], StepLosses], tokens: Tensor, targets: Tensor) -> StepLosses:  # noqa: ARG002
        """Return the losses of the gated weights and `loss_l0`, which is part of `total`.

        Also `expected_l0`, the expected number of nonzero weights, and `l0_fraction`, the share of
        weights that the model would keep now.
        """
        alphas = {name: self._log_alpha(name) for name in self._gates}
        gates = {
            name: sample_gates(alpha, torch.rand_like(alpha), self.config)
            for name, alpha in alphas.items()
        }
        with self._replaced(gates):
            losses = clean()
        every = torch.cat(list(alphas.values()))
        expected = open_probability(every, self.config).sum()
        penalty = self.config.coef * expected
        return {
            **losses,
            "loss_l0": penalty,
            "expected_l0": expected,
            "l0_fraction": (final_gates(every.detach(), self.config) > 0).float().mean(),
            "total": losses["total"] + penalty,
        }

    def is_settled(self, step: int) -> bool:
        """Return whether this is the last step: gates close until then."""
        return step == self.steps - 1

    def final_weights(self) -> AbstractContextManager[None]:
        """Use the deterministic gates inside a `with` block."""
        return self._replaced(self._final_gates())

    @torch.no_grad()
    def finish(self) -> None:
        """Multiply the weights by their deterministic gates."""
        for name, gates in self._final_gates().items():
            weight = self._weights[name]
            weight.mul_(gates.to(weight.device).view(weight.shape))

    def _log_alpha(self, name: str) -> Tensor:
        return self._gates[name] * self.config.lr_scale

    def _final_gates(self) -> dict[str, Tensor]:
        with torch.no_grad():
            return {name: final_gates(self._log_alpha(name), self.config) for name in self._gates}

    def _replaced(self, gates: dict[str, Tensor]) -> AbstractContextManager[None]:
        gated = {
            weight: weight * gates[name].view(weight.shape)
            for name, weight in self._weights.items()
        }
        return weights_replaced(self._transformer, gated)


def sample_gates(log_alpha: Tensor, uniform: Tensor, config: HardConcreteConfig) -> Tensor:
    """Return gates drawn from the hard concrete distribution.

    Args:
        log_alpha: (N,) location of each gate.
        uniform: (N,) uniform random numbers in [0, 1).
        config: temperature and interval.

    Returns:
        (N,) in [0, 1]; both ends have a positive probability.

    Source: Louizos et al. 2018, eq. 10.
    """
    uniform = uniform.clamp(_MIN_UNIFORM, 1 - _MIN_UNIFORM)
    concrete = ((uniform.logit() + log_alpha) / config.temperature).sigmoid()
    return _stretched(concrete, config)


def final_gates(log_alpha: Tensor, config: HardConcreteConfig) -> Tensor:
    """Return the deterministic gates of the final model, (N,) in [0, 1].

    Source: Louizos et al. 2018, eq. 13.
    """
    return _stretched(log_alpha.sigmoid(), config)


def open_probability(log_alpha: Tensor, config: HardConcreteConfig) -> Tensor:
    """Return the probability that a drawn gate is not 0, (N,).

    Source: Louizos et al. 2018, eq. 12.
    """
    return (log_alpha - _shift(config)).sigmoid()


def _stretched(concrete: Tensor, config: HardConcreteConfig) -> Tensor:
    return (concrete * (config.high - config.low) + config.low).clamp(0, 1)


def _shift(config: HardConcreteConfig) -> float:
    return config.temperature * math.log(-config.low / config.high)


def _initial_log_alpha(config: HardConcreteConfig) -> float:
    return math.log(config.initial_open / (1 - config.initial_open)) + _shift(config)
