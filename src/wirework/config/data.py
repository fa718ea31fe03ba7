"""Where text comes from and how it becomes tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from wirework.config.base import Config, Count, Fraction
from wirework.errors import InputError

HUB = "hub:"
"""Prefix of a Hugging Face data set in `corpus`."""
FREE_OF_TASKS = frozenset(("python", "programs"))
"""Corpora of which no text is drawn from a task."""
TASKS_MODULE = ("wirework.tasks:", "wirework.tasks.")
"""Beginnings of the names of corpora that are drawn from the generators of the tasks."""
VOCAB_SIZE = 2048
"""Vocabulary size for `auto`, if the text is large enough."""


def hub_name(corpus: str) -> tuple[str, str | None]:
    """Return name and revision of `hub:NAME` or `hub:NAME@REVISION`; no revision is None.

    Raises:
        InputError: the name or the revision is empty, or there is more than one @.
    """
    name, at, revision = corpus.removeprefix(HUB).partition("@")
    if not name or "@" in revision or (at and not revision):
        raise InputError(f"corpus {corpus}: wanted hub:NAME or hub:NAME@REVISION")
    return name, revision or None


class DataConfig(Config):
    """Where text comes from and how it becomes tokens."""

    basic: ClassVar = ("corpus", "max_bytes")

    corpus: Annotated[str, Field(min_length=1)] = "python"
    """`python` (source on this machine), `programs` or `stories` (generated, 60 MB unless
    `max_bytes` is set), a file or folder of text, JSONL or Parquet, `hub:NAME[@REVISION]` (Hugging
    Face, extra `hub`), or `module:function` or `file.py:function` that yields documents."""
    subset: Annotated[str, Field(min_length=1)] | None = None
    """Corpus `hub:NAME`: name of the data set's configuration, if it has several."""
    field: str = "text"
    """Field with the text, for JSONL, Parquet and hub corpora."""
    max_bytes: Count | None = None
    """Bytes of text to take; None: all."""
    min_quotes: Fraction | None = None
    """Corpus `python`: skip files in which less than this share of the characters are quotes."""
    programs_seed: Annotated[int, Field(ge=0)] = 0
    """Corpus `programs`: seed of the generator."""
    stories_seed: Annotated[int, Field(ge=0)] = 0
    """Corpus `stories`: seed of the generator."""
    mix: Annotated[str, Field(min_length=1)] | None = None
    """Second corpus, given like `corpus`, whose documents are mixed into the first until it ends.
    `wirework.tasks:practice_texts`: prompts of the built-in tasks with answers. A model that is
    trained on them is named so (`trained_on_tasks`), because it was trained on what the tasks
    measure, if not on the same prompts."""
    mix_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the bytes that come from `mix`."""
    vocab_size: Count | Literal["auto"] = "auto"
    """Vocabulary size of the tokeniser to train; `auto`: model.vocab_size if set, else 2048, or
    fewer if the text is small. Ignored with `tokenizer`."""
    answers: Literal["auto", "python", "stories", "none"] = "auto"
    """Tasks whose answers become single tokens of the tokeniser to train: `python` the twenty
    Python tasks, `stories` the names and objects of `ioi`, `none` no task. `auto`: by the corpus
    (`stories`; `python` and .py files), else by `mix`, else none."""
    tokenizer: Path | None = None
    """tokenizer.json to use instead of training a tokeniser."""
    tokenizer_bytes: Count = 20_000_000
    """Bytes of text that the tokeniser is trained on."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of the documents that is held out, chosen by the hash of their text."""
    shard_tokens: Count = 10_000_000
    """Tokens per shard file."""
    workers: Count = 2
    """Number of processes for tokenising."""
    cache: Path = Path("data")
    """Folder of prepared corpora, each named after its settings."""

    @property
    def draws_from_tasks(self) -> bool | None:
        """Whether text is drawn from the generators of the built-in tasks; None: unknown.

        It is unknown for the user's own files and functions, and for `stories`, some of whose
        sentences have the form of the task `ioi`.
        """
        corpora = {corpus for corpus in (self.corpus, self.mix) if corpus is not None}
        if any(corpus.startswith(TASKS_MODULE) for corpus in corpora):
            return True
        return False if corpora <= FREE_OF_TASKS else None

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.min_quotes is not None and "python" not in (self.corpus, self.mix):
            raise ValueError(f"min_quotes is for the corpus python, not for {self.corpus}")
        for corpus in (self.corpus, self.mix):
            if corpus is not None and corpus.startswith(HUB):
                hub_name(corpus)
        if self.subset is not None and not self.corpus.startswith(HUB):
            raise ValueError(f"subset is for a corpus hub:NAME, not for {self.corpus}")
        return self
