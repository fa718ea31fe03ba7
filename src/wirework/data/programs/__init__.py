"""The corpus `programs`: an endless stream of generated Python programs."""

from wirework.data.programs.program import (
    DEFAULT_BYTES,
    bounded,
    program,
    programs,
    source_files,
)

__all__ = ["DEFAULT_BYTES", "bounded", "program", "programs", "source_files"]
