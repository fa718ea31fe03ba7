"""Neuron explanations: what is read, who explains it, how it is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from wirework.config.base import Config, Count, Fraction
from wirework.config.preset import Preset, PresetConfig


class PatternConfig(Config):
    """The embedded explainer: n-gram patterns (Foote et al. 2023, "Neuron to Graph")."""

    basic: ClassVar = ("max_context",)

    keep_share: Fraction = 0.5
    """Share of the activation that a shortened or changed context must keep."""
    max_context: Count = 12
    """Longest pattern in tokens, including the one that activates. Ours."""
    seeds: Count = 32
    """Most positions per neuron that patterns are learned from."""
    seed_share: Fraction = 0.2
    """Positions below this share of the neuron's peak do not count as activating. Ours."""
    substitutes: Count = 4
    """Random tokens tried in place of each token, to test whether it matters."""
    alternatives: Annotated[int, Field(ge=0)] = 6
    """Likely tokens tried in place of each token that matters: from other positions of the same
    neuron, and nearest in the model's embedding; the paper asks another model."""


class ServerConfig(Config):
    """A language model behind an OpenAI-compatible server (extra `explain`)."""

    basic: ClassVar = ("model", "base_url", "max_requests")

    model: str = ""
    """Name of the model on the server."""
    base_url: str | None = None
    """Address, such as `http://127.0.0.1:8000/v1`; None: OPENAI_BASE_URL, else OpenAI's."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with the key. A server of your own may need none."""
    logprobs: bool = True
    """Ask for log-probabilities and predict expected values. Without them the numbers of the answer
    are used."""
    detect: bool = True
    """Also ask for each excerpt whether the neuron is active in it."""
    concurrency: Count = 8
    """Requests at the same time."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds to wait for an answer."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Retries for a busy (429), failing (5xx) or silent server, with growing pauses. They do not
    count as requests."""
    max_requests: Count | None = None
    """Stop after this many requests; results so far are kept."""
    give_up_after: Count = 5
    """Stop after this many neurons have failed in a row."""
    price_in: Annotated[float, Field(ge=0)] | None = None
    """Price of a million prompt tokens in any currency, for the estimate."""
    price_out: Annotated[float, Field(ge=0)] | None = None
    """Price of a million answer tokens."""
    cache: Path | None = None
    """Folder of stored answers, which runs may share; None: `cache` in the folder of the run."""


class ExplainConfig(PresetConfig):
    """Neuron explanations and their scores (Bills et al. 2023)."""

    presets: ClassVar = {
        "authors": {
            "excerpt_tokens": 64,
            "explain_top": 20,
            "shown": 5,
            "score_top": 5,
            "score_random": 5,
        }
    }
    basic: ClassVar = ("preset", "explainer", "sites", "neurons", "only", "seed", "server")

    preset: Preset | None = None
    """`authors`: the protocol of Bills et al. 2023, which Ferrao et al. 2025 used, for models of
    their shape; give the language model beside it. None: the defaults."""
    explainer: Literal["patterns", "language_model"] = "patterns"
    """`patterns` needs no other model; `language_model` asks a server over HTTP."""
    sites: tuple[str, ...] = ()
    """Sites of the neurons to explain; none: `mlp.post_act` of every layer."""
    neurons: Count | None = 200
    """Number of neurons, drawn at random; None: all."""
    only: tuple[str, ...] = ()
    """Neurons `SITE.INDEX` instead of drawn ones; `SITE.INDEX.negated`: where it is lowest."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the neurons and of random excerpts."""
    excerpt_tokens: Annotated[int, Field(ge=2)] | None = None
    """Length of an excerpt, the whole context of neuron and explainer; None: 64, or the model's
    context if shorter."""
    explain_excerpts: Count = 4096
    """Excerpts of training text from which those to explain are chosen."""
    score_excerpts: Count = 2048
    """Excerpts of held-out text from which those to score on are chosen."""
    explain_top: Count = 20
    """Number of most activating excerpts for an explanation; a language model sees the first
    `shown`."""
    explain_random: Annotated[int, Field(ge=0)] = 20
    """Number of random excerpts that patterns also learn from; a language model sees none."""
    shown: Count = 5
    """Number of excerpts that a language model sees."""
    score_top: Count = 5
    """Number of most activating held-out excerpts to score on."""
    score_random: Count = 5
    """Number of random held-out excerpts to score on."""
    active_share: Fraction = 0.2
    """For detection: an excerpt counts as active if the neuron reaches this share of its peak."""
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
