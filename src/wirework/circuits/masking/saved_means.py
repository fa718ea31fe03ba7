"""The means file beside a model: node means are read from it, or measured once and saved.

It has the means of both samples, their standard errors, the number of tokens and a checksum:
`means.safetensors` for the text of the model's run, `means-TEXT.safetensors` for another one.
Shapes: N nodes at one site, S groups of windows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save
from torch import Tensor

from wirework.circuits.masking.means import Means, check_means, measured_means
from wirework.circuits.masking.node_statistics import ablated_sites
from wirework.circuits.masking.training_text import training_text_of
from wirework.console import warn
from wirework.errors import InputError
from wirework.files import is_file, tensors_checksum, write_bytes
from wirework.nn import Transformer
from wirework.tensor_files import read_header, read_tensors

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

MEANS_FILE = "means.safetensors"
"""Name of the means file in the model's folder."""

_SECOND = "second/"
"""Prefix of the second sample's tensors in the means file."""
_FIRST_ERROR, _SECOND_ERROR, _DEVIATION = "first_error/", "second_error/", "deviation/"
"""Prefixes of the standard errors of both samples and of the standard deviations."""
_EARLIER_BATCH = 16
"""Windows per batch in files of earlier versions, which have a number of batches."""


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
    if "n_batches" in header:  # earlier version: one sample, of n_batches
        batch = f"{_EARLIER_BATCH} x {model.config.n_ctx}"
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
