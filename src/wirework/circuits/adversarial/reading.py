"""Read a circuit's weak points: the tokens that, in a comment or a string, flip its answer.

Shapes: C candidate tokens, P pairs, G gates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from wirework.circuits.adversarial.attacks import (
    FILLER,
    Attack,
    comment,
    insert,
    insert_in_string,
)
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.node_assembly import standard_error
from wirework.errors import InputError
from wirework.tasks import Pair, Task, TokenizedPairs, tokenizer_of

if TYPE_CHECKING:
    from wirework.data import Tokenizer
    from wirework.model import Model

_STRENGTH = 2
"""Repetitions of the token: more than the one that the prompt has."""
_MOST_CANDIDATES = 2048
"""Tokens that are tried."""
_JOINTS = (
    FILLER,
    " 1",
)  # text before the token: a word or a digit, so that the token stays separate


@dataclass(frozen=True)
class CircuitOnModel:
    """A circuit as masks on its model."""

    model: "Model"
    edge_masks: EdgeMasks
    gates: Tensor
    """(G,), gates of the circuit."""

    def logit_diffs(self, batch: TokenizedPairs) -> Tensor:
        """Return the logit differences of the circuit alone, (P, 2)."""
        return self.edge_masks.all_logit_diffs(self.gates[None], batch)[0].view(-1, 2)


Place = Literal["comment", "string"]
"""Where a token is put: a comment before the prompts, or the string that a prompt has open."""
PLACES: tuple[Place, ...] = ("comment", "string")
"""Places at which tokens are read."""


@dataclass(frozen=True)
class TokenReading:
    """A token that lowers the circuit's logit difference where it is put."""

    token: str
    """Text of the token."""
    token_id: int
    unit: str
    """Text that contains the token when repeated in a comment or a string."""
    side: int
    """Which prompt of a pair it affects, 0 or 1."""
    drop: float
    """Drop of the circuit's logit difference relative to filler words at the same place, on the
    pairs used for reading. It is the largest of many drops, so it overestimates the effect."""
    held_out_drop: float | None = None
    """The same on held-out pairs; None if too few fit."""
    held_out_drop_se: float | None = None
    """Its standard error over these pairs."""
    n_held_out: int = 0
    """Number of pairs of `held_out_drop`."""
    place: Place = "comment"

    @property
    def attack(self) -> Attack:
        """The attack that inserts this token."""
        return _inserting(self.unit, self.place, self.side, f"`{self.token}`")


def encode(pairs: Sequence[Pair], model: "Model") -> TokenizedPairs:
    """Tokenise pairs on the model's device.

    Raises:
        InputError: one does not fit.
    """
    batch = Task("attacked", tuple(pairs)).encode(tokenizer_of(model), model.config.n_ctx)
    return batch.to(model.transformer.embed.weight.device)


def fits(pair: Pair | None, model: "Model") -> bool:
    """Return whether a pair exists and fits the model's context and tokeniser."""
    if pair is None:
        return False
    try:
        Task("attacked", (pair,)).encode(tokenizer_of(model), model.config.n_ctx)
    except InputError:
        return False
    return True


@torch.no_grad()
def read_tokens(
    circuit: CircuitOnModel, pairs: Sequence[Pair], per_side: int
) -> list[TokenReading]:
    """Return the tokens that lower the circuit's logit difference most, by place and prompt.

    Candidates are tokens whose embedding is nonzero at a kept act_in channel. Each is tried on the
    circuit alone: in a comment before the prompts, and in the string that a prompt has open.

    Args:
        circuit: the circuit.
        pairs: a few pairs with room for a short comment.
        per_side: number of tokens per place and prompt of a pair.
    """
    units = comment_units(tokenizer_of(circuit.model), _candidates(circuit))
    drops: dict[tuple[Place, int], dict[int, tuple[float, float]]] = {}
    for place in PLACES:
        drops[place, 0] = _drops(circuit, pairs, units, place, 0)
        # A comment stands before both prompts.
        is_same = place == "comment"
        drops[place, 1] = drops[place, 0] if is_same else _drops(circuit, pairs, units, place, 1)
    tokenizer = tokenizer_of(circuit.model)
    readings = []
    for (place, side), of_token in drops.items():
        order = sorted(of_token, key=lambda token: -of_token[token][side])
        readings += [
            TokenReading(tokenizer.token(t), t, units[t], side, of_token[t][side], place=place)
            for t in order[:per_side]
            if of_token[t][side] > 0
        ]
    return readings


def _drops(
    circuit: CircuitOnModel,
    pairs: Sequence[Pair],
    units: Mapping[int, str],
    place: Place,
    side: int,
) -> dict[int, tuple[float, float]]:
    """Return by how much each token lowers the logit difference of first and second prompts.

    Args:
        circuit: the circuit.
        pairs: a few pairs; nothing is read if filler words at this place do not fit all of them.
        units: token to the text that is repeated.
        place: where it is put.
        side: which prompt of a pair gets it in the open string, 0 or 1.
    """
    changed = {t: _changed(pairs, unit, place, side, circuit.model) for t, unit in units.items()}
    plain = _changed(pairs, FILLER, place, side, circuit.model)
    tried = {token: after for token, after in changed.items() if after is not None}
    if plain is None or not tried:
        return {}
    base = circuit.logit_diffs(encode(plain, circuit.model)).mean(0)
    batch = encode([pair for after in tried.values() for pair in after], circuit.model)
    drops = base - circuit.logit_diffs(batch).view(len(tried), len(pairs), 2).mean(1)
    return {t: (first, second) for t, (first, second) in zip(tried, drops.tolist(), strict=True)}


@torch.no_grad()
def with_held_out_drop(
    circuit: CircuitOnModel, reading: TokenReading, pairs: Sequence[Pair]
) -> TokenReading:
    """Return a reading with its drop on held-out pairs.

    Args:
        circuit: the circuit with its model.
        reading: the reading of a token.
        pairs: held-out pairs; those that do not fit the context are left out. With fewer than two
            left, the reading is returned unchanged.
    """
    plain = _inserting(FILLER, reading.place, reading.side, "plain")
    with_and_without = [
        [change(pair, _STRENGTH, Random(0)) for change in (plain, reading.attack)] for pair in pairs
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
    """Return for each token that can occur in a comment a text with it that can be repeated.

    Args:
        tokenizer: the model's tokeniser.
        tokens: ids of the tokens.
    """
    unit_of_token: dict[int, str] = {}
    for joint in _JOINTS:
        without_unit = [t for t in tokens if t not in unit_of_token and _printable(tokenizer, t)]
        units = [joint + tokenizer.token(token) for token in without_unit]
        encoded = tokenizer.encode_batch([comment(unit, 2) for unit in units])
        for token, unit, ids in zip(without_unit, units, encoded, strict=True):
            if ids.count(token) >= 2:
                unit_of_token[token] = unit
    return unit_of_token


def _printable(tokenizer: "Tokenizer", token: int) -> bool:
    """Return whether a token is a printable text of its own."""
    text = tokenizer.token(token)
    return token != tokenizer.eot and text.isprintable() and tokenizer.decode([token]) == text


def _candidates(circuit: CircuitOnModel) -> list[int]:
    """Return tokens by the magnitude of their normalised embedding at kept act_in channels.

    Tokens without such an embedding are left out.
    """
    embed = circuit.edge_masks.transformer.embed.weight.detach()
    tokenizer = tokenizer_of(circuit.model)
    width = embed.shape[1]
    channels = {c for site, c in circuit.edge_masks.kept if site.endswith("act_in") and c < width}
    embed = embed[: tokenizer.vocab_size]
    rms = embed.square().mean(1).sqrt().clamp_min(1e-12)
    magnitude = embed[:, sorted(channels)].abs().sum(1) / rms
    order = magnitude.sort(descending=True, stable=True).indices[:_MOST_CANDIDATES].tolist()
    return [token for token in order if magnitude[token] > 0]


def _inserting(unit: str, place: Place, side: int, what: str) -> Attack:
    """Return the attack that repeats a text at a place."""
    if place == "comment":
        return insert(unit, f"{what} in a comment")
    prompt = "second" if side else "first"
    return insert_in_string(unit, side, f"{what} in the open string of the {prompt} prompt")


def _changed(
    pairs: Sequence[Pair], unit: str, place: Place, side: int, model: "Model"
) -> list[Pair] | None:
    """Return the pairs with a text at a place of each; None if one does not fit."""
    attack = _inserting(unit, place, side, "read")
    attacked = [attack(pair, _STRENGTH, Random(0)) for pair in pairs]
    return [p for p in attacked if p is not None] if all(fits(p, model) for p in attacked) else None
