"""A trained model as one value: transformer, tokeniser and config, saved to a folder and loaded.

The folder holds `config.json`, `model.safetensors` (sparse matrices as indices and values),
`tokenizer.json` if there is one, and `checksums.json`. Nothing is ever unpickled.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wirework import files
from wirework.config import ModelConfig
from wirework.data import Tokenizer
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.nn.sparse_storage import pack, unpack


class Model:
    """A transformer with the tokeniser it was trained on.

    Args:
        transformer: the network.
        tokenizer: None for a model that is only used on token ids.
        path: the folder it came from, for messages and provenance.

    Raises:
        InputError: the tokeniser has more tokens than the network.
    """

    def __init__(
        self, transformer: Transformer, tokenizer: Tokenizer | None = None, path: Path | None = None
    ) -> None:
        if tokenizer is not None and tokenizer.vocab_size > transformer.config.vocab_size:
            raise InputError(
                f"the tokeniser has {tokenizer.vocab_size} tokens, "
                f"the model only {transformer.config.vocab_size}"
            )
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.path = path

    @property
    def config(self) -> ModelConfig:
        """Shape and parts of the transformer."""
        return self.transformer.config

    @property
    def fingerprint(self) -> str:
        """SHA-256 over config and weights, as hex: equal only for the same model."""
        digest = hashlib.sha256(_canonical(self.config).encode())
        for name, tensor in sorted(self.transformer.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return next-token logits (B, T, V) float32 for tokens (B, T) int64."""
        logits: Tensor = self.transformer(tokens)
        return logits

    def record(self, tokens: Tensor, sites: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits (B, T, V) and the values (B, T, width) at the named sites.

        Raises:
            InputError: a name is no site of this model.
        """
        return self.transformer.record(tokens, sites)

    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder, whole or not at all; a model already there is replaced.

        Raises:
            InputError: the place cannot be written to, or holds something that is no model.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / "config.json").exists():
            raise InputError(f"{folder} exists and is not a model: not overwritten")
        with files.atomic_dir(folder) as partial:
            files.write_text(partial / "config.json", _canonical(self.config) + "\n")
            tied = {"unembed.weight"} if self.config.tied_embedding else set()
            state = {k: v for k, v in self.transformer.state_dict().items() if k not in tied}
            weights = partial / "model.safetensors"
            files.save_tensors(weights, pack(state), {"format": "wirework-model"})
            if self.tokenizer is not None:
                self.tokenizer.save(partial / "tokenizer.json")
        return folder


def load(path: str | Path) -> Model:
    """Load a model of ours.

    Args:
        path: a model folder, or a run folder (its `model/` is taken).

    Returns:
        The model on the CPU in float32, ready for use.

    Raises:
        InputError: nothing there, damaged, of another format, or tokeniser and model do not fit.
    """
    folder = Path(path)
    if (folder / "model" / "config.json").is_file():
        folder = folder / "model"
    if not (folder / "config.json").is_file():
        raise InputError(f"no model at {path}: expected a folder with config.json")
    files.verify_dir(folder)
    config = ModelConfig.of(files.read_json(folder / "config.json"), str(folder / "config.json"))
    transformer = Transformer(config)
    weights = folder / "model.safetensors"
    try:
        state = unpack(load_file(weights))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{weights} is damaged or foreign: {error}") from error
    if config.tied_embedding and "embed.weight" in state:
        state["unembed.weight"] = state["embed.weight"]
    load_state_(transformer, state, str(weights))
    tokenizer = folder / "tokenizer.json"
    return Model(transformer, Tokenizer.load(tokenizer) if tokenizer.exists() else None, folder)


def load_state_(transformer: Transformer, state: dict[str, Tensor], source: str) -> None:
    """Copy a state into a transformer, name by name and shape by shape.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    expected = transformer.state_dict()
    for problem, names in (
        ("lacks", expected.keys() - state.keys()),
        ("has an unknown", state.keys() - expected.keys()),
    ):
        if names:
            raise InputError(f"{source} {problem} tensor {min(names)}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise InputError(
                f"{source}: tensor {name} is {tuple(state[name].shape)}, "
                f"the config says {tuple(tensor.shape)}"
            )
    transformer.load_state_dict(state)


def _canonical(config: ModelConfig) -> str:
    return json.dumps(config.model_dump(mode="json"), sort_keys=True, indent=1)
