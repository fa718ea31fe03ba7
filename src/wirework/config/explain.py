"""Neuron explanations: what is read, who explains it, how it is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from wirework.config.base import Config, Count, Fraction


class PatternConfig(Config):
    """The embedded explainer: n-gram patterns (Foote et al. 2023, "Neuron to Graph")."""

    basic: ClassVar = ("max_context",)

    keep_share: Fraction = 0.5
    """Share of an activation that a shortened or changed context must keep."""
    max_context: Count = 12
    """Longest pattern in tokens, the one that activates included. Ours."""
    seeds: Count = 32
    """Most activating places of a neuron's excerpts that patterns are learned from."""
    seed_share: Fraction = 0.2
    """Places below this share of the neuron's peak are no activating places. Ours."""
    substitutes: Count = 4
    """Random tokens tried in place of each, to see whether it matters."""
    alternatives: Annotated[int, Field(ge=0)] = 6
    """Likely tokens tried in place of each that matters: from other places of the same neuron, and
    nearest in the model's embedding, where the paper asks another model."""


class ServerConfig(Config):
    """A language model behind an OpenAI-compatible server (extra `explain`)."""

    basic: ClassVar = ("model", "base_url", "max_requests")

    model: str = ""
    """Name of the model, as the server knows it."""
    base_url: str | None = None
    """Address, `http://127.0.0.1:8000/v1`; None: that of OpenAI, or what OPENAI_BASE_URL says."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. A server of your own may need none."""
    logprobs: bool = True
    """Ask for log-probabilities and predict expected values; a server that has none, or refuses
    them, has its numbers read as they stand."""
    detect: bool = True
    """Also ask of each excerpt whether the neuron is active in it."""
    concurrency: Count = 8
    """Requests under way at once."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds to wait for an answer."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Tries after the first, for a busy (429), failing (5xx) or silent server, ever further apart.
    They do not count as requests."""
    max_requests: Count | None = None
    """Stop after so many requests; what is done is kept."""
    give_up_after: Count = 5
    """Stop after so many neurons failed with none between them that did not."""
    price_in: Annotated[float, Field(ge=0)] | None = None
    """Price of a million prompt tokens, in any currency, for the estimate."""
    price_out: Annotated[float, Field(ge=0)] | None = None
    """Price of a million tokens of answers."""
    cache: Path | None = None
    """Folder of answers, which several runs may share; None: `cache` in the folder of the run."""


class ExplainConfig(Config):
    """Neuron explanations and their scores (Bills et al. 2023)."""

    basic: ClassVar = ("explainer", "sites", "neurons", "only", "seed", "server")

    explainer: Literal["patterns", "language_model"] = "patterns"
    """Patterns need no model and no server; a language model is asked over HTTP."""
    sites: tuple[str, ...] = ()
    """Sites whose neurons are explained; none: `mlp.post_act` of every layer."""
    neurons: Count | None = 200
    """How many of them, drawn at random; None: all."""
    only: tuple[str, ...] = ()
    """These neurons, each SITE.INDEX (`0.mlp.post_act.17`), instead of drawn ones."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the neurons and of random excerpts."""
    excerpt_tokens: Annotated[int, Field(ge=2)] | None = None
    """Length of an excerpt, which is all that the neuron and its explainer see; None: 64, or the
    model's context if that is shorter."""
    explain_excerpts: Count = 4096
    """Excerpts of training text that are read for those to explain from."""
    score_excerpts: Count = 2048
    """Excerpts of held-out text that are read for those to score on."""
    explain_top: Count = 20
    """Most activating excerpts that an explanation is made from; a language model sees the first
    `shown` of them."""
    explain_random: Annotated[int, Field(ge=0)] = 20
    """Random excerpts that patterns learn from as well; a language model sees none."""
    shown: Count = 5
    """Excerpts that a language model is shown."""
    score_top: Count = 5
    """Most activating held-out excerpts to score on."""
    score_random: Count = 5
    """Random held-out excerpts to score on."""
    active_share: Fraction = 0.2
    """For detection: an excerpt is activating if the neuron reaches this share of its peak."""
    patterns: PatternConfig = PatternConfig()
    """The embedded explainer."""
    server: ServerConfig = ServerConfig()
    """The language model."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.explainer == "language_model" and not self.server.model:
            raise ValueError("explainer language_model needs server.model, the model's name")
        if self.explainer != "language_model" and self.server != ServerConfig():
            raise ValueError("server is set, but the explainer is not language_model")
        if self.shown > self.explain_top:
            raise ValueError(f"shown {self.shown} is more than explain_top {self.explain_top}")
        return self
