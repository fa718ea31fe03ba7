"""What a circuit says of its own weak points: the tokens that turn it, the heads that average.

Shapes: C candidate tokens, P pairs, H kept heads, N rows (two a pair), T tokens, K head channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.circuits.adversarial.attacks import FILLER, Attack, comment, insert
from wirework.circuits.build import standard_error
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.errors import InputError
from wirework.tasks import Pair, Task, TokenizedPairs, tokenizer_of

if TYPE_CHECKING:
    from wirework.data import Tokenizer
    from wirework.model import Model

_STRENGTH = 2  # one more than a circuit that picks a token has of it
_MOST_CANDIDATES = 2048
_JOINTS = (FILLER, " 1")  # before the token: a word or a digit, whichever it does not melt into


@dataclass(frozen=True)
class CircuitOn:
    """A circuit ready to run on its model."""

    model: "Model"
    edge_masks: EdgeMasks
    gates: Tensor
    """(G,), the circuit's own."""

    def logit_diffs(self, batch: TokenizedPairs) -> Tensor:
        """Return right minus wrong logit of the circuit alone, (P, 2)."""
        return self.edge_masks.all_differences(self.gates[None], batch)[0].view(-1, 2)


@dataclass(frozen=True)
class TokenReading:
    """A token that, in a comment before the prompt, turns the circuit from an answer."""

    token: str
    token_id: int
    unit: str
    """Text that holds the token when repeated in a comment."""
    side: int
    """Which prompt of a pair it turns, 0 or 1."""
    drop: float
    """By how much the circuit's logit difference falls, against a comment of filler words, on the
    pairs that it was read on. The largest of many drops, so more than other pairs show."""
    held_out_drop: float | None = None
    """The same on pairs that were not read; None where too few fit."""
    held_out_drop_se: float | None = None
    """Its standard error over these pairs."""
    n_held_out: int = 0
    """How many pairs `held_out_drop` is the mean of."""

    @property
    def attack(self) -> Attack:
        """The attack that inserts it."""
        return insert(self.unit, f"`{self.token}` in a comment")


def encode(pairs: Sequence[Pair], model: "Model") -> TokenizedPairs:
    """Return pairs as rows where the model is.

    Raises:
        InputError: one does not fit.
    """
    batch = Task("attacked", tuple(pairs)).encode(tokenizer_of(model), model.config.n_ctx)
    return batch.to(model.transformer.embed.weight.device)


def fits(pair: Pair | None, model: "Model") -> bool:
    """Return whether there is a pair, and it fits the model's context and tokeniser."""
    if pair is None:
        return False
    try:
        Task("attacked", (pair,)).encode(tokenizer_of(model), model.config.n_ctx)
    except InputError:
        return False
    return True


@torch.no_grad()
def read_tokens(circuit: CircuitOn, pairs: Sequence[Pair], per_side: int) -> list[TokenReading]:
    """Return the tokens that turn the circuit most, those of the first prompts first.

    Candidates are the tokens whose embedding writes to a channel that a kept act_in node reads;
    each is tried in a comment before the prompts, on the circuit alone.

    Args:
        circuit: what is read.
        pairs: a few, which need room for a short comment.
        per_side: how many tokens for each prompt of a pair.
    """
    units = comment_units(tokenizer_of(circuit.model), _read_most(circuit))
    plain = _commented(pairs, "", circuit.model)
    if plain is None:
        return []
    base = circuit.logit_diffs(encode(plain, circuit.model)).mean(0)
    tried = {t: _commented(pairs, unit, circuit.model) for t, unit in units.items()}
    made = {t: prompts for t, prompts in tried.items() if prompts is not None}
    if not made:
        return []
    batch = encode([pair for prompts in made.values() for pair in prompts], circuit.model)
    drops = base - circuit.logit_diffs(batch).view(len(made), len(pairs), 2).mean(1)  # (C, 2)
    readings = []
    for side in (0, 1):
        order = drops[:, side].sort(descending=True, stable=True).indices[:per_side].tolist()
        for place in order:
            token, drop = list(made)[place], float(drops[place, side])
            if drop > 0:
                text = tokenizer_of(circuit.model).token(token)
                readings.append(TokenReading(text, token, units[token], side, drop))
    return readings


@torch.no_grad()
def with_held_out_drop(
    circuit: CircuitOn, reading: TokenReading, pairs: Sequence[Pair]
) -> TokenReading:
    """Return a reading with its drop on pairs that did not choose it, those of them that fit."""
    with_and_without = [
        [_one_commented(pair, unit) for unit in ("", reading.unit)] for pair in pairs
    ]
    fitting = [
        pair
        for prompts in with_and_without
        if all(fits(p, circuit.model) for p in prompts)
        for pair in prompts
        if pair is not None
    ]
    if len(fitting) < 4:  # two pairs, each with and without the token
        return reading
    logit_diffs = circuit.logit_diffs(encode(fitting, circuit.model)).view(-1, 2, 2)[
        ..., reading.side
    ]
    drops = logit_diffs[:, 0] - logit_diffs[:, 1]
    return replace(
        reading,
        held_out_drop=float(drops.mean()),
        held_out_drop_se=standard_error(drops),
        n_held_out=len(drops),
    )


def comment_units(tokenizer: "Tokenizer", tokens: Sequence[int]) -> dict[int, str]:
    """Return, for each token that can stand in a comment, a text to repeat there that holds it."""
    readings: dict[int, str] = {}
    for joint in _JOINTS:
        left = [t for t in tokens if t not in readings and _printable(tokenizer, t)]
        units = [joint + tokenizer.token(token) for token in left]
        encoded = tokenizer.encode_batch([comment(unit, 2) for unit in units])
        for token, unit, ids in zip(left, units, encoded, strict=True):
            if ids.count(token) >= 2:
                readings[token] = unit
    return readings


def _printable(tokenizer: "Tokenizer", token: int) -> bool:
    text = tokenizer.token(token)
    return token != tokenizer.eot and text.isprintable() and tokenizer.decode([token]) == text


def _read_most(circuit: CircuitOn) -> list[int]:
    """Return the tokens whose normed embedding the kept act_in nodes read most, none unread."""
    embed = circuit.edge_masks.transformer.embed.weight.detach()
    tokenizer = tokenizer_of(circuit.model)
    width = embed.shape[1]
    channels = {c for site, c in circuit.edge_masks.kept if site.endswith("act_in") and c < width}
    embed = embed[: tokenizer.vocab_size]
    size = embed.square().mean(1).sqrt().clamp_min(1e-12)
    read = embed[:, sorted(channels)].abs().sum(1) / size
    order = read.sort(descending=True, stable=True).indices[:_MOST_CANDIDATES].tolist()
    return [token for token in order if read[token] > 0]


def _commented(pairs: Sequence[Pair], unit: str, model: "Model") -> list[Pair] | None:
    """Return the pairs with a unit in a comment before each, None where one does not fit."""
    attacked = [_one_commented(pair, unit) for pair in pairs]
    return [p for p in attacked if p is not None] if all(fits(p, model) for p in attacked) else None


def _one_commented(pair: Pair, unit: str) -> Pair | None:
    return insert(unit or FILLER, unit)(pair, _STRENGTH, Random(0))
