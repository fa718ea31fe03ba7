"""Means of the nodes over the pretraining distribution: what a removed node is frozen at.

They come from tokens of the corpus the model was trained on: those given, or those that the run
which the model lies in was trained on. What was measured is kept in `means.safetensors` beside the
model, with how many batches it took and a checksum.
Shapes: B sequences, T tokens, N nodes at one site.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor

from wirework.errors import InputError
from wirework.files import tensors_checksum, write_bytes
from wirework.nn import Transformer
from wirework.tensor_files import read_header, read_tensors
from wirework.user_code import refuse_saved_function

if TYPE_CHECKING:
    from wirework.data import Prepared, Tokens
    from wirework.model import Model

MEANS_FILE = "means.safetensors"
"""Its place is the model's folder."""

_BATCH = 16  # sequences per forward pass


def resting_sites(transformer: Transformer) -> list[str]:
    """Return the sites whose means are needed: those of the nodes, and what attention gives.

    An edge that leaves a v node is read through its head's output (`attn.y`), and so is frozen at
    the mean of that.
    """
    outputs = [f"{layer}.attn.y" for layer in range(transformer.config.n_layer)]
    return [*transformer.node_sites, *outputs]


@torch.no_grad()
def node_means(transformer: Transformer, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the mean of every node, and of what attention gives, over all tokens of the batches.

    Args:
        transformer: the model.
        batches: each (B, T) int64.

    Returns:
        Site to (N,) float32, summed in float64.

    Raises:
        InputError: no batch at all.

    Source: Gao et al. 2025, sec. 2.2 (mean ablation).
    """
    sums: dict[str, Tensor] = {}
    count = 0
    device = transformer.embed.weight.device
    for tokens in batches:
        with transformer.recorded(resting_sites(transformer)) as values:
            transformer.state(tokens.to(device))
        for name, value in values.items():
            total = value.sum((0, 1), dtype=torch.float64)
            sums[name] = sums[name] + total if name in sums else total
        count += tokens.numel()
    if not count:
        raise InputError("means need at least one batch of training tokens")
    return {name: (total / count).float() for name, total in sums.items()}


def training_windows(tokens: "Tokens", n_ctx: int, n_batches: int) -> Iterator[Tensor]:
    """Yield batches (16, n_ctx) int64 of windows spread evenly over a corpus.

    Of a corpus with fewer than `n_ctx` tokens, each window is all of it.
    """
    n_ctx = min(n_ctx, tokens.n_tokens)
    count = n_batches * _BATCH
    starts = torch.linspace(0, tokens.n_tokens - n_ctx, count, dtype=torch.float64).long()
    for part in starts.view(n_batches, _BATCH).tolist():
        windows = [torch.from_numpy(tokens.slice(start, n_ctx).astype("int64")) for start in part]
        yield torch.stack(windows)


def means_for(model: "Model", data: "Tokens | None", n_batches: int) -> dict[str, Tensor]:
    """Return the means of a model's nodes: from `data`, the file beside it, or its run's corpus.

    Args:
        model: its `path` says where the file may be.
        data: tokens of the corpus it was trained on.
        n_batches: how many batches of 16 windows of n_ctx tokens to read. A file that was measured
            on another number is measured anew; means that were given (`save_means`) stay.

    Raises:
        InputError: no data, no file and no run, a file or corpus that does not fit the model, or
            a file of another number of batches and no corpus.
    """
    if data is not None:
        return _measured(model, data, n_batches)
    path = None if model.path is None else Path(model.path) / MEANS_FILE
    taken = None
    if path is not None and path.is_file():
        means, taken = _read(path, model)
        if taken in (None, n_batches):
            return means
    try:
        tokens = run_tokens(model)
    except InputError as error:
        if taken is None:
            raise
        raise InputError(
            f"{path} was measured on {taken} batches, mean_batches is {n_batches}, and the corpus "
            f"cannot be read: {error}"
        ) from None
    means = _measured(model, tokens, n_batches)
    if path is not None:
        _keep(path, means, model, n_batches)
    return means


def _measured(model: "Model", tokens: "Tokens", n_batches: int) -> dict[str, Tensor]:
    windows = training_windows(tokens, model.config.n_ctx, n_batches)
    return node_means(model.transformer, windows)


def _keep(path: Path, means: dict[str, Tensor], model: "Model", n_batches: int) -> None:
    """Write means for the next time; where that cannot be done, say so and go on."""
    from wirework.console import warn

    try:
        save_means(path, means, model, n_batches)
    except InputError as error:
        warn(f"{error}: the means will be measured again next time")


def text_of(model: "Model", data: "Tokens | None") -> "Tokens":
    """Return the training text given, or that of the run which the model lies in.

    Raises:
        InputError: there is none.
    """
    return run_tokens(model) if data is None else data


def run_tokens(model: "Model") -> "Tokens":
    """Return the tokens that the run in whose folder a model lies was trained on."""
    return run_data(model, "means of its nodes or their values").train


def run_data(model: "Model", purpose: str) -> "Prepared":
    """Return the corpus of the run in whose folder a model lies.

    Args:
        model: the model.
        purpose: what needs it, in the plural, for the message.

    Raises:
        InputError: it lies in no run, or the run's text is gone, damaged or another.
    """
    from wirework.data import prepare, text_of_run
    from wirework.data.answers import answers_before_records
    from wirework.training.run import read_settings

    settings = None if model.path is None else Path(model.path).parent / "config.yaml"
    if settings is None or not settings.is_file():
        raise InputError(
            f"no training text for this model, which lies in no run, and {purpose} need it: "
            "give text (--corpus; from Python, data, made by prepare(config.data))"
        )
    data = text_of_run(settings.parent)
    if data is None:  # of a wirework that kept no record
        saved = read_settings(settings.parent).data
        for corpus in (saved.corpus, saved.mix):
            refuse_saved_function(corpus, f"{settings} names as text", "--corpus")
        data = prepare(answers_before_records(saved))
    same = model.tokenizer is not None and data.tokenizer.fingerprint == model.tokenizer.fingerprint
    if not same or _trained_on(settings.parent) not in (None, data.fingerprint):
        raise InputError(
            f"the corpus of {settings.parent} has changed since, and {purpose} need it: give text"
        )
    return data


def _trained_on(run: Path) -> str | None:
    """Return the fingerprint of a run's data, from its newest readable checkpoint if there is one.

    A damaged checkpoint is passed over, as training does.
    """
    from wirework.training.checkpoint import newest_state

    state = newest_state(run / "checkpoints")
    return None if state is None else state.data


def save_means(
    path: Path, means: dict[str, Tensor], model: "Model", n_batches: int | None = None
) -> None:
    """Write means, with the fingerprint of the model they belong to.

    Args:
        path: the file, or the model's folder.
        means: site to (N,).
        model: the one they were measured on.
        n_batches: how many batches of its corpus they took; None for means that are given, which
            `prune` then uses whatever its settings say.

    Raises:
        InputError: the place cannot be written to.
    """
    path = path / MEANS_FILE if path.is_dir() else path
    tensors = {name: mean.float().cpu().contiguous() for name, mean in means.items()}
    header = {"format": "wirework-means", "fingerprint": model.fingerprint}
    if n_batches is not None:
        header["n_batches"] = str(n_batches)
    write_bytes(path, save(tensors, {**header, "sha256": tensors_checksum(tensors, header)}))


def load_means(path: Path, model: "Model") -> dict[str, Tensor]:
    """Read means that `save_means` wrote.

    Raises:
        InputError: missing, damaged or foreign, or of another model.
    """
    return _read(path, model)[0]


def _read(path: Path, model: "Model") -> tuple[dict[str, Tensor], int | None]:
    """Return means and the number of batches that they took, None if they were given."""
    header = read_header(path, "delete it").metadata
    means = read_tensors(path, "delete it")
    if header.get("format") != "wirework-means":
        raise InputError(f"{path} does not hold node means")
    if header.get("fingerprint") != model.fingerprint:
        raise InputError(f"{path} belongs to another model: measure the means anew")
    if header.pop("sha256", None) != tensors_checksum(means, header):
        raise InputError(f"{path} is damaged: it does not match its checksum; delete it")
    taken = header.get("n_batches")
    means = check_means(means, model.transformer, str(path))
    return means, None if taken is None else int(taken)


def check_means(
    means: dict[str, Tensor], transformer: Transformer, where: str
) -> dict[str, Tensor]:
    """Return `means` if it has every resting site of the transformer in its width.

    Raises:
        InputError: a site is missing or has another width.
    """
    sites = transformer.sites
    for name in resting_sites(transformer):
        shape = tuple(means[name].shape) if name in means else None
        if shape != (sites[name].width,):
            raise InputError(f"{where}: expected {sites[name].width} means of {name}, got {shape}")
    return means
