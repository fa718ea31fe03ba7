"""One call of `explain`: model, neurons, text and settings, checked before any work begins."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework.config import ExplainConfig
from wirework.errors import InputError, number_of
from wirework.measures.explain.choose import choose_neurons, excerpt_length
from wirework.measures.explain.collect import OnRead, distinct_starts, stream
from wirework.measures.explain.explainers import (
    Explainer,
    LanguageModelExplainer,
    PatternExplainer,
)
from wirework.measures.explain.openai_client import Server
from wirework.measures.explain.record import Neuron, NeuronRecord
from wirework.measures.measured_text import prepared_text

if TYPE_CHECKING:
    from wirework.data import Prepared
    from wirework.model import Model

HARMLESS = tuple(
    f"server.{name}"
    for name in (
        "concurrency", "timeout", "retries", "max_requests", "give_up_after", "price_in",
        "price_out", "cache", "api_key_env", "base_url",
    )
)  # fmt: skip
"""Settings that do not change the results: a language model is identified by its name alone."""

PRIVATE: dict[str, Any] = {"server": {"base_url", "cache", "api_key_env"}}
"""Settings left out of result files: those get shared, and an address may hold a password."""


@dataclass(frozen=True)
class ExplainJob:
    """Model, settings, neurons, text and folder of one call."""

    model: "Model"
    config: ExplainConfig
    neurons: tuple[Neuron, ...]
    text: "Prepared"
    out: Path | None
    """Folder of the results; None: they are returned and not written."""

    @classmethod
    def of(
        cls, model: "Model", config: ExplainConfig, text: "Prepared | None", out: Path | None
    ) -> "ExplainJob":
        """Check that settings, model and text fit, and choose the neurons."""
        config.check_fits(model.config)
        neurons = tuple(choose_neurons(model.transformer, config))
        length = excerpt_length(model.config.n_ctx, config)
        config = config.model_copy(update={"excerpt_tokens": length})
        return cls(model, config, neurons, prepared_text(model, text), out)

    def explainer(self) -> Explainer:
        """Return the explainer that the settings ask for."""
        if self.config.explainer == "patterns":
            return PatternExplainer(self.model, self.config)
        cache = self.config.server.cache
        if cache is None and self.out is None:
            raise InputError("a language model's answers need a folder: give out or server.cache")
        server = Server(self.config.server, cache or Path(str(self.out)) / "cache")
        return LanguageModelExplainer(self.model, self.config, server)

    def about(self) -> dict[str, Any]:
        """Return everything that affects the results: model, text and settings."""
        return {
            "model": self.model.fingerprint,
            "path": None if self.model.path is None else str(self.model.path),
            "text": [self.text.train.fingerprint, self.text.val.fingerprint],
            "settings": self.config.model_dump(mode="json", exclude=PRIVATE),
        }


def collect(job: ExplainJob, on_read: OnRead) -> list[NeuronRecord]:
    """Read the text once for all neurons (`collect.py`), and return a record of each.

    Args:
        job: neurons, text and settings.
        on_read: called as excerpts are read.

    Raises:
        InputError: the held-out text has no excerpt that the training text lacks.
    """
    config = job.config
    taken: set[tuple[int, ...]] = set()
    length = excerpt_length(job.model.config.n_ctx, config)
    splits = [(job.text.train, config.explain_excerpts), (job.text.val, config.score_excerpts)]
    starts = [distinct_starts(tokens, length, count, taken) for tokens, count in splits]
    if not all(starts):
        raise InputError(
            f"{job.text.val.path} has no excerpt of {number_of(length, 'token')} that "
            f"{job.text.train.path} lacks: nothing to score on"
        )
    excerpt_counts = (
        (config.explain_top, config.explain_random),
        (config.score_top, config.score_random),
    )
    explain, score = (
        stream(
            job.model.transformer,
            job.neurons,
            tokens,
            split_starts,
            length,
            n_top=n_top,
            n_random=n_random,
            seed=config.seed,
            on_read=on_read,
        )
        for (tokens, _), split_starts, (n_top, n_random) in zip(
            splits, starts, excerpt_counts, strict=True
        )
    )
    return [
        NeuronRecord(
            neuron=neuron,
            peak=explain.top[i][0].peak,
            mean=explain.mean[i],
            live_fraction=explain.live_fraction[i],
            top=tuple(explain.top[i]),
            random=tuple(explain.random[i]),
            held_out_top=tuple(score.top[i]),
            held_out_random=tuple(score.random[i]),
        )
        for i, neuron in enumerate(job.neurons)
    ]
