"""Read the tokeniser in the folder of another project's model, if wirework supports its kind."""

from pathlib import Path

from wirework.console import warn
from wirework.data import Tokenizer
from wirework.data.tokenizer import NoEndOfTextError
from wirework.data.tokenizer_files import SplitPattern, other_tokenizer_file, tokenizer_file


def read_tokenizer(folder: Path, split: SplitPattern | None = None) -> Tokenizer | None:
    """Read the tokeniser in a folder.

    Args:
        folder: folder of the model.
        split: split pattern of a tokeniser that is saved as vocabulary and merges; None to infer it
            from the vocabulary.

    Returns:
        The tokeniser, or None if the folder has none. Also None, with a warning, if it has no
        end-of-text token or is of an unsupported kind.

    Raises:
        InputError: a file of the tokeniser is damaged, or the split pattern cannot be inferred.
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
