"""Revival: MLP neurons that stayed silent for many steps get new weights.

A neuron that AbsTopK never keeps gets no gradient, so that it can stay silent for ever. Revival
counts neurons that are 0 at every token between two checks, draws the row that each reads and the
column that it writes as at initialisation, and clears their Adam moments.
Source: ours; Gao et al. 2025, App. A.2 (the floor), has the same aim.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from wirework.config import RevivalConfig
from wirework.nn import Edit, Transformer
from wirework.training.prior import Prior, StepLosses


class Revival(Prior):
    """The prior that revives silent neurons.

    The draws come from torch's generator of the CPU. What was seen since the last check is a
    parameter without gradient, so that a checkpoint has it.

    Args:
        config: steps between checks, and size of the new weights.
        steps: number of training steps.
    """

    def __init__(self, config: RevivalConfig, steps: int) -> None:
        self.config = config
        self.steps = steps

    def wrap_model(self, transformer: Transformer) -> Transformer:
        """Create the record of active neurons and the count of revived ones."""
        self._transformer = transformer
        device = transformer.embed.weight.device
        shape = (transformer.config.n_layer, transformer.config.d_mlp)
        self._active = nn.Parameter(torch.zeros(shape, device=device), requires_grad=False)
        self._count = nn.Parameter(
            torch.zeros((), dtype=torch.int64, device=device), requires_grad=False
        )
        return transformer

    def prepare(self, transformer: Transformer, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002
        """Remember the optimizer, whose moments are cleared."""
        self._optimizer = optimizer

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the state of the prior; none of it has a gradient."""
        return {"revival.active": self._active, "revival.count": self._count}

    def loss(self, clean: Callable[[], StepLosses], tokens: Tensor, targets: Tensor) -> StepLosses:  # noqa: ARG002
        """Record which neurons are active; add `revived_neurons`, their number before this step."""
        edits = {f"{layer}.mlp.post_act": self._marker(layer) for layer in range(len(self._active))}
        with self._transformer.edited(edits):
            losses = clean()
        return {**losses, "revived_neurons": self._count.clone()}

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, float]:
        """Revive the silent neurons, if a check is due; the log gets its numbers from `loss`."""
        done = step + 1
        if done % self.config.silent_steps == 0 and done <= self.config.until * self.steps:
            silent = (self._active == 0).cpu()
            for layer, neurons in enumerate(silent):
                self._revive(layer, neurons.nonzero().flatten().tolist())
            self._count.add_(int(silent.sum()))
            self._active.zero_()
        return {}

    def _marker(self, layer: int) -> Edit:
        def mark(x: Tensor) -> Tensor:
            active = x.detach().flatten(0, -2).any(0)
            self._active[layer].copy_(self._active[layer].maximum(active.to(self._active.dtype)))
            return x

        return mark

    def _revive(self, layer: int, neurons: Sequence[int]) -> None:
        """Draw the weights of neurons of a layer anew and clear their moments."""
        if not neurons:
            return
        mlp = self._transformer.blocks[layer].mlp
        index = torch.tensor(neurons, device=self._active.device)
        self._draw_(mlp.up.weight, 0, index, self._std(layer, "up"))
        self._draw_(mlp.down.weight, 1, index, self._std(layer, "down"))
        if mlp.up.bias is not None:
            self._draw_(mlp.up.bias, 0, index, 0.0)

    def _std(self, layer: int, matrix: str) -> float:
        name = f"blocks.{layer}.mlp.{matrix}.weight"
        return self.config.scale * self._transformer.initial_std(name)

    def _draw_(self, weight: Tensor, dim: int, index: Tensor, std: float) -> None:
        """Draw the entries of a dimension anew and set their moments to 0."""
        shape = list(weight.shape)
        shape[dim] = len(index)
        drawn = torch.randn(shape) * std if std else torch.zeros(shape)
        weight.index_copy_(dim, index, drawn.to(weight.device, weight.dtype))
        state = self._optimizer.state.get(weight, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name].index_fill_(dim, index, 0.0)
