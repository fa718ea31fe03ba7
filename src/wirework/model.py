"""`Model`: a transformer with its tokeniser and settings, saved to a folder and loaded from it.

The folder holds `config.json`, `model.safetensors` (sparse matrices as indices and values),
`tokenizer.json` if there is a tokeniser, `gates.json` and `gates.safetensors` for a self-ablating
model, and `checksums.json`. Nothing is unpickled.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from wirework import files
from wirework.config import Config, GatingConfig, ModelConfig, TrainConfig
from wirework.data import Tokenizer
from wirework.errors import InputError, number_of, quoted, translated_errors
from wirework.model_tensors import (
    as_float32,
    load_untied_,
    refuse_layers,
    refuse_missing,
    refuse_shapes,
)
from wirework.nn import Transformer
from wirework.nn.gates import Gates
from wirework.nn.hooks import Hooks, hooked
from wirework.nn.shapes import Shapes, check_memory, gate_shapes, untied_shapes
from wirework.nn.sparse_storage import pack, unpack
from wirework.nn.streams import combined_loss, two_streams
from wirework.renamed_names import old_attributes
from wirework.summaries import html_table, short, shown_as
from wirework.tensor_files import read_tensors

_TRAINING = "training.json"
"""File of a model folder with facts about its training."""
_ON_TASKS = "trained_on_tasks"


@dataclass(frozen=True)
class StreamsOutput:
    """Results of both streams of a self-ablating model; losses in nats."""

    logits_clean: Tensor
    """(B, T, V), bitwise equal to the logits of the plain model."""
    logits_ablated: Tensor
    """(B, T, V) logits of the stream with only each token's winners."""
    attention_masks: Tensor
    """(B, T, L, units): 1 where a channel of the concatenated head outputs is on."""
    neuron_masks: Tensor
    """(B, T, L, units): 1 where a neuron is on."""
    loss_reconstruction: Tensor
    """Scalar mean squared difference of the streams, each token scaled to unit length."""
    loss_clean: Tensor | None = None
    """Scalar next-token loss of the clean stream; None without targets."""
    loss_ablated: Tensor | None = None
    """Scalar next-token loss of the ablated stream; None without targets."""
    loss: Tensor | None = None
    """Scalar sum of the three losses, each times its coefficient; None without targets."""


@old_attributes(record="run_with_cache")
class Model:
    """A transformer with the tokeniser it was trained on.

    Args:
        transformer: the network.
        tokenizer: the tokeniser; None for a model that is only used on token ids.
        path: folder of the model, for messages and provenance.
        gates: gates of a self-ablating model; only `streams` needs them.
        trained_on_tasks: whether its training text was drawn from the generators of the built-in
            tasks, so that measures on these tasks are contaminated; None: unknown.

    Raises:
        InputError: the tokeniser has more tokens than the network.
    """

    def __init__(
        self,
        transformer: Transformer,
        tokenizer: Tokenizer | None = None,
        path: Path | None = None,
        gates: Gates | None = None,
        trained_on_tasks: bool | None = None,
    ) -> None:
        if tokenizer is not None and tokenizer.vocab_size > transformer.config.vocab_size:
            raise InputError(
                f"{f'{path}: ' if path else ''}the tokeniser has "
                f"{number_of(tokenizer.vocab_size, 'token')}, "
                f"the model only {transformer.config.vocab_size}: it belongs to another model"
            )
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.path = path
        self.gates = gates
        self.trained_on_tasks = trained_on_tasks

    @property
    def config(self) -> ModelConfig:
        """Shape and parts of the transformer."""
        return self.transformer.config

    def _about(self) -> dict[str, object]:
        """Return the lines of `repr`, by name."""
        config, (all_, nonzero) = self.config, self._weights()
        share = "" if nonzero is None else f", {nonzero / all_:.2%} nonzero"
        about: dict[str, object] = {
            "shape": f"{number_of(config.n_layer, 'layer')}, d_model {config.d_model}, "
            f"{number_of(config.n_head, 'head')} of {config.d_head}, d_mlp {config.d_mlp}",
            "text": f"vocabulary {config.vocab_size}, n_ctx {config.n_ctx}"
            + (", no tokeniser" if self.tokenizer is None else ""),
            "weights": f"{number_of(all_, 'weight')}{share}, on {self.device}",
        }
        if self.gates is not None:
            about["gates"] = "self-ablating"
        if self.trained_on_tasks:
            about["trained on tasks"] = "text drawn from the generators of the built-in tasks"
        if self.path is not None:
            about["path"] = str(self.path)
        return about

    def _weights(self) -> tuple[int, int | None]:
        """Return the entries of all matrices and biases, and the nonzero ones (None on `meta`)."""
        if self.device.type == "meta":
            return sum(part.parameter.numel() for part in self.transformer.prunable()), None
        return self.transformer.weight_counts()

    def __repr__(self) -> str:
        return shown_as("Model", *(short(value) for value in self._about().values()))

    def _repr_html_(self) -> str:
        return html_table("Model", self._about())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over config and weights, as hex; gates are not included."""
        digest = hashlib.sha256(_canonical(self.config).encode())
        for name, tensor in sorted(self.transformer.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.transformer.embed.weight.device

    def to(self, device: str | torch.device) -> "Model":
        """Move the model and its gates to a device.

        Args:
            device: such as `cuda`.

        Returns:
            The same model.

        Raises:
            InputError: there is no such device, or not enough memory on it.
        """
        with translated_errors(f"cannot move the model to {quoted(str(device))}"):
            target = torch.device(device)
            self.transformer.to(target)
            if self.gates is not None:
                self.gates.to(target)
        return self

    def encode(self, text: str) -> Tensor:
        """Tokenise a text, without adding a token at its beginning.

        Returns:
            (1, T) int64, on the device of the model.

        Raises:
            InputError: the model has no tokeniser, or the text contains half a character.
        """
        return torch.tensor([self._tokenizer().encode(text)], dtype=torch.int64).to(self.device)

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """Return the text of one sequence of tokens; bytes that are not UTF-8 become U+FFFD.

        Args:
            tokens: (T,) or (1, T), or a list of token ids.

        Raises:
            InputError: the model has no tokeniser, there are several sequences, or an unknown id.
        """
        ids = torch.as_tensor(tokens)
        if ids.dim() == 2 and len(ids) == 1:
            ids = ids[0]
        if ids.dim() != 1:
            raise InputError(f"decode takes one sequence of tokens, got shape {tuple(ids.shape)}")
        return self._tokenizer().decode([int(i) for i in ids])

    def __call__(self, tokens: Tensor | str) -> Tensor:
        """Return next-token logits.

        Args:
            tokens: (B, T) int64, or a text.

        Returns:
            (B, T, V) float32.

        Raises:
            InputError: the tokens do not fit the model, or it has no tokeniser for the text.
        """
        logits: Tensor = self.transformer(self._tokens(tokens))
        return logits

    @overload
    def generate(
        self, prompt: str, n_tokens: int = 50, *, temperature: float = 1.0, seed: int = 0
    ) -> str: ...

    @overload
    def generate(
        self, prompt: Tensor, n_tokens: int = 50, *, temperature: float = 1.0, seed: int = 0
    ) -> Tensor: ...

    def generate(
        self, prompt: Tensor | str, n_tokens: int = 50, *, temperature: float = 1.0, seed: int = 0
    ) -> Tensor | str:
        """Continue a text, or each sequence of tokens, token by token.

        Each token is predicted from the last n_ctx tokens. An end-of-text token does not stop it.

        Args:
            prompt: a text, or (B, T) int64.
            n_tokens: number of tokens to add.
            temperature: temperature of the softmax; 0 takes the most likely token.
            seed: seed of the sampling; the same seed gives the same tokens on one machine.

        Returns:
            The prompt with its continuation: a text for a text, else (B, T + n_tokens) int64.

        Raises:
            InputError: a negative number, an empty prompt, or no tokeniser for a text.
        """
        tokens = self._tokens(prompt)
        longer = self.transformer.generate(tokens, n_tokens, temperature=temperature, seed=seed)
        return self.decode(longer) if isinstance(prompt, str) else longer

    def run_with_cache(
        self, tokens: Tensor | str, sites: Iterable[str] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the model and record the values at sites.

        Args:
            tokens: (B, T) int64, or a text.
            sites: names such as `0.attn.act_in`; None for every site of the model.

        Returns:
            Logits (B, T, V), and values (B, T, width) by site.

        Raises:
            InputError: a name is no site of this model, or the tokens do not fit it.
        """
        names = self.transformer.sites if sites is None else _names(sites)
        return self.transformer.record(self._tokens(tokens), names)

    def run_with_hooks(self, tokens: Tensor | str, hooks: Hooks) -> Tensor:
        """Run the model with hooks at sites.

        Args:
            tokens: (B, T) int64, or a text.
            hooks: hooks by site, or pairs of site and hook. A hook takes the (B, T, width) value
                and returns its replacement, or None to leave it unchanged.

        Returns:
            Logits (B, T, V).

        Raises:
            InputError: a name is no site of this model, a hook never ran or returned something
                other than None or a tensor of the same shape, or the tokens do not fit the model.
        """
        tokens = self._tokens(tokens)
        with self.edited(hooks):
            return self(tokens)

    def edited(self, hooks: Hooks) -> AbstractContextManager[None]:
        """Apply hooks at sites in every run of the model inside a `with` block.

        Args:
            hooks: as in `run_with_hooks`.

        Raises:
            InputError: as in `run_with_hooks`; a hook that never ran is reported at the end of the
                block.
        """
        return hooked(self.transformer.sites, hooks)

    def streams(self, tokens: Tensor, targets: Tensor | None = None) -> StreamsOutput:
        """Run the clean stream and the ablated stream, in which each token has only its winners.

        Args:
            tokens: (B, T) int64.
            targets: (B, T) int64 next tokens, for the losses; None for no losses.

        Raises:
            InputError: the model has no gates, or tokens or targets do not fit it or each other.

        Source: Ferrao et al. 2025 (two residual streams).
        """
        if self.gates is None:
            raise InputError("streams need a self-ablating model, this one has no gates")
        plain = self.transformer
        if targets is not None:
            plain.check_targets(tokens, targets)
        streams = two_streams(plain, self.gates, tokens)
        reconstruction = streams.reconstruction
        out = StreamsOutput(
            logits_clean=plain.logits_of(streams.clean, tokens),
            logits_ablated=plain.logits_of(streams.ablated, tokens),
            attention_masks=streams.attention_masks,
            neuron_masks=streams.neuron_masks,
            loss_reconstruction=reconstruction,
        )
        if targets is None:
            return out
        clean, ablated = (
            plain.loss_of(state, tokens, targets) for state in (streams.clean, streams.ablated)
        )
        total = combined_loss(self.gates.gating, clean, ablated, reconstruction)
        return replace(out, loss_clean=clean, loss_ablated=ablated, loss=total)

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            where = f"{self.path}: " if self.path else ""
            raise InputError(f"{where}the model has no tokeniser: give it tokens, not text")
        return self.tokenizer

    def _tokens(self, prompt: Tensor | str) -> Tensor:
        """Return tokens (B, T) on the device of the model."""
        if not isinstance(prompt, str):
            return prompt.to(self.device)
        if not prompt:
            raise InputError("the text is empty: the model needs at least one token")
        return self.encode(prompt)

    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder, whole or not at all. An existing model is replaced.

        Args:
            folder: folder of the model.

        Returns:
            The folder.

        Raises:
            InputError: the folder cannot be written, or holds something other than a model.
        """
        folder = Path(folder)
        check_model_place(folder)
        with files.atomic_dir(folder) as partial:
            files.write_text(partial / "config.json", _canonical(self.config) + "\n")
            tied = {"unembed.weight"} if self.config.tied_embedding else set()
            state = {k: v for k, v in self.transformer.state_dict().items() if k not in tied}
            weights = partial / "model.safetensors"
            files.save_tensors(weights, pack(state), {"format": "wirework-model"})
            if self.tokenizer is not None:
                self.tokenizer.save(partial / "tokenizer.json")
            if self.trained_on_tasks is not None:
                files.write_record(partial / _TRAINING, {_ON_TASKS: self.trained_on_tasks})
            if self.gates is not None:
                files.write_text(partial / "gates.json", _canonical(self.gates.gating) + "\n")
                heads = {k: v.contiguous() for k, v in self.gates.state_dict().items()}
                files.save_tensors(
                    partial / "gates.safetensors", heads, {"format": "wirework-gates"}
                )
        return folder


def _names(sites: Iterable[str]) -> list[str]:
    if isinstance(sites, str):
        raise InputError(f"sites must be a list of names, got a string: give [{sites!r}]")
    return list(sites)


def check_model_place(folder: Path) -> None:
    """Check that a model can be saved to a folder, before the work that makes it.

    Raises:
        InputError: the folder holds something other than a model, or cannot be written.
    """
    files.check_folder(folder, "a model", ("config.json", "model.safetensors"))


def load(path: str | Path | Model) -> Model:
    """Load a model that wirework saved.

    Args:
        path: a model folder, or a run folder, whose `model/` is loaded. A `Model` is returned as it
            is.

    Returns:
        The model on the CPU in float32, in evaluation mode.

    Raises:
        InputError: there is no model, it is damaged or has another format, or the tokeniser does
            not fit the model.
    """
    if isinstance(path, Model):
        return path
    folder = Path(path)
    if files.is_file(folder / "model" / "config.json"):
        folder = folder / "model"
    if files.is_file(folder / "beeg_config.json"):
        raise InputError(f"{path} is a released model: convert it with `wirework convert openai`")
    if not files.is_file(folder / "config.json"):
        raise InputError(f"no model at {path}: expected a folder with config.json")
    values = files.read_json(folder / "config.json")
    if isinstance(values, dict) and "model_type" in values:
        raise InputError(
            f"{path} is a model of transformers: convert it with `wirework convert huggingface`"
        )
    files.verify_dir(folder)
    config = ModelConfig.of(values, str(folder / "config.json"))
    about = folder / "gates.json"
    gating = GatingConfig.of(files.read_json(about), str(about)) if files.is_file(about) else None
    check_memory(config, gating, str(folder / "config.json"))
    state = _read_state(folder / "model.safetensors", config, None)
    heads = {} if gating is None else _read_state(folder / "gates.safetensors", config, gating)
    transformer = Transformer(config).eval()
    load_untied_(transformer, state)
    gates = None
    if gating is not None:
        gates = Gates(config, gating)
        gates.load_state_dict(heads)
    tokenizer = folder / "tokenizer.json"
    return Model(
        transformer,
        Tokenizer.load(tokenizer) if files.is_file(tokenizer) else None,
        folder,
        gates,
        _trained_on_tasks(folder / _TRAINING),
    )


def _trained_on_tasks(path: Path) -> bool | None:
    """Return whether the model's text was drawn from tasks; None where nothing says so.

    Models of earlier versions have no such file; the settings of their run say it.
    """
    if files.is_file(path):
        value: bool = files.read_record(path, {_ON_TASKS: bool})[_ON_TASKS]
        return value
    settings = path.parent.parent / "config.yaml"
    if path.parent.name != "model" or not files.is_file(settings):
        return None
    with suppress(InputError):
        return TrainConfig.load(settings).data.draws_from_tasks
    return None


def _read_state(path: Path, config: ModelConfig, gating: GatingConfig | None) -> dict[str, Tensor]:
    """Read the tensors of a transformer, or with `gating` those of its gates.

    Raises:
        InputError: the file cannot be read or is damaged, or a tensor is missing, unknown, of
            another shape, of no floating-point type or not finite.
    """
    packed = read_tensors(path)
    refuse_layers(config.n_layer, packed, str(path))
    expected = untied_shapes(config) if gating is None else gate_shapes(config, gating)
    try:
        state = unpack(packed, expected)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    _refuse_differences(state, expected, str(path))
    return as_float32(state, str(path))


def _refuse_differences(state: dict[str, Tensor], expected: Shapes, source: str) -> None:
    unknown = state.keys() - expected.keys()
    refuse_missing([name for name in expected if name not in state], unknown, source)
    if unknown:
        raise InputError(f"{source} has an unknown tensor {min(unknown)}")
    refuse_shapes({name: tensor.shape for name, tensor in state.items()}, expected, source)


def _canonical(config: Config) -> str:
    return json.dumps(config.model_dump(mode="json"), sort_keys=True, indent=1)
