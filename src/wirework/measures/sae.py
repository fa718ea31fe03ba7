"""Sparse autoencoders of a site: what one is worth on held-out text, and its folder.

They are sae-lens' own (extra `sae`), in its own format on disk. `sae_training.py` trains them.
Shapes: B sequences, T tokens, D width of the site, F features.
Source: Ferrao et al. 2025 (sparse autoencoders, CE score).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
from wirework.measures.text import fixed_windows
from wirework.nn import Edit
from wirework.nn.sites import look_up
from wirework.tensor_files import read_header

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

OUTLIER_NORM = 10.0
"""A token is an outlier if its value is longer than so many times the median."""

_WORTH_SAYING = 0.05
"""By how much of 1 a number changes without the outliers if there is a warning of it."""

_FILES = ("cfg.json", "sae_weights.safetensors")  # of sae-lens
_OURS = ("checksums.json", "settings.yaml", "quality.json")  # beside them where we wrote them


class Sae(Protocol):
    """What is needed of a sparse autoencoder; those of sae-lens have it."""

    cfg: Any
    """Its sizes, `d_in` and `d_sae`, and in `metadata` the site and model it was trained on."""

    def encode(self, x: Tensor) -> Tensor:
        """Return features (..., F) of values (..., D)."""

    def decode(self, features: Tensor) -> Tensor:
        """Return values (..., D) of features (..., F)."""


@dataclass(frozen=True)
class SaeScores:
    """What an autoencoder is worth on some of the tokens; fields as in `SaeQuality`."""

    sae_l0: float
    ce_score: float | None
    explained_variance: float | None
    mse: float
    n_tokens: int


@dataclass(frozen=True)
class SaeQuality:
    """What an autoencoder is worth on held-out text."""

    site: str
    """Where it stands."""
    architecture: str
    """`standard`, `topk`, `jumprelu` or another of sae-lens'."""
    d_sae: int
    """Features."""
    sae_l0: float
    """Features on per token."""
    ce_score: float | None
    """(ce_zeroed - ce_spliced) / (ce_zeroed - ce_clean), 1 is best; None where zeroing the site
    costs nothing: then there is nothing to win back."""
    ce_clean: float
    """Next-token cross-entropy of the model as it is, nats per token."""
    ce_zeroed: float
    """With the site at 0."""
    ce_spliced: float
    """With the site at what the autoencoder makes of it."""
    explained_variance: float | None
    """1 - squared error / squared distance from the mean, both summed over all; None where the
    site's value never changes."""
    mse: float
    """Mean squared error of an entry of the site."""
    dead_features: int
    """Features that are on at none of the `n_tokens`."""
    n_tokens: int
    """Held-out tokens read, without those that `max_norm_multiple` leaves out."""
    outlier_share: float = 0.0
    """Share of all tokens whose value is longer than 10 times the median: few, yet they can decide
    every number above."""
    without_outliers: SaeScores | None = None
    """The numbers of all other tokens, the outliers left as they are; None if there are none."""


@torch.no_grad()
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
        text: tokens, of the held-out split as a rule.
        site: where it stands; None: where it says it was trained.
        n_tokens: how many to read, in windows of n_ctx.
        skip_first: tokens at the start of each window that are left as they are, neither zeroed nor
            spliced nor counted, though their losses are.
        max_norm_multiple: tokens whose value is longer than so many times the median are left as
            they are in the same way; None: none.

    Raises:
        InputError: it is of another model or width, its site is unknown, or the text is shorter
            than a window.
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
    """Splices an autoencoder in and counts what it does to tokens up to a norm, in float64."""

    def __init__(self, sae: Sae, bound: float) -> None:
        self.sae, self.bound = sae, bound
        self._on = self._counted = torch.zeros((), dtype=torch.int64)
        self._error = self._squares = self._sum = torch.zeros((), dtype=torch.float64)
        self._width = 0

    def spliced(self, x: Tensor) -> Tensor:
        """Return what the autoencoder makes of values (B, T, D)."""
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
        """Features that were on at none of the tokens counted."""
        return int((self._on == 0).sum())

    def scores(self) -> dict[str, Any]:
        """Return L0, explained variance and squared error of the tokens counted."""
        n_tokens = int(self._counted)
        mean = self._sum / n_tokens
        spread = float(self._squares - n_tokens * mean.square().sum())
        error = float(self._error)
        # Rounding leaves a little where nothing varies.
        varies = spread > 1e-12 * float(self._squares)
        return {
            "sae_l0": float(self._on.sum()) / n_tokens,
            "explained_variance": 1 - error / spread if varies else None,
            "mse": error / (n_tokens * self._width),
            "n_tokens": n_tokens,
        }


def outlier_warning(quality: Mapping[str, Any]) -> str | None:
    """Return a line if a few tokens of giant norm decide what an autoencoder seems worth.

    Args:
        quality: a `SaeQuality` as JSON (`dataclasses.asdict`).

    Returns:
        None where the numbers are about the same without them.
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
    """Return the site of a model that an autoencoder is for.

    Args:
        sae: the autoencoder.
        model: the model.
        site: where it shall stand; None: where it says.

    Raises:
        InputError: it does not say, or is of another model or width, or there is no such site.
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
    """Make sure that an autoencoder can be written to a folder, before the work that makes it.

    Raises:
        InputError: something else is there, or the place cannot be written to.
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
        folder: where to; one that is already there is replaced.
        quality: what it is worth, written beside it as `quality.json`.
        settings: how it was trained, written as `settings.yaml`.

    Raises:
        InputError: something else is there, or the place cannot be written to.
    """
    folder = Path(folder)
    check_out(folder)
    with files.atomic_dir(folder) as partial:
        with translated_errors(f"cannot write {folder}"):
            sae.save_model(partial)
        if quality is not None:
            files.write_json(partial / "quality.json", asdict(quality))
        if settings is not None:
            files.write_text(partial / "settings.yaml", settings.to_yaml())
    return folder


def load_sae(folder: str | Path, device: str | torch.device = "cpu") -> Any:
    """Read an autoencoder in sae-lens' format, ours or another's.

    Raises:
        InputError: none there, damaged, with weights that are not finite, or sae-lens is not
            installed.
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


def check_installed() -> None:
    """Make sure that sae-lens can be imported, which itself takes seconds.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("sae_lens") is None:
        raise InputError("sparse autoencoders need sae-lens: pip install 'wirework[sae]'")


def sae_lens() -> ModuleType:
    """Return the package.

    Raises:
        InputError: it is not installed.
    """
    check_installed()
    return import_module("sae_lens")
