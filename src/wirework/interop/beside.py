"""The tokeniser that lies beside the weights of another project's model."""

from pathlib import Path

from wirework.console import warn
from wirework.data import Tokenizer
from wirework.data.tokenizer import NoEndOfTextError
from wirework.data.tokenizer_files import Split, other_tokenizer_file, tokenizer_file


def read_tokenizer(folder: Path, split: Split | None = None) -> Tokenizer | None:
    """Read the tokeniser in a folder.

    Args:
        folder: of a model.
        split: how its vocabulary and merges cut text; None: as they show.

    Returns:
        None where the folder has none, or (a warning says so) one without a token that ends a text,
        or one of a kind that is not read.

    Raises:
        InputError: its file is damaged, or does not show the split.
    """
    if tokenizer_file(folder) is None:
        if other := other_tokenizer_file(folder):
            warn(f"{other} is a tokeniser that is not read: the model takes no text")
        return None
    try:
        return Tokenizer.load(folder, split)
    except NoEndOfTextError:
        warn(f"the tokeniser of {folder} has no token that ends a text: the model takes no text")
        return None
