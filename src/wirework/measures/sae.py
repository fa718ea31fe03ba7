"""Sparse autoencoders of a site: their quality on held-out text, and their folder.

The autoencoders are those of sae-lens (extra `sae`), in its format on disk. `sae_training.py`
trains them.
Shapes: B sequences, T tokens, D width of the site, F features.
Source: Ferrao et al. 2025 (sparse autoencoders, CE score).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from wirework import files
from wirework.config import SaeConfig
from wirework.errors import InputError, number_of, translated_errors
from wirework.foreign import no_prompts
from wirework.measures.activations import from_position, median_norm, norms_of, up_to_norm
from wirework.measures.measured_text import fixed_windows
from wirework.nn import Edit
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.nn.sites import look_up
from wirework.summaries import Report
from wirework.tensor_files import read_header

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

OUTLIER_NORM = 10.0
"""A token is an outlier if its norm is over so many times the median norm."""

_WORTH_SAYING = 0.05
"""Smallest change of a number without the outliers that gives a warning; for L0 a relative one."""

_FILES = ("cfg.json", "sae_weights.safetensors")  # written by sae-lens
_OURS = ("checksums.json", "settings.yaml", "quality.json")  # written by us beside them


class Sae(Protocol):
    """Interface of a sparse autoencoder; those of sae-lens have it."""

    cfg: Any
    """Its sizes, `d_in` and `d_sae`, and in `metadata` the site and model it was trained on."""

    def encode(self, x: Tensor) -> Tensor:
        """Return features (..., F) of values (..., D)."""

    def decode(self, features: Tensor) -> Tensor:
        """Return values (..., D) of features (..., F)."""


@dataclass(frozen=True, repr=False)
class SaeScores(Report):
    """Quality of an autoencoder on some of the tokens; fields as in `SaeQuality`."""

    sae_l0: float
    ce_score: float | None
    explained_variance: float | None
    mse: float
    n_tokens: int


@dataclass(frozen=True, repr=False)
class SaeQuality(Report):
    """Quality of an autoencoder on held-out text."""

    site: str
    """Name of the site that it reads."""
    architecture: str
    """`standard`, `topk`, `jumprelu` or another architecture of sae-lens."""
    d_sae: int
    """Number of features."""
    sae_l0: float
    """Mean number of features on per token."""
    ce_score: float | None
    """(ce_zeroed - ce_spliced) / (ce_zeroed - ce_clean), 1 is best; None if zeroing the site does
    not raise the loss."""
    ce_clean: float
    """Next-token cross-entropy of the unchanged model, nats per token."""
    ce_zeroed: float
    """The same with the site set to 0."""
    ce_spliced: float
    """The same with the site replaced by the autoencoder's reconstruction."""
    explained_variance: float | None
    """1 - squared error / squared distance from the mean, both summed over tokens and channels;
    None if the site's value never changes."""
    mse: float
    """Mean squared error per channel of the site."""
    dead_features: int
    """Features that are on at none of the `n_tokens`."""
    n_tokens: int
    """Held-out tokens that count, without those that `max_norm_multiple` leaves out."""
    outlier_share: float = 0.0
    """Share of all tokens whose norm is over 10 times the median norm. A few such tokens can
    dominate every number above."""
    without_outliers: SaeScores | None = None
    """Quality on all other tokens, the outliers left unchanged; None if there are no outliers."""


@torch.no_grad()
@unchanged_weights()
def evaluate_sae(
    model: "Model | str | Path",
    sae: Sae,
    text: "Tokens",
    *,
    site: str | None = None,
    n_tokens: int = 32_768,
    skip_first: int = 0,
    max_norm_multiple: float | None = None,
) -> SaeQuality:
    """Measure an autoencoder on text.

    Args:
        model: the model whose site it reads; a path is loaded.
        sae: the autoencoder, on the model's device.
        text: tokens, usually of the held-out split.
        site: name of the site; None: the one in the autoencoder's metadata.
        n_tokens: number of tokens to read, in windows of n_ctx.
        skip_first: tokens at the start of each window that stay unchanged: neither zeroed nor
            spliced nor counted. Their losses do count.
        max_norm_multiple: tokens whose norm is over so many times the median norm stay unchanged
            in the same way; None: no token is left out.

    Raises:
        InputError: the autoencoder is of another model or width, its site is unknown, or the text
            is shorter than a window.
    """
    from wirework.model import load

    model = load(model)
    site = check_fit(sae, model, site)
    batches = fixed_windows(text, model.config.n_ctx, n_tokens)
    if skip_first >= model.config.n_ctx:
        raise InputError(
            f"skip_first {skip_first} leaves nothing of {number_of(model.config.n_ctx, 'token')}"
        )
    device = model.transformer.embed.weight.device

    def loss_with(edit: Edit) -> float:
        with model.transformer.edited({site: from_position(skip_first, edit)}):
            losses = [model.transformer.loss(x.to(device), y.to(device)) for x, y in batches]
        return float(torch.stack(losses).double().mean())

    batch_norms: list[Tensor] = []
    clean = loss_with(_noting_norms(batch_norms))
    norms = torch.cat(batch_norms)
    median = float(median_norm(norms))
    bound = float("inf") if max_norm_multiple is None else max_norm_multiple * median
    limit = min(bound, OUTLIER_NORM * median)
    all_tokens, within_limit = _Tally(sae, bound), _Tally(sae, limit)

    def ce_scores(tally: _Tally) -> tuple[float, float, float | None]:
        zeroed = loss_with(up_to_norm(tally.bound, torch.zeros_like))
        spliced = loss_with(up_to_norm(tally.bound, tally.spliced))
        cost_of_zeroing = zeroed - clean
        return (
            zeroed,
            spliced,
            (zeroed - spliced) / cost_of_zeroing if cost_of_zeroing > 0 else None,
        )

    zeroed, spliced, ce_score = ce_scores(all_tokens)
    without = None
    if bool(((norms > limit) & (norms <= bound)).any()):
        without = SaeScores(ce_score=ce_scores(within_limit)[2], **within_limit.scores())
    return SaeQuality(
        site=site,
        architecture=sae.cfg.architecture(),
        d_sae=sae.cfg.d_sae,
        ce_score=ce_score,
        ce_clean=clean,
        ce_zeroed=zeroed,
        ce_spliced=spliced,
        **all_tokens.scores(),
        dead_features=all_tokens.dead_features,
        outlier_share=float((norms > OUTLIER_NORM * median).double().mean()),
        without_outliers=without,
    )


def _noting_norms(batch_norms: list[Tensor]) -> Edit:
    """Return an edit that changes nothing and appends each batch's norms (n,) to `seen`."""

    def note(x: Tensor) -> Tensor:
        batch_norms.append(norms_of(x).flatten())
        return x

    return note


class _Tally:
    """Splices an autoencoder in and sums its errors over tokens up to a norm, in float64."""

    def __init__(self, sae: Sae, bound: float) -> None:
        self.sae, self.bound = sae, bound
        self._on = self._counted = torch.zeros((), dtype=torch.int64)
        self._error = self._squares = self._sum = torch.zeros((), dtype=torch.float64)
        self._width = 0

    def spliced(self, x: Tensor) -> Tensor:
        """Return the reconstruction of values (B, T, D), and add its errors to the sums."""
        features = self.sae.encode(x)
        reconstruction = self.sae.decode(features).to(x.dtype)
        counted = norms_of(x).flatten() <= self.bound
        rows = x.double().flatten(0, 1) * counted[:, None]
        errors = (x - reconstruction).double().flatten(0, 1) * counted[:, None]
        on = (features.flatten(0, 1) != 0) & counted[:, None]
        self._on = self._on.to(x.device) + on.sum(0)
        self._sum = self._sum.to(x.device) + rows.sum(0)
        self._squares = self._squares.to(x.device) + rows.square().sum()
        self._error = self._error.to(x.device) + errors.square().sum()
        self._counted = self._counted.to(x.device) + counted.sum()
        self._width = x.shape[-1]
        return reconstruction

    @property
    def dead_features(self) -> int:
        """Number of features that were on at none of the counted tokens."""
        return int((self._on == 0).sum())

    def scores(self) -> dict[str, Any]:
        """Return L0, explained variance and mean squared error over the counted tokens."""
        n_tokens = int(self._counted)
        mean = self._sum / n_tokens
        spread = float(self._squares - n_tokens * mean.square().sum())
        error = float(self._error)
        # Rounding leaves a small positive sum even if the site never changes.
        varies = spread > 1e-12 * float(self._squares)
        return {
            "sae_l0": float(self._on.sum()) / n_tokens,
            "explained_variance": 1 - error / spread if varies else None,
            "mse": error / (n_tokens * self._width),
            "n_tokens": n_tokens,
        }


def outlier_warning(quality: Mapping[str, Any]) -> str | None:
    """Return a warning line if a few tokens of large norm dominate an autoencoder's numbers.

    Args:
        quality: a `SaeQuality`, or its JSON.

    Returns:
        None if the numbers are about the same without these tokens.
    """
    without = quality.get("without_outliers")
    if without is None or not any(
        _differ(quality[name], without[name], scale)
        for name, scale in (
            ("explained_variance", 1.0),
            ("ce_score", 1.0),
            ("sae_l0", max(quality["sae_l0"], without["sae_l0"])),
        )
    ):
        return None
    numbers = ", ".join(
        f"{name.replace('_', ' ')} {_brief(without[name])} without them ({_brief(quality[name])} "
        "with)"
        for name in ("explained_variance", "ce_score", "sae_l0")
    )
    share = f"{100 * quality['outlier_share']:.2g}%"
    return (
        f"{share} of the tokens have norms over {OUTLIER_NORM:g} times "
        f"the median and decide the averages: {numbers}; --max-norm-multiple {OUTLIER_NORM:g} "
        "leaves them out"
    )


def _differ(value: float | None, other: float | None, scale: float) -> bool:
    if value is None or other is None:
        return value is not other
    return abs(value - other) > _WORTH_SAYING * scale


def _brief(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3g}"


def check_fit(sae: Sae, model: "Model", site: str | None = None) -> str:
    """Return the site of an autoencoder, checked against the model.

    Args:
        sae: the autoencoder.
        model: the model.
        site: name of the site; None: the one in the autoencoder's metadata.

    Raises:
        InputError: no site is named, the model has no such site, or the autoencoder is of another
            model or width.
    """
    metadata = sae.cfg.metadata
    site = site or metadata.site
    if site is None:
        raise InputError("this autoencoder does not say which site it is for: name one")
    width = look_up(model.transformer.sites, [site])[site].width
    if sae.cfg.d_in != width:
        raise InputError(f"{site} is {width} wide, the autoencoder reads {sae.cfg.d_in}")
    if metadata.model_fingerprint not in (None, model.fingerprint):
        raise InputError(
            f"this autoencoder was trained on another model than {model.path or 'this one'}"
        )
    return site


def check_out(folder: str | Path) -> None:
    """Check that an autoencoder can be written to a folder, before it is trained.

    Raises:
        InputError: the folder holds other files, or cannot be written to.
    """
    files.check_folder(Path(folder), "an autoencoder", _FILES)


def save_sae(
    sae: Any,
    folder: str | Path,
    quality: SaeQuality | None = None,
    settings: SaeConfig | None = None,
) -> Path:
    """Write an autoencoder of sae-lens in its own format, whole or not at all.

    Args:
        sae: the autoencoder.
        folder: folder to write; an autoencoder that is already there is replaced.
        quality: its quality, written as `quality.json`.
        settings: the training settings, written as `settings.yaml`.

    Raises:
        InputError: the folder holds other files, or cannot be written to.
    """
    folder = Path(folder)
    check_out(folder)
    with files.atomic_dir(folder) as partial:
        with translated_errors(f"cannot write {folder}"):
            sae.save_model(partial)
        if quality is not None:
            files.write_json(partial / "quality.json", quality.to_dict())
        if settings is not None:
            files.write_text(partial / "settings.yaml", settings.to_yaml())
    return folder


def load_sae(folder: str | Path, device: str | torch.device = "cpu") -> Any:
    """Read an autoencoder in sae-lens' format, whoever wrote it.

    Raises:
        InputError: there is none, it is damaged or has weights that are not finite, or sae-lens is
            not installed.
    """
    folder = Path(folder)
    for name in _FILES:
        if not files.is_file(folder / name):
            raise InputError(f"no autoencoder at {folder}: expected {name} in it")
    if any(files.is_file(folder / name) for name in _OURS):
        files.verify_dir(folder, _FILES)
    read_header(folder / "sae_weights.safetensors")
    library = sae_lens()
    with translated_errors(f"{folder} is no autoencoder that sae-lens reads"), no_prompts():
        sae = library.SAE.load_from_disk(folder, device=str(device))
    for name, weight in sae.state_dict().items():
        if not bool(weight.isfinite().all()):
            raise InputError(f"{folder} is damaged: {name} holds values that are not finite")
    return sae


def require_sae_lens() -> None:
    """Check that sae-lens is installed, without importing it, which takes seconds.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("sae_lens") is None:
        raise InputError("sparse autoencoders need sae-lens: pip install '.[sae]'")


def sae_lens() -> ModuleType:
    """Import sae-lens and return it.

    Raises:
        InputError: it is not installed.
    """
    require_sae_lens()
    return import_module("sae_lens")
