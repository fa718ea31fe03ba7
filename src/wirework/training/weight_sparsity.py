"""Weight sparsity: after every optimizer step each matrix and bias keeps its top k by magnitude.

The same fraction of each tensor is kept, including embedding and unembedding. Gradients and Adam
moments stay dense, so that a zeroed weight can return.
Source: Gao et al. 2025, sec. 2.1, App. A.2.
"""

import re
from collections.abc import Sequence

import torch

from wirework.config import WeightSparsityConfig
from wirework.console import warn
from wirework.nn import Transformer
from wirework.nn.projection import Projection, keep_all_
from wirework.training.live_gradient import LiveGradient
from wirework.training.prior import Prior
from wirework.training.schedule import nonzero_fraction, sharkfin


class WeightSparsity(Prior):
    """The prior of weight-sparse training.

    Args:
        config: target, floor and annealing.
        steps: number of training steps.

    Source: Gao et al. 2025, sec. 2.1, App. A.2.
    """

    def __init__(self, config: WeightSparsityConfig, steps: int) -> None:
        self.config = config
        self.steps = steps
        self._projections: list[Projection] = []

    def wrap_model(self, transformer: Transformer) -> Transformer:
        """Set up the projections; warn if the floor makes the target unreachable."""
        self._projections = []
        reached: dict[str, float] = {}
        for name, parameter, floor_dim in transformer.prunable():
            projection = Projection(parameter, floor=self.config.floor, floor_dim=floor_dim)
            self._projections.append(projection)
            size = parameter.numel()
            if projection.n_floor_entries() > kept_entries(self.config.l0_fraction, size):
                reached[re.sub(r"\.\d+\.", ".*.", name)] = projection.n_floor_entries() / size
        if reached:
            warn(floor_message(self.config, reached))
        return transformer

    def prepare(self, transformer: Transformer, optimizer: torch.optim.Optimizer) -> None:
        """Prepare the training of live weights only, if the settings ask for it."""
        if self.config.gradient == "live":
            self.live = LiveGradient(self.config, transformer, optimizer)

    def before_first_step(self) -> None:
        """Project the initial weights, if the run does not begin with all of them."""
        if self.config.start_fraction < 1:
            self._project(self.config.start_fraction)

    def learning_rate_factor(self, step: int) -> float:
        """Return the sharkfin factor of the step, or 1 if it is switched off."""
        if not self.config.sharkfin:
            return 1.0
        return sharkfin(nonzero_fraction(step, self.steps, self.config))

    def is_settled(self, step: int) -> bool:
        """Return whether annealing is finished."""
        return nonzero_fraction(step, self.steps, self.config) == self.config.l0_fraction

    def after_step(self, step: int) -> dict[str, float]:
        """Project every tensor; return `l0_fraction`, the kept fraction of all entries."""
        # After the optimizer step, not before: AdamW's update makes pruned weights nonzero again.
        fraction = nonzero_fraction(step, self.steps, self.config)
        return {"l0_fraction": 1.0 if fraction == 1 else self._project(fraction)}

    def _project(self, fraction: float) -> float:
        """Keep a fraction of each tensor; return the kept fraction of all entries."""
        sizes = [projection.weight.numel() for projection in self._projections]
        ks = [kept_entries(fraction, size) for size in sizes]
        pairs = list(zip(self._projections, ks, strict=True))
        if self.live is not None and self.live.matrices:
            kept = self._keep_live(self.live, pairs)
        elif self._on_cpu():
            kept = sum(projection.keep_(k) for projection, k in pairs)
        else:
            self.nan_flag = keep_all_(self._projections, ks)
            kept = sum(projection.n_kept(k) for projection, k in pairs)
        if self.live is not None and not self.live.matrices and fraction <= self.config.live_below:
            self.live.start()
        return kept / sum(sizes)

    def _keep_live(self, live: LiveGradient, pairs: Sequence[tuple[Projection, int]]) -> int:
        """Project live matrices by their entries and other tensors as always; return the count."""
        by_weight = {matrix.layer.weight: matrix for matrix in live.matrices}
        kept = 0
        for projection, k in pairs:
            matrix = by_weight.get(projection.weight)
            if matrix is None:
                kept += projection.keep_(k)
            else:
                kept += projection.n_kept(k)
                matrix.keep(projection.n_kept(k), self.config.floor)
        live.choose_candidates()
        return kept

    def _on_cpu(self) -> bool:
        return all(projection.weight.device.type == "cpu" for projection in self._projections)


def kept_entries(fraction: float, size: int) -> int:
    """Return the number of kept entries for a fraction of `size`, at least 1."""
    return max(1, round(fraction * size))


def floor_message(config: WeightSparsityConfig, reached: dict[str, float]) -> str:
    """Return a line that names the kinds of tensor above the target, and their fractions."""
    kinds = ", ".join(f"{name} {fraction:.4g}" for name, fraction in reached.items())
    return (
        f"a floor of {config.floor} nonzeros per neuron and channel makes l0_fraction "
        f"{config.l0_fraction:.4g} unreachable; nonzero fraction that results: {kinds}"
    )
