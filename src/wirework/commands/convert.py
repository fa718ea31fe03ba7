"""`convert`: other people's formats into ours, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from wirework.commands.arguments import not_resumable
from wirework.commands.printing import print_paths
from wirework.console import Progress, warn
from wirework.errors import InputError
from wirework.files import check_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from wirework.model import Model

_Source = TypeVar("_Source", str, Path)


def openai(
    source: Path, out: Path, /, *, split: Literal["gpt2", "tinypython"] | None = None
) -> None:
    """Save a released weight-sparse model in our format and print its path.

    Args:
        source: Folder with both files, or with config.json and safetensors as on the hub.
        out: Model folder to write.
        split: How encoder.json and vocab.bpe split text; default: read off the vocabulary.
    """
    from wirework.interop import load_openai

    _convert(lambda path: load_openai(path, split), source, out)


def self_ablating(source: Path, out: Path, /) -> None:
    """Save a released self-ablating model, gates included, in our format and print its path.

    Args:
        source: Folder with one .pt and config.json or config.yaml, or the .pt itself.
        out: Model folder to write.
    """
    from wirework.interop import load_self_ablating

    _convert(load_self_ablating, source, out)


def interpbench(source: Path, out: Path, /) -> None:
    """Save the model of an InterpBench case in our format and print its path.

    Args:
        source: Folder with ll_model.pth, ll_model_cfg.pkl and edges.pkl.
        out: Model folder to write.
    """
    from wirework.interop import load_interpbench

    _convert(lambda path: load_interpbench(path).model, source, out)


def huggingface(source: str, out: Path, /) -> None:
    """Save a GPT-2 or GPT-Neo of Hugging Face in our format and print its path.

    Args:
        source: Folder that save_pretrained wrote, or a name on the hub.
        out: Model folder to write.
    """
    from wirework.interop import load_huggingface

    _convert(load_huggingface, source, out)


def to_huggingface(model: Path, out: Path, /) -> None:
    """Save a model with the parts of GPT-Neo for transformers and print its path.

    Args:
        model: Run or model folder.
        out: Folder to write.
    """
    from wirework.interop import save_huggingface
    from wirework.model import load

    check_place(out)
    with not_resumable():
        saved = save_huggingface(load(model), out)
    print_paths(saved, then=("measure", model))


def _convert(read: "Callable[[_Source], Model]", source: _Source, out: Path) -> None:
    from wirework.model import check_model_place

    check_model_place(out)
    if out.resolve() == Path(source).resolve():
        raise InputError(f"{out} is what is to be converted: choose another OUT")
    with not_resumable(), Progress(f"convert {source}", None):
        model = read(source)
        saved = model.save(out)
    print_paths(saved, then=("tasks", saved))
    if model.tokenizer is None and not _has_tokenizer(Path(source)):
        warn(f"{source} has no tokeniser: the model takes no text")


def _has_tokenizer(folder: Path) -> bool:
    """Return whether a folder has a tokeniser that could not be read; the reason was printed."""
    from wirework.data.tokenizer_files import other_tokenizer_file, tokenizer_file

    return bool(tokenizer_file(folder) or other_tokenizer_file(folder))
