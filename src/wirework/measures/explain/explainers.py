"""The two explainers, patterns and a language model, behind one protocol."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from wirework.config import ExplainConfig
from wirework.measures.explain import prompts
from wirework.measures.explain.learn import learn_patterns
from wirework.measures.explain.openai_client import NeuronError, Server
from wirework.measures.explain.patterns import Pattern, Trie, pattern_text
from wirework.measures.explain.prompts import Messages, ServerAnswer, Shown
from wirework.measures.explain.record import LEVELS, Excerpt, NeuronRecord, levels

if TYPE_CHECKING:
    from wirework.model import Model

EXPLANATION_TOKENS = 60
"""Most tokens of an explanation (Bills et al. 2023)."""
LINE_TOKENS = 12
"""Most tokens of a simulation's answer, per token of the excerpt."""


@dataclass(frozen=True)
class Explanation:
    """Explanation of a neuron."""

    text: str
    patterns: tuple[Pattern, ...] = ()
    """Patterns that predict the activations; a language model reads `text` instead."""


@dataclass(frozen=True)
class DetectionScores:
    """For each excerpt, how strongly an explanation says that the neuron is active."""

    scores: tuple[float, ...]
    threshold: float
    """Scores from here on mean active."""


def token_text(model: "Model") -> Callable[[int], str]:
    """Return a function from a token to its text; without a tokeniser, to its number."""
    return str if model.tokenizer is None else model.tokenizer.token


class Explainer(Protocol):
    """Explains neurons, and predicts them from explanations."""

    at_once: int
    """Neurons that may be explained at the same time."""

    def explain(self, record: NeuronRecord) -> Explanation:
        """Return an explanation made from `record.top` and `record.random`."""

    def simulate(
        self, record: NeuronRecord, explanation: Explanation, excerpts: Sequence[Excerpt]
    ) -> list[list[float]]:
        """Return the predicted activation at each token, 0 to 10; only tokens are read."""

    def detect(
        self,
        record: NeuronRecord,
        explanation: Explanation,
        excerpts: Sequence[Excerpt],
        simulated: Sequence[Sequence[float]],
    ) -> DetectionScores | None:
        """Return predictions of whether the neuron is active; None if detection is off."""

    def close(self) -> None:
        """Release connections, and end work in other threads."""


class PatternExplainer:
    """The embedded explainer (Foote et al. 2023): no language model, no server.

    Args:
        model: the model with the neurons; it runs while patterns are learned, never to predict.
        config: settings.
    """

    at_once = 1

    def __init__(self, model: "Model", config: ExplainConfig) -> None:
        self._model = model
        self._config = config

    def explain(self, record: NeuronRecord) -> Explanation:
        """Return learned patterns, and their text."""
        patterns = learn_patterns(record, self._model.transformer, self._config.patterns)
        return Explanation(pattern_text(patterns, token_text(self._model)), tuple(patterns))

    def simulate(
        self, record: NeuronRecord, explanation: Explanation, excerpts: Sequence[Excerpt]
    ) -> list[list[float]]:
        """Return the prediction of the longest matching pattern at each token."""
        trie = Trie(explanation.patterns)
        scale = LEVELS / record.peak
        return [[scale * value for value in trie.predict(excerpt.tokens)] for excerpt in excerpts]

    def detect(
        self,
        record: NeuronRecord,  # noqa: ARG002
        explanation: Explanation,  # noqa: ARG002
        excerpts: Sequence[Excerpt],  # noqa: ARG002
        simulated: Sequence[Sequence[float]],
    ) -> DetectionScores:
        """Predict active from the peak prediction, with the threshold of true activations."""
        peaks = tuple(max(values) for values in simulated)
        return DetectionScores(peaks, LEVELS * self._config.active_share)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class LanguageModelExplainer:
    """A language model behind a server (Bills et al. 2023; Paulo et al. 2024 for detection).

    Args:
        model: the model with the neurons; only its tokeniser is used.
        config: settings.
        server: connection to the language model.
    """

    def __init__(self, model: "Model", config: ExplainConfig, server: Server) -> None:
        self._text = token_text(model)
        self._config = config
        self._server = server
        self.at_once = config.server.concurrency

    def explain(self, record: NeuronRecord) -> Explanation:
        """Return one sentence from the most activating excerpts."""
        return self._server.ask(self.question(record), EXPLANATION_TOKENS, _explanation)

    def question(self, record: NeuronRecord) -> Messages:
        """Return the request for an explanation."""
        return prompts.explain_messages(
            [
                Shown(self.words(excerpt), tuple(levels(excerpt.activations, record.peak)))
                for excerpt in record.top[: self._config.shown]
            ]
        )

    def simulate(
        self,
        record: NeuronRecord,  # noqa: ARG002
        explanation: Explanation,
        excerpts: Sequence[Excerpt],
    ) -> list[list[float]]:
        """Ask for all activations of an excerpt in one request."""
        return [self._simulated(explanation.text, excerpt) for excerpt in excerpts]

    def _simulated(self, explanation: str, excerpt: Excerpt) -> list[float]:
        words = self.words(excerpt)
        messages = prompts.simulate_messages(explanation, words)
        read = partial(_activations, words)
        return self._server.ask(messages, LINE_TOKENS * len(words), read, logprobs=True)

    def detect(
        self,
        record: NeuronRecord,  # noqa: ARG002
        explanation: Explanation,
        excerpts: Sequence[Excerpt],
        simulated: Sequence[Sequence[float]],  # noqa: ARG002
    ) -> DetectionScores | None:
        """Ask for each excerpt whether the explanation applies to it."""
        if not self._config.server.detect:
            return None
        return DetectionScores(
            tuple(self._detected(explanation.text, excerpt) for excerpt in excerpts), 0.5
        )

    def _detected(self, explanation: str, excerpt: Excerpt) -> float:
        messages = prompts.detect_messages(explanation, self.words(excerpt))
        return self._server.ask(messages, 4, _detection, logprobs=True)

    def close(self) -> None:
        """Refuse further requests and close connections."""
        self._server.close()

    def words(self, excerpt: Excerpt) -> tuple[str, ...]:
        """Return the text of each token of an excerpt."""
        return tuple(self._text(i) for i in excerpt.tokens)


def _explanation(answer: ServerAnswer) -> Explanation:
    words = prompts.read_explanation(answer)
    if words is None:
        raise NeuronError("the server answered an empty explanation")
    return Explanation(words)


def _activations(words: Sequence[str], answer: ServerAnswer) -> list[float]:
    values = prompts.read_activations(answer, words)
    if values is None:
        raise NeuronError(f"the server answered no activation per token, but {_begin(answer)}")
    return values


def _detection(answer: ServerAnswer) -> float:
    score = prompts.read_detection(answer)
    if score is None:
        raise NeuronError(f"the server answered neither 0 nor 1, but {_begin(answer)}")
    return score


def _begin(answer: ServerAnswer) -> str:
    return repr(" ".join(answer.text.split())[:60])
