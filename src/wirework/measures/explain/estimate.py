"""Estimate of the requests to a language model and their cost, before any is sent."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wirework.config import ExplainConfig
from wirework.measures.explain import prompts
from wirework.measures.explain.explainers import EXPLANATION_TOKENS, LanguageModelExplainer
from wirework.measures.explain.prompts import Messages
from wirework.measures.explain.record import NeuronRecord
from wirework.summaries import Report, absent

_GUESS = "a kind of word or phrase, of about this length, as explanations are"
_PER_MESSAGE = 4  # tokens that a chat format adds to each message
_PIECE = re.compile(r"\w{1,6}|\n|[^\w\s]| +|\t")


@dataclass(frozen=True, repr=False)
class CostEstimate(Report):
    """Requests to a language model, their tokens and price."""

    requests: int
    tokens_in: int
    tokens_out: int
    price: float | None = absent()
    """In the currency of `server.price_in` and `server.price_out`; None if neither is set."""


def about_tokens(text: str) -> int:
    """Return a rough count of a text's tokens, for a language model with an unknown tokeniser.

    One token each: up to six letters or digits, a run of blanks, any other character. A single
    blank counts as none.
    """
    return sum(piece != " " for piece in _PIECE.findall(text))


def estimate(
    records: Sequence[NeuronRecord], explainer: LanguageModelExplainer, config: ExplainConfig
) -> CostEstimate:
    """Estimate what explaining neurons will cost.

    The estimate is for a first run without failures: answers in the cache are not deducted, and
    each answer has the requested length.

    Args:
        records: the neurons that will be explained.
        explainer: makes the prompts.
        config: prices, and whether to detect.
    """
    requests = tokens_in = tokens_out = 0
    for record in records:
        requests_of_neuron: list[tuple[Messages, int]] = [
            (explainer.question(record), EXPLANATION_TOKENS // 2)
        ]
        for excerpt in record.held_out:
            words = explainer.words(excerpt)
            reply = about_tokens("\n".join(f"{word}\t0" for word in words))
            requests_of_neuron.append((prompts.simulate_messages(_GUESS, words), reply))
            if config.server.detect:
                requests_of_neuron.append((prompts.detect_messages(_GUESS, words), 1))
        requests += len(requests_of_neuron)
        tokens_in += sum(_size(messages) for messages, _ in requests_of_neuron)
        tokens_out += sum(reply for _, reply in requests_of_neuron)
    price, prices = None, (config.server.price_in, config.server.price_out)
    if prices != (None, None):
        price = (tokens_in * (prices[0] or 0) + tokens_out * (prices[1] or 0)) / 1e6
    return CostEstimate(requests, tokens_in, tokens_out, price)


def _size(messages: Messages) -> int:
    return sum(_PER_MESSAGE + about_tokens(message["content"]) for message in messages)
