"""AtP*: attribution with an exact softmax (QK fix) and with layers dropped in turn (GradDrop).

Plain attribution misses two kinds of nodes: query and key channels at a saturated softmax, whose
gradient vanishes, and nodes whose direct effect cancels with their effect through a later layer.
Source: Kramar et al. 2024 (arXiv 2403.00745), sec. 3.1.
Shapes: S runs of GradDrop, B prompts, N nodes of all sites, H heads, T tokens, K channels per head.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.masks import length_groups, without_weight_gradients
from wirework.nn import Edit, Transformer, causal_attention
from wirework.nn.block import Attention
from wirework.renamed_names import old_arguments
from wirework.tasks import TokenizedPairs, logit_difference, pair_losses


@old_arguments(rows="batch")
def atp_star(ablation: Ablation, batch: TokenizedPairs) -> Tensor:
    """Return the AtP* score of each node.

    Differences from the paper, which patches values of another prompt at one position:

    - A node is one channel, set to its mean at every token, so a query or key node is a channel
      of a head and not its whole vector. The paper linearises from the attention probabilities on,
      we from the head's output: the same, as the output is linear in them.
    - GradDrop drops attention and MLP of a layer one by one, and one run drops nothing: with two
      layers dropped as a whole, the effect of a node of the first through the second would never
      be scored. A node scores zero where its own sublayer is dropped, so the sum of the absolute
      effects is divided by the number of runs less one, as in the paper.
    - Absolute values are taken of each run's mean over rows, not of each row: a circuit is judged
      by its mean loss, and on our models fewer nodes then reached a target.

    Args:
        ablation: the model and the means of its nodes.
        batch: pairs on which to score.

    Returns:
        (N,) float32, nats, none below zero: magnitude of the change of the task loss when the node
        is mean-ablated, mean over the runs that leave its sublayer in.

    Source: Kramar et al. 2024, sec. 3.1.1 (QK fix), 3.1.2 (GradDrop).
    """
    runs = len(_sublayers(ablation.transformer)) + 1
    with without_weight_gradients(ablation.transformer):
        parts = [run_effects(ablation, batch.select(pairs)) for pairs in length_groups(batch, runs)]
    effects = torch.stack(parts).sum(0) / len(batch.last_positions)
    return (effects.abs().sum(0) / (runs - 1)).float()


def run_effects(ablation: Ablation, batch: TokenizedPairs) -> Tensor:
    """Return the change of the loss by each node's ablation in each run of GradDrop.

    Args:
        ablation: the model (gradients of weights disabled) and the means of its nodes.
        batch: pairs; S copies of each must fit in one pass.

    Returns:
        (S, N) in the model's dtype, summed over prompts; run s drops sublayer s, the last none.
    """
    to_gates, heads = _backward(ablation, batch)
    effects = -to_gates
    parts = ablation.space.split(effects)
    for layer, (vectors, slope) in enumerate(heads):
        attention = ablation.transformer.get_submodule(f"blocks.{layer}.attn")
        means = {part: ablation.means[f"{layer}.attn.{part}"] for part in "qk"}
        exact = query_key_effects(cast(Attention, attention), vectors, means, slope)
        for part, effect in exact.items():
            parts[f"{layer}.attn.{part}"].copy_(effect)
    return effects


def _backward(
    ablation: Ablation, batch: TokenizedPairs
) -> tuple[Tensor, list[tuple[dict[str, Tensor], Tensor]]]:
    """Run S copies of the rows forward and backward, each with its sublayer dropped.

    Returns:
        Gradients of the summed loss by each run's gates (S, N), and per layer "q", "k" and "v"
        (B, T, H*K) and the gradients by the heads' output (S, B, T, H*K).
    """
    transformer = ablation.transformer
    drops, layers = _sublayers(transformer), range(transformer.config.n_layer)
    runs, count, weight = len(drops) + 1, len(batch.last_positions), transformer.embed.weight
    gates = weight.new_ones(runs, ablation.space.size, requires_grad=True)
    watched = [f"{layer}.attn.{part}" for layer in layers for part in "qkvy"]
    with (
        transformer.edited(ablation.edits(gates)),
        transformer.edited({name: _dropped(run, runs) for run, name in enumerate(drops)}),
        transformer.recorded(watched) as values,
    ):
        logits = transformer(batch.tokens.repeat(runs, 1), batch.last_positions.repeat(runs))
    loss = pair_losses(logit_difference(logits, batch.answers.repeat(runs, 1))).sum()
    ends = [gates, *(values[f"{layer}.attn.y"] for layer in layers)]
    to_gates, *slopes = torch.autograd.grad(loss, ends)
    heads = [
        (
            {part: values[f"{layer}.attn.{part}"][:count].detach() for part in "qkv"},
            slope.view(runs, count, *slope.shape[1:]),
        )
        for layer, slope in zip(layers, slopes, strict=True)
    ]
    return to_gates, heads


def query_key_effects(
    attention: Attention, vectors: Mapping[str, Tensor], means: Mapping[str, Tensor], slope: Tensor
) -> dict[str, Tensor]:
    """Return the effect of mean-ablating each query and key channel, with the softmax recomputed.

    The same channel of every head is ablated in one pass: heads do not interact before the output.

    Args:
        attention: the module; its sinks, scale and window are used.
        vectors: "q", "k" and "v", each (B, T, H*K).
        means: "q" and "k", each (H*K,).
        slope: (S, B, T, H*K), gradients of the loss by the output of the heads.

    Returns:
        "q" and "k", each (S, H*K): change of the output times its gradient, summed over tokens and
        rows.

    Source: Kramar et al. 2024, sec. 3.1.1.
    """
    size = attention.d_head
    heads = {
        part: value.view(*value.shape[:2], -1, size).transpose(1, 2)
        for part, value in vectors.items()
    }
    slopes = slope.view(*slope.shape[:3], -1, size)  # (S, B, T, H, K)
    before = _attend(attention, heads)
    effect_of_part = {}
    for part in "qk":
        effects = []
        for channel, mean in enumerate(means[part].view(-1, size).unbind(1)):
            changed = heads[part].clone()  # (B, H, T, K)
            changed[..., channel] = mean[:, None]
            moved = _attend(attention, {**heads, part: changed}) - before
            effects.append(torch.einsum("sbthk,bhtk->sh", slopes, moved))
        effect_of_part[part] = torch.stack(effects, -1).flatten(-2)
    return effect_of_part


def _attend(attention: Attention, heads: Mapping[str, Tensor]) -> Tensor:
    """Return the heads' outputs (B, H, T, K)."""
    return causal_attention(
        heads["q"],
        heads["k"],
        heads["v"],
        sink=attention.sink,
        scale=attention.scale,
        window=attention.window,
    )


def _sublayers(transformer: Transformer) -> list[str]:
    """Return the sites where attention and MLP write to the residual stream."""
    return [name for name in transformer.node_sites if name.endswith("resid_delta")]


def _dropped(run: int, runs: int) -> Edit:
    """Return the edit that passes no gradient to copy `run` of the `runs` copies of a batch."""

    def edit(x: Tensor) -> Tensor:
        copies = list(x.chunk(runs))
        copies[run] = copies[run].detach()
        return torch.cat(copies)

    return edit
