"""A model with one head wired by hand for a task, among random weights that do not matter.

The head attends to the token in which the two prompts of a pair differ and copies which of the two
it is to one channel, which votes for the answers. Layer, head and channels are drawn by seed.

With `latent_labels` the model also has two neurons that vote by the number of the last token, odd
or even, one as strongly for an answer as the other against it: together they do nothing, but a
search for labels by that number finds one of them. The other weights are random and sparse.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[2] / "tests" / "circuits"))

from hand_wired.edge_masks import Node, blank, connect_, link_, tokenizer_for, vote_, weight

from wirework.model import Model
from wirework.tasks import Task

N_LAYER, D_MODEL, N_HEAD, D_HEAD, D_MLP = 1, 24, 3, 4, 8
DENSITY = 0.15
VOTE = 4.0
"""Weight of the answer's channels for the first answer and against the second."""
NOISE_VOTE = 0.1
"""Standard deviation of the unembedding of all other channels."""

Variant = Literal["plain", "cancelled", "unused"]
"""`plain`: one head does the task. `cancelled`: a second head does the opposite, so that the model
does not do the task. `unused`: both of these, and a third head that does the task. No two heads
read or write the same channel, apart from the constant."""


class PlantedModel(NamedTuple):
    """A hand-wired model and what was planted in it."""

    model: Model
    nodes: list[Node]
    """Nodes of the first head's path."""


def planted_model(
    task: Task, seed: int, variant: Variant = "plain", *, latent_labels: bool = True
) -> PlantedModel:
    """Return a model for a task whose pairs differ in single tokens.

    Args:
        task: a task, see `with_one_answer`.
        seed: seed of the places of the mechanism and of all other weights.
        variant: which heads are wired.
        latent_labels: whether the two neurons are wired.
    """
    shape = {"n_layer": N_LAYER, "d_model": D_MODEL, "n_head": N_HEAD, "d_head": D_HEAD}
    model = blank(tokenizer_for(task, 512), **shape, d_mlp=D_MLP)
    generator = torch.Generator().manual_seed(seed)
    wired = torch.randperm(D_MODEL, generator=generator)[:12].tolist()
    constant, odd, votes, *rest = wired
    paths = [(rest[3 * n], rest[3 * n + 1], rest[3 * n + 2]) for n in range(N_HEAD)]
    _randomise_(model, wired, generator)
    first, second = (list(tokens) for tokens in deciding_tokens(model, task))
    embed, unembed = weight(model, "embed.weight"), weight(model, "unembed.weight")
    embed[:, constant] = 1
    embed[:, odd] = (torch.arange(len(embed)) % 2) - 0.5
    for sign, opens, _ in paths:
        embed[first, sign], embed[second, sign] = 1, -1
        embed[first + second, opens] = 1
    for channel in (votes, *(answer for _, _, answer in paths)):
        unembed[:, channel] = 0
        vote_(model, task, channel=channel, strength=VOTE)
    layer = int(torch.randint(N_LAYER, (), generator=generator))
    heads = torch.randperm(N_HEAD, generator=generator).tolist()
    strengths = {"plain": (3.0,), "cancelled": (3.0, -3.0), "unused": (3.0, -3.0, 6.0)}[variant]
    nodes = [
        _wire_head_(model, layer, head, (constant, *path), strength, generator)
        for head, path, strength in zip(heads, paths, strengths, strict=False)
    ]
    if latent_labels:
        _wire_neurons_(model, layer, odd, votes)
    return PlantedModel(model, nodes[0])


def with_one_answer(task: Task, most: int) -> Task:
    """Return the first pairs of a task that have the first pair's answers, in this order."""
    answers = task.pairs[0].answers
    return task.take([pair for pair in task.pairs if pair.answers == answers][:most])


def with_one_deciding_token(model: Model, task: Task) -> Task:
    """Return the pairs whose prompts have exactly one of `deciding_tokens` each."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    first, second = deciding_tokens(model, task)

    def counts(prompt: str) -> tuple[int, int]:
        ids = tokenizer.encode(prompt)
        return sum(token in first for token in ids), sum(token in second for token in ids)

    return task.take(
        [pair for pair in task.pairs if list(map(counts, pair.prompts)) == [(1, 0), (0, 1)]]
    )


def deciding_tokens(model: Model, task: Task) -> tuple[set[int], set[int]]:
    """Return the tokens that only first prompts have in place of others, and only second ones."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    pairs = [[set(tokenizer.encode(prompt)) for prompt in pair.prompts] for pair in task.pairs]
    firsts = {token for first, second in pairs for token in first - second}
    seconds = {token for first, second in pairs for token in second - first}
    return firsts - seconds, seconds - firsts


@torch.no_grad()
def _randomise_(model: Model, without: Sequence[int], generator: torch.Generator) -> None:
    """Make all weights random, except those that read or write the channels of the mechanism."""

    def sparse(shape: torch.Size, deviation: float) -> Tensor:
        values = torch.randn(shape, generator=generator) * deviation
        return values * (torch.rand(shape, generator=generator) < DENSITY)

    for name, parameter in model.transformer.named_parameters():
        if parameter.dim() != 2:
            continue
        if "embed" in name:
            deviation = NOISE_VOTE if "unembed" in name else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
            parameter[:, without] = 0
        elif "out" in name or "down" in name:
            parameter.copy_(sparse(parameter.shape, 0.3))
            parameter[without] = 0
        else:
            parameter.copy_(sparse(parameter.shape, 1.0))
            parameter[:, without] = 0


@torch.no_grad()
def _wire_head_(
    model: Model,
    layer: int,
    head: int,
    channels: tuple[int, ...],
    strength: float,
    generator: torch.Generator,
) -> list[Node]:
    """Wire one head and return its nodes in execution order, without the constant and the query."""
    constant, sign, opens, answer = channels
    qkv, out = (weight(model, f"blocks.{layer}.attn.{part}.weight") for part in ("qkv", "out"))
    rows = range(head * D_HEAD, (head + 1) * D_HEAD)
    for part in range(3):
        qkv[[part * N_HEAD * D_HEAD + row for row in rows]] = 0
    out[:, list(rows)] = 0
    key, value = (rows[int(torch.randint(D_HEAD, (), generator=generator))] for _ in range(2))
    site = f"{layer}.attn"
    nodes = [
        (f"{site}.act_in", constant), (f"{site}.q", key),
        (f"{site}.act_in", sign), (f"{site}.act_in", opens),
        (f"{site}.k", key), (f"{site}.v", value), (f"{site}.resid_delta", answer),
    ]  # fmt: skip
    connect_(model, nodes, [(0, 1, 6.0), (2, 5, 1.0), (3, 4, 8.0), (5, 6, strength)])
    return nodes[2:]


@torch.no_grad()
def _wire_neurons_(model: Model, layer: int, odd: int, votes: int) -> None:
    """Wire two neurons that vote by the number of a token, one for and one against."""
    up, down = (weight(model, f"blocks.{layer}.mlp.{part}.weight") for part in ("up", "down"))
    up[:2] = 0
    down[:, :2] = 0
    for neuron, sign in ((0, 1.0), (1, -1.0)):
        link_(model, (f"{layer}.mlp.act_in", odd), (f"{layer}.mlp.post_act", neuron), 4.0)
        link_(model, (f"{layer}.mlp.post_act", neuron), (f"{layer}.mlp.resid_delta", votes), sign)
