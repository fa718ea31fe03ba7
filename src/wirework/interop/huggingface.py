"""Hugging Face: read GPT-2 and GPT-Neo models, and write models that have the form of a GPT-Neo.

Models are read from their files without transformers, which would give missing tensors random
values; no code in the folder runs. Downloads need `huggingface_hub`, writing needs transformers
(extra `hub`).
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework.data import Tokenizer
from wirework.errors import InputError, translated_errors
from wirework.files import atomic_dir, is_file, read_json
from wirework.foreign import no_prompts
from wirework.interop.foreign_tokenizer import read_tokenizer
from wirework.interop.gpt_neo import gpt_neo_names, refuse_other_kinds
from wirework.interop.huggingface_configs import Architecture, architecture
from wirework.interop.openai import is_openai, load_openai
from wirework.interop.weight_files import find_weights, read_weights
from wirework.interop.weights import our_state, unwrapped, with_tied
from wirework.model import Model, load
from wirework.model_tensors import load_untied_, refuse_layers
from wirework.nn import Transformer
from wirework.nn.shapes import check_memory, untied_shapes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from wirework.config import ModelConfig

_EMBED, _UNEMBED = "transformer.wte.weight", "lm_head.weight"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weight files, in the order of preference."""
_ON_TASKS = "wirework_trained_on_tasks"
"""Field of `config.json` for `Model.trained_on_tasks`; transformers keeps fields of others."""


def load_huggingface(source: "str | Path | PreTrainedModel") -> Model:
    """Load a GPT-2 or GPT-Neo language model of Hugging Face.

    Args:
        source: a folder that `save_pretrained` wrote, the name of a model on the hub, or a model in
            memory. A tokeniser in the folder is read too. A weight-sparse model of Gao et al. 2025
            (on the hub `openai/circuit-sparsity`) is recognised and loaded with `load_openai`.

    Returns:
        The model on the CPU in float32. Its logits equal the original's up to rounding.

    Raises:
        InputError: there is no such model, one of its files is damaged, its architecture or a part
            of it is not supported, or a tensor is missing, of the wrong shape or not finite.
    """
    if not isinstance(source, str | Path):
        name = type(source).__name__
        values = source.config.to_dict()
        transformer = _transformer(
            architecture(values, name), dict(source.state_dict()), name, name
        )
        return Model(transformer, trained_on_tasks=_trained_on_tasks(values, name))
    folder = Path(source) if Path(source).exists() else _download(str(source))
    if (folder / "beeg_config.json").is_file():
        return load_openai(folder)
    path = folder / "config.json"
    if not is_file(path):
        raise InputError(f"no Hugging Face model at {source}: expected a folder with config.json")
    values = read_json(path)
    if is_openai(values):
        return load_openai(folder)
    arch = architecture(values, str(path))
    check_memory(arch.config, None, str(path))
    weights = find_weights(folder, _WEIGHTS)
    transformer = _transformer(arch, read_weights(weights), str(weights), str(path))
    on_tasks = _trained_on_tasks(values, str(path))
    return Model(transformer, read_tokenizer(folder), Path(source), trained_on_tasks=on_tasks)


def save_huggingface(model: Model | str | Path, folder: str | Path) -> Path:
    """Write a model and its tokeniser as a Hugging Face GPT-Neo.

    The folder appears when it is complete; an interrupted call leaves nothing.

    Args:
        model: a model that has the form of a GPT-Neo (such as that of `recipes/stories.yaml`), or
            its path. Gates are not written.
        folder: the folder to write; it must be new or empty.

    Returns:
        `folder`, for `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.

    Raises:
        InputError: transformers is not installed, the model has parts that a GPT-Neo lacks, or the
            folder has other content.
    """
    transformers = _library("transformers", "Hugging Face models")
    model = load(model)
    refuse_other_kinds(model.config)
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: not overwritten")
    eot = None if model.tokenizer is None else model.tokenizer.eot
    theirs = transformers.GPTNeoForCausalLM(_their_config(transformers, model.config, eot))
    if model.trained_on_tasks is not None:
        theirs.config.update({_ON_TASKS: model.trained_on_tasks})
    theirs.load_state_dict(_their_state(model.transformer))
    with atomic_dir(folder) as partial, _no_bars(transformers):
        theirs.save_pretrained(partial)
        if model.tokenizer is not None:
            _save_tokenizer(transformers, model.tokenizer, partial, model.config.n_ctx)
    return folder


def _trained_on_tasks(values: Any, source: str) -> bool | None:
    """Return what `save_huggingface` recorded in a configuration; None where nothing is recorded.

    Raises:
        InputError: it is neither true nor false.
    """
    on_tasks = values.get(_ON_TASKS)
    if on_tasks is not None and not isinstance(on_tasks, bool):
        raise InputError(f"{source}: {_ON_TASKS} must be true or false, got {on_tasks!r}")
    return on_tasks


@contextmanager
def _no_bars(transformers: Any) -> Iterator[None]:
    """Hide the progress bars that transformers shows while it saves, which takes a moment."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _transformer(
    arch: Architecture, state: dict[str, Tensor], source: str, config_source: str
) -> Transformer:
    """Return a transformer with the tensors of a Hugging Face state dict.

    Args:
        arch: how to read the model.
        state: name to tensor.
        source: origin of the state, for messages.
        config_source: origin of the configuration, for messages.
    """
    state = _with_base(unwrapped(state, source))
    config = arch.config
    refuse_layers(config.n_layer, state, source)
    config = arch.with_windows(config_source)
    if config.tied_embedding:
        state = with_tied(state, _EMBED, _UNEMBED, source, "they are tied")
    state = {
        name: tensor.t() if arch.is_transposed(name) and tensor.dim() == 2 else tensor
        for name, tensor in state.items()
    }
    expected = untied_shapes(config)
    tensors = our_state(state, expected, arch.names, source, arch.ignored, arch.parts)
    transformer = Transformer(config)
    load_untied_(transformer, tensors)
    return transformer


def _with_base(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state whose names begin with `transformer.`, which a base model's names do not."""
    if _EMBED.removeprefix("transformer.") not in state:
        return state
    return {
        name if name.startswith("lm_head.") else f"transformer.{name}": tensor
        for name, tensor in state.items()
    }


def _download(name: str) -> Path:
    """Return the local folder of a model on the hub; download it if needed.

    Raises:
        InputError: huggingface_hub is not installed, or the model cannot be downloaded.
    """
    parts = name.split("/")
    if len(parts) > 2 or not all(parts) or parts[0] in (".", "..", "~"):
        raise InputError(f"no Hugging Face model at {name}: there is no such folder")
    hub = _library("huggingface_hub", "models of the Hugging Face hub")
    small_files = ["*.json", "*.txt", "*.model"]
    problem = f"no Hugging Face model at {name}: no such folder, and on the hub"
    with translated_errors(problem), no_prompts():
        for weights in ("model*.safetensors", "pytorch_model*.bin"):
            folder = hub.snapshot_download(
                name, allow_patterns=[*small_files, weights], ignore_patterns=["*/*"]
            )
            if any(Path(folder).glob(weights)):
                break
    return Path(folder)


def _library(name: str, feature: str) -> Any:
    """Return a package of the extra `hub`.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    try:
        with translated_errors(f"{name} is installed but cannot be imported"):
            return importlib.import_module(name)
    except InputError as error:
        missing = error.__cause__
        if isinstance(missing, ModuleNotFoundError) and missing.name == name:
            raise InputError(f"{feature} need {name}: pip install '.[hub]'") from missing
        raise


def _their_config(transformers: Any, config: "ModelConfig", eot: int | None) -> Any:
    """Return the configuration of a GPT-Neo with the settings of a model of ours."""
    windows = config.attention_windows or (None,) * config.n_layer
    kinds = ["global" if window is None else "local" for window in windows]
    return transformers.GPTNeoConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.n_ctx,
        hidden_size=config.d_model,
        num_layers=config.n_layer,
        attention_types=[[[kind], 1] for kind in kinds],
        num_heads=config.n_head,
        intermediate_size=config.d_mlp,
        window_size=next((window for window in windows if window is not None), config.n_ctx),
        activation_function="gelu_new",
        resid_dropout=0.0,
        embed_dropout=0.0,
        attention_dropout=0.0,
        layer_norm_epsilon=config.norm_eps or 1e-5,
        bos_token_id=eot,
        eos_token_id=eot,
    )


def _their_state(transformer: Transformer) -> dict[str, Tensor]:
    """Return our tensors under GPT-Neo's names; queries, keys and values become three matrices."""
    state: dict[str, Tensor] = {}
    for name, tensor in transformer.state_dict().items():
        their_names = gpt_neo_names(name)
        parts = torch.chunk(tensor, len(their_names))
        named = zip(their_names, parts, strict=True)
        state |= {their_name: part.contiguous() for their_name, part in named}
    return state


def _save_tokenizer(transformers: Any, tokenizer: Tokenizer, folder: Path, n_ctx: int) -> None:
    tokenizer.save(folder / "tokenizer.json")
    name = tokenizer.token(tokenizer.eot)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        bos_token=name,
        eos_token=name,
        unk_token=name,
        model_max_length=n_ctx,
    )
    theirs.save_pretrained(folder)
