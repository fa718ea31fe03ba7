"""A tokeniser as large as the default one."""

import os
from pathlib import Path

import pytest

from wirework.data import Tokenizer, train_tokenizer


@pytest.fixture(scope="session")
def code_tokenizer() -> Tokenizer:
    """2,048 tokens, the default, trained on real code: a part of Python's standard library."""
    files = sorted(Path(os.__file__).parent.glob("[a-d]*.py"))
    return train_tokenizer((file.read_text(encoding="utf-8") for file in files), 2048)
