"""`convert`: other people's formats into ours, and back."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wirework.console import Progress
from wirework.errors import InputError
from wirework.verbs.arguments import losing

if TYPE_CHECKING:
    from collections.abc import Callable

    from wirework.model import Model

_Source = TypeVar("_Source", str, Path)


def openai(source: Path, out: Path, /) -> None:
    """Save a released weight-sparse model in our format and print its path.

    Args:
        source: Folder with both files.
        out: Model folder to write.
    """
    from wirework.interop import load_openai

    _convert(load_openai, source, out)


def self_ablating(source: Path, out: Path, /) -> None:
    """Save a released self-ablating model, gates included, in our format and print its path.

    Args:
        source: Folder with one .pt and config.json or config.yaml, or the .pt itself.
        out: Model folder to write.
    """
    from wirework.interop import load_self_ablating

    _convert(load_self_ablating, source, out)


def huggingface(source: str, out: Path, /) -> None:
    """Save a GPT-2 or GPT-Neo of Hugging Face in our format and print its path.

    Args:
        source: Folder that save_pretrained wrote, or a name on the hub.
        out: Model folder to write.
    """
    from wirework.interop import load_huggingface

    _convert(load_huggingface, source, out)


def to_huggingface(model: Path, out: Path, /) -> None:
    """Save a model of GPT-Neo's parts for transformers and print its path.

    Args:
        model: Run or model folder.
        out: Folder to write.
    """
    from wirework.interop import save_huggingface
    from wirework.model import load

    with losing():
        print(save_huggingface(load(model), out))


def _convert(read: "Callable[[_Source], Model]", source: _Source, out: Path) -> None:
    from wirework.model import check_place

    check_place(out)
    if out.resolve() == Path(source).resolve():
        raise InputError(f"{out} is what is to be converted: choose another OUT")
    with losing(), Progress(f"convert {source}", None):
        model = read(source)
        saved = model.save(out)
    print(saved)
    if model.tokenizer is None:
        print(f"warning: {source} has no tokeniser: the model takes no text", file=sys.stderr)
