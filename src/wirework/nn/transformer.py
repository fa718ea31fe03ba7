"""One decoder-only transformer that covers both papers' architectures by configuration.

Gao et al. 2025, sec. 2.1 and App. A.1: RMSNorm, no positions in the residual stream, small heads,
sinks, a bigram table, AbsTopK at every node location. Ferrao et al. 2025, sec. 2: GPT-Neo as in
TinyStories. `block.py` has attention and MLP, `sites.py` defines sites.
Shapes: B sequences, T tokens, D d_model, H heads, K d_head, M d_mlp, P d_pos, V vocabulary.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wirework.config import NODE_KINDS, ModelConfig
from wirework.errors import InputError
from wirework.nn.block import AblatedInputs, Block, make_norm
from wirework.nn.device_reads import may_read
from wirework.nn.kernels.linear import Embedding, Linear
from wirework.nn.kernels.loss import next_token_loss
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.nn.positions import Positions, match_positions, select_positions
from wirework.nn.rewire import same_for_all_tokens
from wirework.nn.sites import Edit, Site, edited, find_sites, recorded
from wirework.renamed_names import old_arguments, old_attributes

_NEGLIGIBLE = 1e-6
"""Share of the largest magnitude of a tensor below which an entry does nothing."""
_FLOOR_DIMS = {"attn.qkv": 0, "attn.out": 1, "mlp.up": 0, "mlp.down": 1}


class Prunable(NamedTuple):
    """A tensor that weight sparsity projects (Gao et al. 2025, App. A.2)."""

    name: str
    parameter: nn.Parameter
    floor_dim: int | None
    """Dimension of the neurons or attention channels: 0 if the matrix writes them, 1 if it reads
    them, None for embeddings and biases, which have none."""


@old_attributes(ablated="run_ablated")
class Transformer(nn.Module):
    """The model: embedding, blocks, final norm, unembedding, bigram table.

    Args:
        config: shape and parts.
        seed: seed of the initial weights (normal, std 0.02; output matrices are divided by
            sqrt(2 n_layer) as in GPT-2).

    Raises:
        InputError: the vocabulary size is 0.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        vocab, width = config.vocab_size, config.d_model
        if not vocab:
            raise InputError("vocab_size is 0: set it to the number of tokens of the tokeniser")
        self.embed = Embedding(vocab, width)
        self.positions = Positions(config) if config.positions != "none" else None
        blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.blocks = cast(Sequence[Block], blocks)
        self.final_resid = Site(width)
        self.norm = make_norm(config, width)
        self.unembed = Linear(width, vocab, bias=False)
        if config.tied_embedding:
            self.unembed.weight = self.embed.weight
        self.logit_bias = nn.Parameter(torch.zeros(vocab)) if config.logit_bias else None
        self.bigram = nn.Parameter(torch.zeros(vocab, vocab)) if config.bigram else None
        if self.bigram is not None:
            self.bigram.requires_grad_(config.learn_bigram)
        self._initialise(torch.Generator().manual_seed(seed))

    @property
    def sites(self) -> dict[str, Site]:
        """Every site by name, in execution order."""
        return find_sites(self)

    @property
    def node_sites(self) -> list[str]:
        """Names of the sites whose channels are nodes, in execution order (App. A.5)."""
        return [f"{layer}.{kind}" for layer in range(self.config.n_layer) for kind in NODE_KINDS]

    @old_arguments(at="last_positions", enter="start_from", keep="block_inputs")
    def forward(
        self,
        tokens: Tensor,
        last_positions: Tensor | None = None,
        start_from: tuple[int, Tensor] | None = None,
        block_inputs: list[Tensor] | None = None,
    ) -> Tensor:
        """Return next-token logits.

        Args:
            tokens: (B, T) int64.
            last_positions: (B,) one position for each sequence, whose logits are wanted. Only the
                values that these logits depend on are computed. None for the logits of all tokens.
            start_from: a layer and the residual stream that its block reads, from `block_inputs` of
                an earlier call with the same tokens and positions. Earlier layers are skipped.
            block_inputs: list to which the residual stream before each block is appended, (B, T, D)
                each, or (B, 1, D) where only `last_positions` are computed.

        Returns:
            (B, T, V) logits, or (B, V) with `last_positions`; float64 for a model in float64, else
            float32.

        Raises:
            InputError: B or T is 0, T is over n_ctx, or a token is outside the vocabulary.
        """
        state = self._run(tokens, last_positions, start_from, block_inputs)
        if last_positions is not None:
            rows = torch.arange(len(tokens), device=tokens.device)
            state, tokens = state.squeeze(1), tokens[rows, last_positions]
        return self.logits_of(state, tokens)

    def logits_of(self, state: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits (..., V) of a final normalised state (..., D) at tokens (...)."""
        logits: Tensor = self.unembed(state)
        if logits.dtype not in (torch.float32, torch.float64):
            logits = logits.float()
        if self.logit_bias is not None:
            logits = logits + self.logit_bias
        return logits if self.bigram is None else logits + self.bigram[tokens]

    def logit_offsets(self, tokens: Tensor) -> Tensor | None:
        """Return what is added to the product of the unembedding, or None for nothing.

        Args:
            tokens: (...) int64.

        Returns:
            (..., V), or (V,) without a bigram table.
        """
        if self.bigram is None:
            return self.logit_bias
        rows = F.embedding(tokens, self.bigram)
        return rows if self.logit_bias is None else rows + self.logit_bias

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean next-token cross-entropy in nats, a scalar in the dtype of the logits.

        Args:
            tokens: (B, T) int64.
            targets: (B, T) int64.

        Raises:
            InputError: the shapes do not fit, or a token or target is outside the vocabulary.
        """
        self.check_targets(tokens, targets)
        return self.loss_of(self.state(tokens), tokens, targets)

    def loss_of(self, state: Tensor, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return `loss` of a final normalised state, (B, T, D)."""
        return next_token_loss(
            state.flatten(0, 1),
            self.unembed.weight,
            targets.flatten(),
            bigram=self.bigram,
            tokens=None if self.bigram is None else tokens.flatten(),
            bias=self.logit_bias,
            live=self.unembed.live,
        )

    def state(self, tokens: Tensor) -> Tensor:
        """Return the final normalised state (B, T, D), the input of the unembedding."""
        return self._run(tokens)

    def _run(
        self,
        tokens: Tensor,
        last_positions: Tensor | None = None,
        start_from: tuple[int, Tensor] | None = None,
        block_inputs: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the final normalised state (B, T, D), or (B, 1, D) with `last_positions`."""
        self.check_tokens(tokens)
        x, pos = (
            self.entry(tokens)
            if start_from is None
            else (start_from[1], self.concatenated_positions(tokens))
        )
        pos = match_positions(x, pos, last_positions)  # `start_from` may have one token only
        first = 0 if start_from is None else start_from[0]
        narrow_from = None if last_positions is None else self._last_mixing_layer()
        for layer, block in enumerate(self.blocks[first:], first):
            if block_inputs is not None:
                block_inputs.append(x)
            is_narrow = narrow_from is not None and layer >= narrow_from
            x = block(x, pos, last_positions if is_narrow else None)
        x = self.final_resid(x)
        if last_positions is not None:
            x = select_positions(x, last_positions)
        final: Tensor = self.norm(x)
        return final

    def run_ablated(
        self, tokens: Tensor, layers: Sequence[AblatedInputs]
    ) -> tuple[list[Tensor], Tensor]:
        """Run the ablated stream.

        Args:
            tokens: (B, T) int64, the same as those of the clean stream.
            layers: keys and values of the clean stream and masks, for each block.

        Returns:
            The residual stream after each block and the final normalised state, (B, T, D) each.

        Source: Ferrao et al. 2025 (two residual streams).
        """
        x, pos = self.entry(tokens)
        outputs = []
        for block, ablated in zip(self.blocks, layers, strict=True):
            x = block(x, pos, None, ablated)
            outputs.append(x)
        return outputs, self.norm(x)

    def entry(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the input of the first block, (B, T, D), and position vectors to concatenate.

        Returns:
            (B, T, D), and (B, T, P) or None if the positions are added or absent.
        """
        x = self.embed(tokens)
        if self.positions is not None and self.config.positions == "added":
            x = x + self.positions(tokens.shape[1])
        return x, self.concatenated_positions(tokens)

    def concatenated_positions(self, tokens: Tensor) -> Tensor | None:
        """Return position vectors to concatenate, (B, T, P), or None."""
        if self.positions is None or self.config.positions == "added":
            return None
        vectors: Tensor = self.positions(tokens.shape[1])
        return vectors.expand(len(tokens), -1, -1)

    def _last_mixing_layer(self) -> int | None:
        """Return the last block with active attention, or None if later edits may mix tokens.

        From the queries of that block onward, a token's values depend on that token only, so only
        the requested positions are computed.
        """
        mixing_layers = (layer for layer, block in enumerate(self.blocks) if block.mixes_tokens)
        last = max(mixing_layers, default=0)
        later = [*self.blocks[last:], self.final_resid]
        return last if all(same_for_all_tokens(part) for part in later) else None

    def prunable(self) -> list[Prunable]:
        """Return every weight matrix and bias, including embedding and unembedding.

        Norms, sinks, position vectors and the bigram table stay dense (App. A.2).
        """
        prunable = []
        for name, parameter in self.named_parameters():
            module, _, kind = name.rpartition(".")
            linear = isinstance(self.get_submodule(module), nn.Linear | nn.Embedding)
            if linear or name == "logit_bias":
                dim = _FLOOR_DIMS.get(module.split(".", 2)[-1]) if kind == "weight" else None
                prunable.append(Prunable(name, parameter, dim))
        return prunable

    def weight_counts(self) -> tuple[int, int]:
        """Return the number of entries in all tensors of `prunable`, and how many are nonzero."""
        tensors = [prunable.parameter for prunable in self.prunable()]
        nonzero = sum(int(tensor.count_nonzero()) for tensor in tensors)
        return sum(tensor.numel() for tensor in tensors), nonzero

    def n_negligible(self) -> int:
        """Return how many nonzero entries of `prunable` are below a millionth of their tensor's
        largest magnitude: they count as weights and do nothing."""
        magnitudes = (prunable.parameter.detach().abs() for prunable in self.prunable())
        return sum(int(((m > 0) & (m < _NEGLIGIBLE * m.amax())).sum()) for m in magnitudes)

    def edited(self, edits: Mapping[str, Edit]) -> AbstractContextManager[None]:
        """Apply edits at sites inside a `with` block; see `sites.edited`."""
        return edited(self.sites, edits)

    def recorded(self, names: Iterable[str]) -> AbstractContextManager[dict[str, Tensor]]:
        """Collect site values from the forward pass in a `with` block; see `sites.recorded`."""
        return recorded(self.sites, names)

    def record(self, tokens: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits (B, T, V) and the named sites' values (B, T, width), after AbsTopK.

        Raises:
            InputError: a name is no site of this model.
        """
        with self.recorded(names) as values:
            logits = self(tokens)
        return logits, values

    @torch.no_grad()
    @unchanged_weights()
    def generate(
        self, tokens: Tensor, length: int, *, temperature: float = 1.0, seed: int = 0
    ) -> Tensor:
        """Continue each sequence token by token; each token is predicted from the last n_ctx.

        Args:
            tokens: (B, T) int64 prompts.
            length: number of tokens to add.
            temperature: temperature of the softmax; 0 takes the most likely token.
            seed: seed of the sampling.

        Returns:
            (B, T + length) int64.

        Raises:
            InputError: a negative number, or the tokens do not fit the model.
        """
        if length < 0 or temperature < 0:
            raise InputError(f"length {length} and temperature {temperature} must not be negative")
        generator = torch.Generator(tokens.device).manual_seed(seed)
        for _ in range(length):
            window = tokens[:, -self.config.n_ctx :]
            last = torch.full((len(tokens),), window.shape[1] - 1, device=tokens.device)
            logits = self(window, last)
            if temperature == 0:
                choice = logits.argmax(-1, keepdim=True)
            else:
                odds = (logits / temperature).softmax(-1)
                choice = torch.multinomial(odds, 1, generator=generator)
            tokens = torch.cat([tokens, choice], 1)
        return tokens

    def check_tokens(self, tokens: Tensor) -> None:
        """Check the shape and the values of tokens.

        Raises:
            InputError: as `forward`.
        """
        fits = tokens.dim() == 2 and 1 <= tokens.shape[1] <= self.config.n_ctx
        if not fits or not len(tokens) or tokens.dtype not in (torch.int32, torch.int64):
            raise InputError(
                f"tokens must be int64 (B, T) with B >= 1 and 1 <= T <= {self.config.n_ctx}, "
                f"got {str(tokens.dtype).removeprefix('torch.')} {tuple(tokens.shape)}"
            )
        self._check_known(tokens, "token")

    def check_targets(self, tokens: Tensor, targets: Tensor) -> None:
        """Check that targets have the shape of the tokens and are in the vocabulary.

        Raises:
            InputError: another shape or dtype, or a target outside the vocabulary.
        """
        if targets.shape != tokens.shape or targets.dtype != torch.int64:
            raise InputError(
                f"targets must be int64 {tuple(tokens.shape)}, the shape of the tokens, "
                f"got {str(targets.dtype).removeprefix('torch.')} {tuple(targets.shape)}"
            )
        self._check_known(targets, "target")

    def check_batch(self, tokens: Tensor, targets: Tensor) -> None:
        """Check tokens and targets of a step on the CPU, before they are copied to a device.

        Raises:
            InputError: as `loss`.
        """
        self.check_tokens(tokens)
        self.check_targets(tokens, targets)

    def _check_known(self, tokens: Tensor, kind: str) -> None:
        if not may_read(tokens):
            return
        low, high = (int(end) for end in tokens.aminmax())
        if low < 0 or high >= self.config.vocab_size:
            raise InputError(
                f"{kind} {low if low < 0 else high} is outside the vocabulary "
                f"of {self.config.vocab_size}"
            )

    def initial_std(self, name: str) -> float:
        """Return the standard deviation of the initial weights of a matrix.

        Args:
            name: name of the parameter, such as `blocks.0.mlp.down.weight`.
        """
        is_output = name.endswith(("attn.out.weight", "mlp.down.weight"))
        return 0.02 / math.sqrt(2 * self.config.n_layer) if is_output else 0.02

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2 and name != "bigram":
                parameter.normal_(0.0, self.initial_std(name), generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()
