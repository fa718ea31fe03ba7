"""Mean activations of the nodes over the training text: the values of mean ablation.

They are measured on the training text that the caller gives, or on that of the model's run. There
are two samples of non-overlapping windows: masks are fitted with the means of the first sample, the
circuit is judged with those of the second. Both are saved in `means.safetensors` beside
the model, with the number of tokens and a checksum.
Shapes: B sequences, T tokens, N nodes at one site, S groups of windows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor

from wirework.errors import InputError
from wirework.files import is_file, tensors_checksum, write_bytes
from wirework.nn import Transformer
from wirework.tensor_files import read_header, read_tensors
from wirework.user_code import refuse_saved_function

if TYPE_CHECKING:
    from wirework.data import Prepared, Tokens
    from wirework.model import Model

MEANS_FILE = "means.safetensors"
"""File in the model's folder."""

_BATCH = 16  # sequences per batch of `training_windows`
_PASS = 4096  # tokens per forward pass
_GROUPS = 8  # equal parts of the second sample, whose spread gives its standard error
_SECOND = "second/"  # before the names of the second sample's tensors


@dataclass(frozen=True)
class Means:
    """Node means over two disjoint samples of the training text."""

    first: Mapping[str, Tensor]
    """Site to (N,) float32: means of the first sample, used by searches."""
    groups: Mapping[str, Tensor] | None = None
    """Site to (S, N) float32: means of S equal parts of the second sample. None if there is no
    second sample: the means were given (`save_means`) or the text is a single window."""
    n_tokens: int | None = None
    """Tokens per sample; None if the means were given."""

    @property
    def n_groups(self) -> int:
        """S, the number of parts of the second sample."""
        return 0 if self.groups is None else len(next(iter(self.groups.values())))

    @property
    def second(self) -> dict[str, Tensor] | None:
        """Return site to (N,) float32, the means of the second sample."""
        if self.groups is None:
            return None
        return {site: part.double().mean(0).float() for site, part in self.groups.items()}


def ablated_sites(transformer: Transformer) -> list[str]:
    """Return the sites whose means are needed: all node sites and the head outputs (`attn.y`).

    An edge from a v node acts through the output of its head, so a removed edge uses the mean of
    that output.
    """
    outputs = [f"{layer}.attn.y" for layer in range(transformer.config.n_layer)]
    return [*transformer.node_sites, *outputs]


@torch.no_grad()
def node_means(transformer: Transformer, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the mean of every node and head output over all tokens of the batches.

    Args:
        transformer: the model.
        batches: each (B, T) int64.

    Returns:
        Site to (N,) float32. Tokens of a sequence are summed in the model's dtype, sequences in
        float64.

    Raises:
        InputError: no batch at all.

    Source: Gao et al. 2025, sec. 2.2 (mean ablation).
    """
    sums: dict[str, Tensor] = {}
    count = 0
    device = transformer.embed.weight.device
    for tokens in batches:
        with transformer.recorded(ablated_sites(transformer)) as values:
            transformer.state(tokens.to(device))
        for name, value in values.items():
            total = value.sum(1).sum(0, dtype=torch.float64)  # five times as fast as both in one
            sums[name] = sums[name] + total if name in sums else total
        count += tokens.numel()
    if not count:
        raise InputError("means need at least one batch of training tokens")
    return {name: (total / count).float() for name, total in sums.items()}


def training_windows(tokens: "Tokens", n_ctx: int, n_batches: int) -> Iterator[Tensor]:
    """Yield batches (16, n_ctx) int64 of windows spread evenly over a corpus.

    If the corpus has fewer than `n_ctx` tokens, each window is the whole corpus.
    """
    n_ctx = min(n_ctx, tokens.n_tokens)
    count = n_batches * _BATCH
    starts = torch.linspace(0, tokens.n_tokens - n_ctx, count, dtype=torch.float64).long()
    for part in starts.view(n_batches, _BATCH).tolist():
        windows = [torch.from_numpy(tokens.slice(start, n_ctx).astype("int64")) for start in part]
        yield torch.stack(windows)


def disjoint_windows(tokens: "Tokens", n_ctx: int, count: int) -> tuple[list[int], list[int]]:
    """Return the start positions of two samples of evenly spread, non-overlapping windows.

    Args:
        tokens: the text.
        n_ctx: tokens per window, at most the tokens of the text.
        count: windows per sample. If the text is too short, each sample gets half of its windows;
            a text of a single window belongs to the first sample.
    """
    count = min(2 * count, tokens.n_tokens // n_ctx)
    starts = torch.linspace(0, tokens.n_tokens - n_ctx, count, dtype=torch.float64).long().tolist()
    return starts[0::2], starts[1::2]


def windows_at(tokens: "Tokens", starts: Sequence[int], n_ctx: int) -> Iterator[Tensor]:
    """Yield the windows of n_ctx tokens that begin at `starts`, (B, n_ctx) int64 per pass."""
    size = max(1, _PASS // n_ctx)
    for first in range(0, len(starts), size):
        part = starts[first : first + size]
        yield torch.stack(
            [torch.from_numpy(tokens.slice(start, n_ctx).astype("int64")) for start in part]
        )


def measured_means(model: "Model", tokens: "Tokens", mean_tokens: int) -> Means:
    """Measure the node means of both samples.

    Args:
        model: the model.
        tokens: training text.
        mean_tokens: minimum tokens per sample; half of the text if it is too short for that.
    """
    n_ctx = min(model.config.n_ctx, tokens.n_tokens)
    wanted = -(-mean_tokens // n_ctx)
    first, second = disjoint_windows(tokens, n_ctx, -(-wanted // _GROUPS) * _GROUPS)
    n_groups = min(_GROUPS, len(second))
    even = len(second) - len(second) % n_groups if n_groups else 0

    def means(starts: Sequence[int]) -> dict[str, Tensor]:
        return node_means(model.transformer, windows_at(tokens, starts, n_ctx))

    parts = [means(second[:even][group::n_groups]) for group in range(n_groups)]
    return Means(
        first=means(first),
        groups={site: torch.stack([part[site] for part in parts]) for site in parts[0]}
        if parts
        else None,
        n_tokens=len(first) * n_ctx,
    )


def means_for(model: "Model", data: "Tokens | None", mean_tokens: int) -> Means:
    """Return a model's node means: from `data`, the file beside the model, or its run's corpus.

    Args:
        model: the file is looked for in the folder of its `path`.
        data: tokens of the training corpus; None to use the file or the corpus of the run.
        mean_tokens: minimum tokens per sample. A file measured for another number is replaced by a
            new measurement; means that were given (`save_means`) are always used.

    Raises:
        InputError: no data, no file and no run, a file or corpus that does not fit the model, or
            a file of another number of tokens and no corpus.
    """
    if data is not None:
        return measured_means(model, data, mean_tokens)
    path = None if model.path is None else Path(model.path) / MEANS_FILE
    saved = None if path is None or not is_file(path) else _read(path, model)
    if saved is not None and saved.measured_for in (None, str(mean_tokens)):
        return saved.means
    try:
        tokens = run_tokens(model)
    except InputError as error:
        if saved is None:
            raise
        raise InputError(
            f"{path} was measured on {saved.measured_for} tokens, mean_tokens is {mean_tokens}, "
            f"and the corpus cannot be read: {error}"
        ) from None
    means = measured_means(model, tokens, mean_tokens)
    if path is not None:
        _save(path, means, model, mean_tokens)
    return means


def _save(path: Path, means: Means, model: "Model", mean_tokens: int) -> None:
    """Save means for later calls; print a warning if the file cannot be written."""
    from wirework.console import warn

    groups = {f"{_SECOND}{site}": part for site, part in (means.groups or {}).items()}
    about = {"mean_tokens": str(mean_tokens), "n_tokens": str(means.n_tokens)}
    try:
        _write(path, {**means.first, **groups}, model, about)
    except InputError as error:
        warn(f"{error}: the means will be measured again next time")


def training_text_of(model: "Model", data: "Tokens | None") -> "Tokens":
    """Return the given training text, or that of the run whose folder contains the model.

    Raises:
        InputError: there is neither.
    """
    return run_tokens(model) if data is None else data


def run_tokens(model: "Model") -> "Tokens":
    """Return the training tokens of the run whose folder contains a model."""
    return run_data(model, "means of its nodes or their values").train


def run_data(model: "Model", purpose: str) -> "Prepared":
    """Return the corpus of the run whose folder contains a model.

    Args:
        model: the model.
        purpose: what needs the corpus, a plural noun for the error message.

    Raises:
        InputError: the model is outside a run folder, or the run's text is missing, damaged or
            changed.
    """
    from wirework.data import prepare, text_of_run
    from wirework.data.answers import answers_before_records
    from wirework.data.run_text import prepared_before
    from wirework.training.run import read_settings

    settings = None if model.path is None else Path(model.path).parent / "config.yaml"
    if settings is None or not is_file(settings):
        raise InputError(
            "no training text for this model, which is outside a run folder, and "
            f"{purpose} need it: give text (--corpus; from Python, data, made by "
            "prepare(config.data))"
        )
    saved = read_settings(settings.parent).data
    data = text_of_run(settings.parent)
    trained_on = _trained_on(settings.parent)
    if data is None and trained_on is not None:  # written by a version that kept no record
        data = prepared_before(settings.parent, saved, trained_on)
    if data is None:
        for corpus in (saved.corpus, saved.mix):
            refuse_saved_function(corpus, f"{settings} names as text", "--corpus")
        data = prepare(answers_before_records(saved))
    same = model.tokenizer is not None and data.tokenizer.fingerprint == model.tokenizer.fingerprint
    if not same or trained_on not in (None, data.fingerprint):
        raise InputError(
            f"the corpus of {settings.parent} has changed since, and {purpose} need it: give text"
        )
    return data


def _trained_on(run: Path) -> str | None:
    """Return the data fingerprint in the newest readable checkpoint of a run; None without one.

    Damaged checkpoints are skipped, as in training.
    """
    from wirework.training.checkpoint import newest_state

    state = newest_state(run / "checkpoints")
    return None if state is None else state.data


def save_means(path: str | Path, means: Mapping[str, Tensor], model: "Model | str | Path") -> None:
    """Save given means; `prune` then uses them whatever its settings say.

    Args:
        path: the file, or the model's folder.
        means: site to (N,).
        model: the model they belong to; its fingerprint is saved with them.

    Raises:
        InputError: the file cannot be written.
    """
    from wirework.model import load

    path = Path(path)
    _write(path / MEANS_FILE if path.is_dir() else path, means, load(model), {})


def _write(
    path: Path, means: Mapping[str, Tensor], model: "Model", about: Mapping[str, str]
) -> None:
    tensors = {name: mean.float().cpu().contiguous() for name, mean in means.items()}
    header = {"format": "wirework-means", "fingerprint": model.fingerprint, **about}
    write_bytes(path, save(tensors, {**header, "sha256": tensors_checksum(tensors, header)}))


def load_means(path: str | Path, model: "Model | str | Path") -> dict[str, Tensor]:
    """Read the means in a file: given means, or those of the first sample.

    Raises:
        InputError: the file is missing, damaged, of another format or of another model.
    """
    from wirework.model import load

    return dict(_read(Path(path), load(model)).means.first)


@dataclass(frozen=True)
class _MeansFile:
    """Content of a means file."""

    means: Means
    measured_for: str | None
    """The `mean_tokens` it was measured for; None if the means were given."""


def _read(path: Path, model: "Model") -> _MeansFile:
    header = read_header(path, "delete it").metadata
    tensors = read_tensors(path, "delete it")
    if header.get("format") != "wirework-means":
        raise InputError(f"{path} does not hold node means")
    if header.get("fingerprint") != model.fingerprint:
        raise InputError(f"{path} belongs to another model: measure the means anew")
    if header.pop("sha256", None) != tensors_checksum(tensors, header):
        raise InputError(f"{path} is damaged: it does not match its checksum; delete it")
    sites = ablated_sites(model.transformer)  # earlier versions saved further sites
    first = {site: tensors[site] for site in sites if site in tensors}
    first = check_means(first, model.transformer, str(path))
    if "n_batches" in header:  # earlier version: one sample, of n_batches of 16 windows
        batch = f"{_BATCH} x {model.config.n_ctx}"
        return _MeansFile(Means(first), f"one sample of {header['n_batches']} x {batch}")
    if "mean_tokens" not in header:
        return _MeansFile(Means(first), None)
    groups = {site: tensors[_SECOND + site] for site in sites if _SECOND + site in tensors}
    if (
        any(part.dim() != 2 or not len(part) for part in groups.values())
        or len({len(part) for part in groups.values()}) > 1
        or not (taken := header.get("n_tokens", "")).isdecimal()
    ):
        raise InputError(f"{path} does not hold node means: delete it")
    if groups:
        for group in range(min(map(len, groups.values()))):
            alike = {site: part[group] for site, part in groups.items()}
            check_means(alike, model.transformer, f"{path}, second sample")
    return _MeansFile(Means(first, groups or None, int(taken)), header["mean_tokens"])


def check_means(
    means: dict[str, Tensor], transformer: Transformer, where: str
) -> dict[str, Tensor]:
    """Return `means` if it has every site of `ablated_sites` in the right width.

    Raises:
        InputError: a site is missing, has another width or a value that is not finite.
    """
    sites = transformer.sites
    for name in ablated_sites(transformer):
        shape = tuple(means[name].shape) if name in means else None
        if shape != (sites[name].width,):
            raise InputError(f"{where}: expected {sites[name].width} means of {name}, got {shape}")
        if not bool(means[name].isfinite().all()):
            raise InputError(f"{where}: the means of {name} are not all finite")
    return means
