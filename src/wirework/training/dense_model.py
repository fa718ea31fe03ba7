"""The dense model of a run with bridges: what it decides, and what must fit it."""

from pathlib import Path

from wirework.config import ModelConfig, TrainConfig
from wirework.data import Tokenizer
from wirework.errors import InputError
from wirework.model import Model, load
from wirework.training.checkpoint import TrainState


def load_dense(config: TrainConfig) -> Model | None:
    """Load the dense model that the settings name, if they ask for bridges.

    Raises:
        InputError: no model is named, or it cannot be loaded or does not fit the settings.
    """
    if config.bridges is None:
        return None
    path = config.bridges.dense
    if path is None:
        raise InputError("bridges need a dense model: give bridges.dense, a model or run folder")
    dense = load(path)
    _check_fits(dense, path, config)
    return dense


def _check_fits(dense: Model, path: Path, config: TrainConfig) -> None:
    ours, theirs = config.model, dense.config
    check_same_layers(dense, ours, str(path))
    if theirs.n_ctx < ours.n_ctx:
        raise InputError(
            f"model.n_ctx {ours.n_ctx} is more than the {theirs.n_ctx} tokens of {path}"
        )
    if ours.vocab_size not in (0, theirs.vocab_size):
        raise InputError(
            f"bridges need one vocabulary: {path} has {theirs.vocab_size} tokens, "
            f"model.vocab_size is {ours.vocab_size}"
        )
    if dense.tokenizer is None:
        raise InputError(f"{path} has no tokeniser: bridges need one to read the text")
    if (given := config.data.tokenizer) is not None:
        check_same_tokenizer(dense, Tokenizer.load(given), str(given))


def check_same_layers(dense: Model, config: ModelConfig, source: str) -> None:
    """Make sure that both models have the same number of layers.

    Raises:
        InputError: they have not.
    """
    if dense.config.n_layer != config.n_layer:
        raise InputError(
            f"bridges need as many layers in both models: {source} has {dense.config.n_layer}, "
            f"model.n_layer is {config.n_layer}"
        )


def refuse_training_mode(dense: Model) -> None:
    """Make sure that a dense model is in evaluation mode, so that its outputs are not random.

    Raises:
        InputError: it is in training mode.
    """
    if dense.transformer.training:
        where = f" {dense.path}" if dense.path else ""
        raise InputError(f"the dense model{where} is in training mode: call transformer.eval()")


def check_same_tokenizer(dense: Model, tokenizer: Tokenizer, source: str) -> None:
    """Make sure that a tokeniser is that of the dense model.

    Raises:
        InputError: it is another one; the message names both.
    """
    assert dense.tokenizer is not None
    if tokenizer.fingerprint != dense.tokenizer.fingerprint:
        raise InputError(
            f"the tokeniser of {source} is not that of the dense model: give data.tokenizer "
            f"{dense.path}/tokenizer.json"
        )


def with_dense_tokenizer(config: TrainConfig, dense: Model) -> TrainConfig:
    """Return the settings with the tokeniser and the vocabulary of the dense model."""
    model, data = config.model, config.data
    if model.vocab_size == 0:
        model = model.model_copy(update={"vocab_size": dense.config.vocab_size})
    data = data.model_copy(update={"tokenizer": Path(str(dense.path)) / "tokenizer.json"})
    return config.model_copy(update={"model": model, "data": data})


def refuse_changed(dense: Model, state: TrainState) -> None:
    """Refuse to go on with another dense model than that of a run's checkpoint; record it.

    Raises:
        InputError: the dense model changed.
    """
    if state.step and state.dense != dense.fingerprint:
        raise InputError(
            f"the dense model {dense.path} changed since training began: put the old one back, or "
            "train under another name"
        )
    state.dense = dense.fingerprint


def folders_with_text(config: TrainConfig) -> list[Path]:
    """Return folders of earlier runs whose text a run may share."""
    models = [config.start_from, None if config.bridges is None else config.bridges.dense]
    return [folder for path in models if path is not None for folder in _may_be_run(path)]


def _may_be_run(path: Path) -> list[Path]:
    """Return the folders that may be the run of a model: its own and, for `RUN/model`, RUN."""
    return [path, path.parent] if path.name == "model" else [path]
