"""Mean activations of the nodes over the training text: the values of mean ablation.

They are measured on a training text given by the caller, or on that of the run that trained the
model. There are two samples of windows of this text that do not overlap: masks are fitted with the
means of the first sample, and the circuit is judged with those of the second. Both are saved beside
the model, with their standard errors, the number of tokens and a checksum: in `means.safetensors`
for the text of the model's run, in `means-TEXT.safetensors` for another one.
Shapes: B sequences, T tokens, N nodes at one site, S groups of windows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor

from wirework.circuit_format import EMBED
from wirework.circuits.masking.node_statistics import (
    MeansError,
    NodeSums,
    ablated_sites,
    means_error,
    node_sums,
)
from wirework.console import warn
from wirework.errors import InputError
from wirework.files import is_file, tensors_checksum, write_bytes
from wirework.nn import Transformer
from wirework.tensor_files import read_header, read_tensors
from wirework.user_code import refuse_saved_function

if TYPE_CHECKING:
    from wirework.data import Prepared, Tokens
    from wirework.model import Model

MEANS_FILE = "means.safetensors"
"""Name of the means file in the model's folder."""

_BATCH = 16
"""Sequences per batch of `training_windows`."""
_TOKENS = 4096
"""Tokens per forward pass."""
_GROUPS = 8
"""Equal parts of the second sample, whose spread gives the standard error of a loss."""
_SECOND = "second/"
"""Prefix of the second sample's tensors in the means file."""
_FIRST_ERROR, _SECOND_ERROR, _DEVIATION = "first_error/", "second_error/", "deviation/"
"""Prefixes of the standard errors of both samples and of the standard deviations."""


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
    first_error: Mapping[str, Tensor] | None = None
    """Site to (N,) float32: standard error of `first`; None if it was not recorded."""
    second_error: Mapping[str, Tensor] | None = None
    """Site to (N,) float32: standard error of `second`; None as above, or without `second`."""
    deviation: Mapping[str, Tensor] | None = None
    """Site to (N,) float32: standard deviation of the activation over the tokens of both samples;
    None if it was not recorded."""

    @property
    def error(self) -> MeansError | None:
        """Standard error of the means with which circuits are judged, in short."""
        errors = self.first_error if self.groups is None else self.second_error
        if errors is None or self.deviation is None:
            return None
        return means_error(errors, self.deviation)

    @property
    def n_groups(self) -> int:
        """S, the number of parts of the second sample."""
        return 0 if self.groups is None else len(next(iter(self.groups.values())))

    @property
    def second(self) -> dict[str, Tensor] | None:
        """Site to (N,) float32: means of the whole second sample; None if there is none."""
        if self.groups is None:
            return None
        return {site: part.double().mean(0).float() for site, part in self.groups.items()}


def training_windows(tokens: "Tokens", n_ctx: int, n_batches: int) -> Iterator[Tensor]:
    """Yield batches of windows that are spread evenly over a corpus; they may overlap.

    Args:
        tokens: the corpus.
        n_ctx: tokens per window; a corpus with fewer tokens is a single window, repeated.
        n_batches: number of batches.

    Yields:
        (16, min(n_ctx, tokens of the corpus)) int64.
    """
    n_ctx = min(n_ctx, tokens.n_tokens)
    count = n_batches * _BATCH
    starts = torch.linspace(0, tokens.n_tokens - n_ctx, count, dtype=torch.float64).long()
    for batch_starts in starts.view(n_batches, _BATCH).tolist():
        yield _windows(tokens, batch_starts, n_ctx)


def disjoint_windows(tokens: "Tokens", n_ctx: int, count: int) -> tuple[list[int], list[int]]:
    """Return the start positions of two samples of evenly spread, non-overlapping windows.

    Args:
        tokens: the text.
        n_ctx: tokens per window, at most the tokens of the text.
        count: windows per sample. If the text is too short, each sample gets half of its windows;
            a text of a single window belongs to the first sample.

    Returns:
        The first token of each window of the first sample, and of the second.
    """
    n_windows = min(2 * count, tokens.n_tokens // n_ctx)
    last_start = tokens.n_tokens - n_ctx
    starts = torch.linspace(0, last_start, n_windows, dtype=torch.float64).long().tolist()
    return starts[0::2], starts[1::2]


def windows_at(tokens: "Tokens", starts: Sequence[int], n_ctx: int) -> Iterator[Tensor]:
    """Yield the windows that begin at given tokens, in batches for one forward pass each.

    Args:
        tokens: the text.
        starts: first token of each window.
        n_ctx: tokens per window.

    Yields:
        (B, n_ctx) int64.
    """
    size = max(1, _TOKENS // n_ctx)
    for first in range(0, len(starts), size):
        yield _windows(tokens, starts[first : first + size], n_ctx)


def _windows(tokens: "Tokens", starts: Sequence[int], n_ctx: int) -> Tensor:
    """Return the windows that begin at `starts`, (B, n_ctx) int64."""
    return torch.stack(
        [torch.from_numpy(tokens.slice(start, n_ctx).astype("int64")) for start in starts]
    )


def measured_means(model: "Model", tokens: "Tokens", mean_tokens: int) -> Means:
    """Measure the node means of both samples, with their standard errors.

    Args:
        model: the model.
        tokens: training text.
        mean_tokens: minimum tokens per sample. Of a shorter text all is used, half in each sample.
    """
    n_ctx = min(model.config.n_ctx, tokens.n_tokens)
    first, groups = _samples(tokens, n_ctx, mean_tokens)

    def sums(starts: Sequence[int]) -> NodeSums:
        return node_sums(model.transformer, windows_at(tokens, starts, n_ctx))

    of_first = sums(first)
    of_groups = [sums(group) for group in groups]
    of_second = sum(of_groups[1:], of_groups[0]) if of_groups else None
    group_means = [group.means() for group in of_groups]
    return Means(
        first=of_first.means(),
        groups=_stacked(group_means) or None,
        n_tokens=of_first.n_tokens,
        first_error=of_first.errors(),
        second_error=None if of_second is None else of_second.errors(),
        deviation=(of_first if of_second is None else of_first + of_second).deviations(),
    )


def _samples(tokens: "Tokens", n_ctx: int, mean_tokens: int) -> tuple[list[int], list[list[int]]]:
    """Return the first token of each window of the first sample, and of each part of the second."""
    n_windows = -(-mean_tokens // n_ctx)
    first, second = disjoint_windows(tokens, n_ctx, -(-n_windows // _GROUPS) * _GROUPS)
    n_groups = min(_GROUPS, len(second))
    if n_groups:  # groups of equal size, so that the mean of their means is that of the sample
        second = second[: len(second) - len(second) % n_groups]
    return first, [second[group::n_groups] for group in range(n_groups)]


def with_embedding_means(
    means: Means, model: "Model", data: "Tokens | None", mean_tokens: int
) -> Means:
    """Return means with those of the embedding (`embed`), on windows chosen as for nodes.

    They are not saved: tokens are counted, the model is not run.

    Args:
        means: node means; without a second sample, none is taken of the embedding.
        model: the model.
        data: training text; None for that of the model's run.
        mean_tokens: minimum tokens per sample.

    Raises:
        InputError: there is no text.
    """
    text = run_data(model, "embedding edges (--embedding-edges)").train if data is None else data
    embed = model.transformer.embed.weight.detach().double().cpu()
    n_ctx = min(model.config.n_ctx, text.n_tokens)

    def mean_at(starts: Sequence[int]) -> Tensor:
        counts = torch.zeros(len(embed), dtype=torch.float64)
        for batch in windows_at(text, starts, n_ctx):
            counts += torch.bincount(batch.flatten(), minlength=len(embed))
        return (counts @ embed / counts.sum()).float()

    first, parts = _samples(text, n_ctx, mean_tokens)
    groups = means.groups
    if groups is not None:
        groups = {**groups, EMBED: torch.stack([mean_at(starts) for starts in parts])}
    return replace(means, first={**means.first, EMBED: mean_at(first)}, groups=groups)


def _stacked(of_groups: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return site to (S, N) of S mappings from site to (N,); empty for none."""
    sites = of_groups[0] if of_groups else ()
    return {site: torch.stack([group[site] for group in of_groups]) for site in sites}


def means_for(model: "Model", data: "Tokens | None", mean_tokens: int) -> Means:
    """Return a model's node means: read from a file beside the model, or measured now and saved.

    Args:
        model: the model; files of means are looked for in the folder of its `path`.
        data: tokens of the training corpus to measure the means on; None for the corpus of the
            model's run. A file holds the means of one text.
        mean_tokens: minimum tokens per sample; means measured with another number are measured
            again. Means that were given (`save_means`) are used whatever this number is, unless
            there is `data`.

    Raises:
        InputError: there are neither data nor a means file nor the corpus of a run, the file or the
            corpus does not fit the model, or the file was measured on another number of tokens and
            there is no corpus.
    """
    path = None if model.path is None else Path(model.path) / means_file(data)
    saved = None if path is None or not is_file(path) else _read(path, model)
    wanted = (str(mean_tokens),) if data is not None else (None, str(mean_tokens))
    if saved is not None and saved.measured_for in wanted:
        return saved.means
    try:
        tokens = training_text_of(model, data)
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


def means_file(data: "Tokens | None") -> str:
    """Return the name of the file with the means of a text; None for that of the model's run."""
    if data is None:
        return MEANS_FILE
    stem, suffix = MEANS_FILE.split(".")
    return f"{stem}-{data.fingerprint[:16]}.{suffix}"


def _save(path: Path, means: Means, model: "Model", mean_tokens: int) -> None:
    """Save means for later calls; warn if the file cannot be written."""
    parts = {
        _SECOND: means.groups,
        _FIRST_ERROR: means.first_error,
        _SECOND_ERROR: means.second_error,
        _DEVIATION: means.deviation,
    }
    tensors = {
        f"{prefix}{site}": of_site
        for prefix, part in parts.items()
        for site, of_site in (part or {}).items()
    }
    about = {"mean_tokens": str(mean_tokens), "n_tokens": str(means.n_tokens)}
    try:
        _write(path, {**means.first, **tensors}, model, about)
    except InputError as error:
        warn(f"{error}: the means will be measured again next time")


def training_text_of(model: "Model", data: "Tokens | None") -> "Tokens":
    """Return the given training text, or that of the run whose folder contains the model.

    Args:
        model: the model.
        data: training text; None for that of the run.

    Raises:
        InputError: there is neither.
    """
    return run_tokens(model) if data is None else data


def run_tokens(model: "Model") -> "Tokens":
    """Return the training tokens of the run whose folder contains a model.

    Raises:
        InputError: as for `run_data`.
    """
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
    from wirework.training.run_folder import read_settings

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
    same_tokenizer = (
        model.tokenizer is not None and data.tokenizer.fingerprint == model.tokenizer.fingerprint
    )
    if not same_tokenizer or trained_on not in (None, data.fingerprint):
        raise InputError(
            f"the corpus of {settings.parent} has changed since the model was trained, and "
            f"{purpose} need it: give text"
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
    """Save means that were not measured by wirework; `prune` then uses them.

    Args:
        path: the file, or the model's folder.
        means: site to (N,), for every site of `ablated_sites`.
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
    """Read a means file: the given means, or those of the first sample.

    Args:
        path: the file.
        model: the model that it belongs to; a path is loaded.

    Returns:
        Site to (N,) float32.

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
    """The setting `mean_tokens` at the measurement; None if the means were given."""


def _read(path: Path, model: "Model") -> _MeansFile:
    """Read and check a means file, of this or an earlier version."""
    header = read_header(path, "delete it").metadata
    tensors = read_tensors(path, "delete it")
    if header.get("format") != "wirework-means":
        raise InputError(f"{path} does not hold node means")
    if header.get("fingerprint") != model.fingerprint:
        raise InputError(f"{path} belongs to another model: delete it to measure the means again")
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
    n_tokens = header.get("n_tokens", "")
    if not n_tokens.isdecimal():
        raise InputError(f"{path} does not hold node means: delete it")
    _check_groups(groups, model.transformer, path)
    of_prefix = (
        {site: tensors[prefix + site] for site in sites if prefix + site in tensors}
        for prefix in (_FIRST_ERROR, _SECOND_ERROR, _DEVIATION)
    )
    spreads = [
        check_means(part, model.transformer, f"{path}, spread") if part else None
        for part in of_prefix
    ]
    means = Means(first, groups or None, int(n_tokens), *spreads)
    return _MeansFile(means, header["mean_tokens"])


def _check_groups(groups: Mapping[str, Tensor], transformer: Transformer, path: Path) -> None:
    """Check the means of the second sample: site to (S, N), with the same S at every site.

    Raises:
        InputError: they have another shape, or those of a group do not fit the model.
    """
    if any(of_site.dim() != 2 or not len(of_site) for of_site in groups.values()):
        raise InputError(f"{path} does not hold node means: delete it")
    sizes = {len(of_site) for of_site in groups.values()}
    if len(sizes) > 1:
        raise InputError(f"{path} does not hold node means: delete it")
    for group in range(max(sizes, default=0)):
        of_group = {site: of_site[group] for site, of_site in groups.items()}
        check_means(of_group, transformer, f"{path}, second sample")


def check_means(
    means: dict[str, Tensor], transformer: Transformer, where: str
) -> dict[str, Tensor]:
    """Return `means` if they are complete.

    Args:
        means: site to (N,).
        transformer: the model that they belong to.
        where: where they come from, for the error message.

    Returns:
        `means`, unchanged.

    Raises:
        InputError: a site of `ablated_sites` is missing, has another width or a value that is not
            finite.
    """
    sites = transformer.sites
    for name in ablated_sites(transformer):
        shape = tuple(means[name].shape) if name in means else None
        if shape != (sites[name].width,):
            raise InputError(f"{where}: expected {sites[name].width} means of {name}, got {shape}")
        if not bool(means[name].isfinite().all()):
            raise InputError(f"{where}: the means of {name} are not all finite")
    return means
