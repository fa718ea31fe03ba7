"""Hugging Face: GPT-2 and GPT-Neo models become ours, and ours that are a GPT-Neo become theirs.

Needs the extra `hub`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework.config import ModelConfig
from wirework.data import Tokenizer
from wirework.errors import InputError
from wirework.files import atomic_dir
from wirework.interop.gpt_neo import (
    LEFT_ASIDE,
    gpt_neo_config,
    gpt_neo_names,
    refuse_other_kinds,
    windows_of,
)
from wirework.interop.weights import block_prefix, our_state, with_tied
from wirework.model import Model, load
from wirework.nn import Transformer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_EMBED, _UNEMBED = "transformer.wte.weight", "lm_head.weight"
_GPT2_TENSORS = {
    "embed": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "unembed": "lm_head",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.qkv": "attn.c_attn",
    "attn.out": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
_GPT2_LEFT_ASIDE = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


def load_huggingface(source: "str | Path | PreTrainedModel") -> Model:
    """Load a GPT-2 or GPT-Neo language model as one of ours.

    Args:
        source: a folder that `save_pretrained` wrote, the name of a model on the hub, or the model
            itself. A tokeniser beside it is read too.

    Returns:
        The model on the CPU in float32. Its logits are theirs up to rounding.

    Raises:
        InputError: transformers is not installed, there is no such model, it is of another kind, or
            it has a part that ours lack.
    """
    transformers = _transformers()
    if isinstance(source, str | Path):
        with _no_bars(transformers) if Path(source).is_dir() else nullcontext():
            theirs = _read(
                lambda: transformers.AutoModelForCausalLM.from_pretrained(source), source
            )
        tokenizer = _read_tokenizer(transformers, source)
    else:
        theirs, tokenizer = source, None
    said = str(source) if isinstance(source, str | Path) else type(source).__name__
    kind = theirs.config.model_type
    if kind not in ("gpt2", "gpt_neo"):
        raise InputError(f"{said} is a {kind}: only gpt2 and gpt_neo can be loaded")
    state = {name: t.detach().cpu().float() for name, t in theirs.state_dict().items()}
    config = (_gpt2_config if kind == "gpt2" else _gpt_neo_config)(theirs.config, said)
    transformer = Transformer(config)
    if config.tied_embedding:
        state = with_tied(state, _EMBED, _UNEMBED, said, "they are tied")
    expected = transformer.state_dict()
    if kind == "gpt2":
        state = {name: t.t() if _is_conv1d(name) else t for name, t in state.items()}
        found = our_state(state, expected, _gpt2_names, said, _GPT2_LEFT_ASIDE)
    else:
        found = our_state(state, expected, gpt_neo_names, said, LEFT_ASIDE)
    transformer.load_state_dict(found)
    return Model(transformer, tokenizer, Path(source) if isinstance(source, str | Path) else None)


def save_huggingface(model: Model | str | Path, folder: str | Path) -> Path:
    """Write a model as a Hugging Face GPT-Neo, with its tokeniser, whole or not at all.

    Args:
        model: of GPT-Neo's parts (`recipes/stories.yaml` has them), or its path; gates stay behind.
        folder: for `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.

    Raises:
        InputError: transformers is not installed, the model has parts that a GPT-Neo lacks, or the
            place holds something else.
    """
    transformers = _transformers()
    model = load(model)
    refuse_other_kinds(model.config)
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: not overwritten")
    eot = None if model.tokenizer is None else model.tokenizer.eot
    theirs = transformers.GPTNeoForCausalLM(_their_config(transformers, model.config, eot))
    theirs.load_state_dict(_their_state(model.transformer))
    with atomic_dir(folder) as partial, _no_bars(transformers):
        theirs.save_pretrained(partial)
        if model.tokenizer is not None:
            _save_tokenizer(transformers, model.tokenizer, partial, model.config.n_ctx)
    return folder


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise InputError(
            "Hugging Face models need transformers: pip install wirework[hub]"
        ) from None
    return transformers


@contextmanager
def _no_bars(transformers: Any) -> Iterator[None]:
    """Keep transformers from drawing progress of what takes a moment, unlike a download."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _read(read: Any, source: str | Path) -> Any:
    try:
        return read()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"no Hugging Face model at {source}: {reason}") from error


def _read_tokenizer(transformers: Any, source: str | Path) -> Tokenizer | None:
    try:
        theirs = transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError):  # a model may come without one
        return None
    inner = getattr(theirs, "backend_tokenizer", None)
    return None if inner is None else Tokenizer(inner, str(source))


def _gpt_neo_config(theirs: Any, source: str) -> ModelConfig:
    windows = windows_of(theirs.attention_layers, theirs.window_size, theirs.num_layers, source)
    return _our_config(theirs, theirs.intermediate_size, windows, source)


def _gpt2_config(theirs: Any, source: str) -> ModelConfig:
    if theirs.scale_attn_by_inverse_layer_idx:
        raise InputError(f"{source} scales attention by layer, which our models do not")
    if theirs.add_cross_attention:
        raise InputError(f"{source} has cross-attention, which our models have not")
    scale = "rsqrt" if theirs.scale_attn_weights else "none"
    config = _our_config(theirs, theirs.n_inner, None, source)
    return config.model_copy(update={"attention_scale": scale, "qkv_bias": True})


def _our_config(
    theirs: Any, d_mlp: int | None, windows: tuple[int | None, ...] | None, source: str
) -> ModelConfig:
    """Return what both kinds have; transformers knows GPT-2's sizes by these names too."""
    config = gpt_neo_config(
        vocab_size=theirs.vocab_size,
        n_ctx=theirs.max_position_embeddings,
        n_layer=theirs.num_hidden_layers,
        d_model=theirs.hidden_size,
        n_head=theirs.num_attention_heads,
        d_mlp=d_mlp or 4 * theirs.hidden_size,
        windows=windows,
        source=source,
    )
    return config.model_copy(
        update={
            "activation": _activation(theirs.activation_function, source),
            "norm_eps": theirs.layer_norm_epsilon,
            "tied_embedding": bool(theirs.tie_word_embeddings),
        }
    )


def _activation(name: str, source: str) -> str:
    if name not in _ACTIVATIONS:
        raise InputError(f"{source}: activation {name!r}, ours are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _gpt2_names(name: str) -> list[str]:
    prefix, name = block_prefix(name)
    part, _, kind = name.rpartition(".")
    return [f"{prefix}{_GPT2_TENSORS[part]}.{kind}"]


def _is_conv1d(name: str) -> bool:
    """Whether GPT-2 keeps this matrix with its inputs first."""
    return name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))


def _their_config(transformers: Any, config: ModelConfig, eot: int | None) -> Any:
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
    state: dict[str, Tensor] = {}
    for name, tensor in transformer.state_dict().items():
        theirs = gpt_neo_names(name)
        parts = torch.chunk(tensor, len(theirs))
        state |= {one: part.contiguous() for one, part in zip(theirs, parts, strict=True)}
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
