"""The corpus `stories`: simple children's stories, generated, as many as are asked for."""

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
