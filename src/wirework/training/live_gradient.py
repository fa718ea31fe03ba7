"""Training of the live weights only: `weight_sparsity.gradient` is `live`.

Once few weights are nonzero, gradients and Adam moments are kept for these and for some
candidates: zero weights that may come alive. On every N-th step the dense gradient of a matrix is
computed too, and by it the candidates are chosen anew. Matrices take turns, so that each step costs
the same.

The gradient at all other weights is not known. Where the optimizer scales the whole gradient to a
norm, the norm of a matrix is estimated from its entries: by the ratio of the two norms when the
dense gradient was last known.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from wirework.config import WeightSparsityConfig
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.nn.kernels import compiled
from wirework.nn.kernels.linear import Embedding, Linear
from wirework.nn.kernels.live_weight import LiveWeight, keep_largest_entries_, with_candidates

_MOMENTS = ("exp_avg", "exp_avg_sq")


class LiveMatrix:
    """A matrix of which only live weights and candidates are trained.

    Args:
        name: name of the parameter in the transformer.
        layer: layer that the matrix belongs to.
        floor_dim: dimension of its neurons, as in `Prunable`.
        places: (E,) flat indices of the trained entries, ascending.
        norm_ratio: norm of the dense gradient over that of its entries.
    """

    def __init__(
        self,
        name: str,
        layer: Linear | Embedding,
        floor_dim: int | None,
        places: Tensor,
        norm_ratio: float,
    ) -> None:
        self.name = name
        self.layer = layer
        self.floor_dim = floor_dim
        self.norm_ratio = norm_ratio
        self.entries = LiveWeight(layer.weight, places)
        layer.weight.requires_grad_(False)
        layer.weight.grad = None
        layer.live = self.entries

    def train_all(self) -> None:
        """Train the whole matrix again."""
        self.layer.live = None
        self.layer.weight.requires_grad_(True)

    def keep(self, k: int, floor: int) -> None:
        """Set all but k entries to zero, with a floor for each neuron."""
        floor = 0 if self.floor_dim is None else floor
        keep_largest_entries_(self.entries, k, floor, self.floor_dim)


class LiveGradient:
    """The live matrices of a run.

    Args:
        config: settings of weight sparsity.
        transformer: the model.
        optimizer: AdamW over its parameters; its groups and state are changed.

    Raises:
        InputError: the model is not on the CPU, or numba cannot be used.
    """

    def __init__(
        self,
        config: WeightSparsityConfig,
        transformer: Transformer,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        if (reason := compiled.why_not()) is not None:
            raise InputError(f"weight_sparsity.gradient: live needs numba: {reason}; use exact")
        if transformer.embed.weight.device.type != "cpu":
            raise InputError("weight_sparsity.gradient: live works on the CPU only; use exact")
        self.config = config
        self.transformer = transformer
        self.optimizer = optimizer
        self.matrices: list[LiveMatrix] = []
        """In the order of the model; empty before `start`."""

    @torch.no_grad()
    def start(self) -> None:
        """Train only the nonzero weights and candidates from now on.

        Candidates are chosen by the last gradient, or before the first step at random. Moments of
        other weights are dropped.
        """
        generator = torch.Generator().manual_seed(0)
        for name, layer, floor_dim in _prunable_layers(self.transformer):
            weight, gradient = layer.weight, layer.weight.grad
            if gradient is None:
                scores = torch.rand(weight.shape, generator=generator)
                places = self._with_candidates(weight, scores)
                ratio = (weight.numel() / len(places)) ** 0.5
            else:
                places = self._with_candidates(weight, gradient.abs())
                ratio = _norm_ratio(gradient, gradient.view(-1)[places])
            state = self._moments(weight, places)
            self._add(LiveMatrix(name, layer, floor_dim, places, ratio), state)

    def _moments(self, weight: Tensor, places: Tensor) -> dict[str, Tensor]:
        """Return the optimizer's state of a matrix at some entries; empty before the first step."""
        state = self.optimizer.state.get(weight)
        if not state:
            return {}
        moments = {key: state[key].view(-1)[places].clone() for key in _MOMENTS}
        return {**moments, "step": state["step"]}

    def plan(self, step: int) -> None:
        """Decide which matrices compute their dense gradient at a step."""
        for index, matrix in enumerate(self.matrices):
            matrix.entries.is_exploring = (step + index) % self.config.dense_every == 0

    @torch.no_grad()
    def take_explored(self) -> None:
        """Update the norm ratios from dense gradients, before the gradient is scaled."""
        for matrix in self.matrices:
            entries = matrix.entries
            if entries.explored is not None and entries.values.grad is not None:
                matrix.norm_ratio = _norm_ratio(entries.explored, entries.values.grad)

    @torch.no_grad()
    def choose_candidates(self) -> None:
        """Replace the candidates of matrices whose dense gradient is known; call after `keep`."""
        for matrix in self.matrices:
            entries = matrix.entries
            if entries.explored is not None:
                scores = self._scores(entries, entries.explored)
                self._set_places(entries, self._with_candidates(entries.weight, scores))
                entries.explored = None

    def _scores(self, entries: LiveWeight, gradient: Tensor) -> Tensor:
        """Return by what weights become candidates, (M, D), not negative; reuse the gradient."""
        if self.config.candidate_rule == "gradient":
            return gradient.abs_()
        return self._first_moments(entries, gradient)

    def _first_moments(self, entries: LiveWeight, gradient: Tensor) -> Tensor:
        """Return the size of the first Adam moment of each weight, (M, D).

        Weights that were not trained start from a moment of 0 with this step's gradient.
        """
        values = entries.values
        assert values.grad is not None
        # The optimizer got the gradient scaled; the dense one is as it was.
        part = torch.linalg.vector_norm(gradient.view(-1)[entries.places])
        scale = torch.linalg.vector_norm(values.grad) / part if part else 0.0
        beta = self.optimizer.param_groups[0]["betas"][0]
        moments = gradient.mul_((1 - beta) * scale).abs_()
        moments.view(-1)[entries.places] = self.optimizer.state[values]["exp_avg"].abs()
        return moments

    def gradients(self) -> list[Tensor]:
        """Return the gradients of the trained entries, (E,) of each matrix."""
        gradients = [matrix.entries.values.grad for matrix in self.matrices]
        return [gradient for gradient in gradients if gradient is not None]

    def n_weights(self) -> int:
        """Return the number of all weights of the matrices, zeros included."""
        return sum(matrix.layer.weight.numel() for matrix in self.matrices)

    def norm(self) -> Tensor:
        """Return the estimated norm of the dense gradients of all matrices, a scalar."""
        norms = torch.stack(torch._foreach_norm(self.gradients()))
        ratios = torch.tensor([matrix.norm_ratio for matrix in self.matrices])
        norm: Tensor = torch.linalg.vector_norm(norms * ratios)
        return norm

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trained entries by the name of the matrix."""
        return {matrix.name: matrix.entries.values for matrix in self.matrices}

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs besides the other parameters, by name."""
        tensors = {}
        for matrix in self.matrices:
            name, entries = matrix.name, matrix.entries
            tensors[f"live/places/{name}"] = entries.places.long()
            tensors[f"live/values/{name}"] = entries.values.detach()
            tensors[f"live/norm_ratio/{name}"] = torch.tensor(matrix.norm_ratio, dtype=torch.double)
            for key, value in self.optimizer.state.get(entries.values, {}).items():
                tensors[f"live/{key}/{name}"] = value
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from the tensors of a checkpoint; do nothing if it has no live weights.

        Raises:
            InputError: a tensor is missing or does not fit the model.
        """
        for name, layer, floor_dim in _prunable_layers(self.transformer):
            if f"live/places/{name}" not in tensors:
                continue
            places = _stored(tensors, f"live/places/{name}")
            flat = layer.weight.data.view(-1)
            values = _stored(tensors, f"live/values/{name}", len(places))
            if len(places) and not (places[0] >= 0 and places[-1] < len(flat)):
                raise InputError(f"the checkpoint does not fit the model: live/places/{name}")
            flat.zero_()
            flat[places] = values
            ratio = float(_stored(tensors, f"live/norm_ratio/{name}"))
            state = {
                key: _stored(tensors, f"live/{key}/{name}", len(places)).clone() for key in _MOMENTS
            }
            state["step"] = _stored(tensors, f"live/step/{name}").clone()
            self._add(LiveMatrix(name, layer, floor_dim, places, ratio), state)

    def finish(self) -> None:
        """Make every matrix an ordinary dense parameter again; its optimizer state is dropped."""
        for matrix in self.matrices:
            matrix.train_all()
        self.matrices = []

    def _add(self, matrix: LiveMatrix, state: dict[str, Tensor]) -> None:
        """Let the optimizer update the entries of a matrix in place of the matrix."""
        self._replace(matrix.layer.weight, matrix.entries.values, state)
        self.matrices.append(matrix)

    def _replace(self, old: Tensor, new: nn.Parameter, state: dict[str, Tensor]) -> None:
        """Let the optimizer update another parameter."""
        for group in self.optimizer.param_groups:
            group["params"] = [new if p is old else p for p in group["params"]]
        self.optimizer.state.pop(old, None)
        self.optimizer.state[new] = state

    def _set_places(self, entries: LiveWeight, places: Tensor) -> None:
        """Train other entries; those that were trained before keep their values and moments."""
        old, values = entries.places, entries.values
        state = dict(self.optimizer.state[values])
        index = torch.searchsorted(old, places.to(old.dtype)).clamp_(max=len(old) - 1)
        is_old = old[index] == places
        for key in _MOMENTS:
            state[key] = torch.where(is_old, state[key][index], 0)
        entries.set_places(places, torch.where(is_old, values.detach()[index], 0))
        self._replace(values, entries.values, state)

    def _with_candidates(self, weight: Tensor, scores: Tensor) -> Tensor:
        """Return the flat indices of the nonzero weights and the candidates, ascending.

        Args:
            weight: (M, D).
            scores: (M, D), not negative.
        """
        n_live = int(np.count_nonzero(weight.detach().numpy()))
        return with_candidates(weight, scores, round(self.config.candidates * n_live))


def _norm_ratio(dense: Tensor, entries: Tensor) -> float:
    part = float(torch.linalg.vector_norm(entries))
    return float(torch.linalg.vector_norm(dense)) / part if part else 1.0


def _prunable_layers(
    transformer: Transformer,
) -> Iterable[tuple[str, Linear | Embedding, int | None]]:
    """Yield the name, the layer and `floor_dim` of each prunable matrix."""
    for name, parameter, floor_dim in transformer.prunable():
        if parameter.dim() == 2:
            layer = transformer.get_submodule(name.rpartition(".")[0])
            assert isinstance(layer, Linear | Embedding)
            yield name, layer, floor_dim


def _stored(tensors: Mapping[str, Tensor], name: str, length: int | None = None) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or (length is not None and tensor.shape != (length,)):
        raise InputError(f"the checkpoint does not fit the model: {name} is missing or too short")
    return tensor
