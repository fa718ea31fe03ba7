"""The corpus `stories`: an endless stream of generated children's stories."""

from wirework.data.stories.story import (
    DEFAULT_BYTES,
    IoiWords,
    bounded,
    grammar,
    ioi_words,
    source_files,
    stories,
    tell,
)

__all__ = [
    "DEFAULT_BYTES",
    "IoiWords",
    "bounded",
    "grammar",
    "ioi_words",
    "source_files",
    "stories",
    "tell",
]
