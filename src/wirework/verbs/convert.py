"""`convert`: other people's formats into ours, and back."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wirework.model import Model


def openai(source: Path, out: Path, /) -> None:
    """Save a released weight-sparse model in our format and print its path.

    Args:
        source: Folder with both files.
        out: Model folder to write.
    """
    from wirework.interop import load_openai

    _save_converted(load_openai(source), source, out)


def self_ablating(source: Path, out: Path, /) -> None:
    """Save a released self-ablating model, gates included, in our format and print its path.

    Args:
        source: Folder with one .pt and config.json or config.yaml, or the .pt itself.
        out: Model folder to write.
    """
    from wirework.interop import load_self_ablating

    _save_converted(load_self_ablating(source), source, out)


def huggingface(source: str, out: Path, /) -> None:
    """Save a GPT-2 or GPT-Neo of Hugging Face in our format and print its path.

    Args:
        source: Folder that save_pretrained wrote, or a name on the hub.
        out: Model folder to write.
    """
    from wirework.interop import load_huggingface

    _save_converted(load_huggingface(source), source, out)


def to_huggingface(model: Path, out: Path, /) -> None:
    """Save a model of GPT-Neo's parts for transformers and print its path.

    Args:
        model: Run or model folder.
        out: Folder to write.
    """
    from wirework.interop import save_huggingface
    from wirework.model import load

    print(save_huggingface(load(model), out))


def _save_converted(model: "Model", source: str | Path, out: Path) -> None:
    print(model.save(out))
    if model.tokenizer is None:
        print(f"warning: {source} has no tokeniser: the model takes no text", file=sys.stderr)
