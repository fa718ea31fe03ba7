"""Sparse autoencoders of a site: what one is worth on held-out text, and its folder.

They are sae-lens' own (extra `sae`), in its own format on disk. `sae_training.py` trains them.
Shapes: B sequences, T tokens, D width of the site, F features.
Source: Ferrao et al. 2025 (sparse autoencoders, CE score).
"""

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
from wirework.errors import InputError, translated_errors
from wirework.foreign import no_prompts
from wirework.measures.activations import from_position
from wirework.measures.text import held_out
from wirework.nn.sites import look_up
from wirework.tensor_files import read_header

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_FILES = ("cfg.json", "sae_weights.safetensors")  # of sae-lens


class Sae(Protocol):
    """What is needed of a sparse autoencoder; those of sae-lens have it."""

    cfg: Any
    """Its sizes, `d_in` and `d_sae`, and in `metadata` the site and model it was trained on."""

    def encode(self, x: Tensor) -> Tensor:
        """Return features (..., F) of values (..., D)."""

    def decode(self, features: Tensor) -> Tensor:
        """Return values (..., D) of features (..., F)."""


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
    """Held-out tokens read."""


@torch.no_grad()
def evaluate_sae(
    model: "Model",
    sae: Sae,
    text: "Tokens",
    *,
    site: str | None = None,
    n_tokens: int = 32_768,
    skip_first: int = 0,
) -> SaeQuality:
    """Measure an autoencoder on text.

    Args:
        model: the model whose site it reads.
        sae: the autoencoder, on the model's device.
        text: tokens, of the held-out split as a rule.
        site: where it stands; None: where it says it was trained.
        n_tokens: how many to read, in windows of n_ctx.
        skip_first: tokens at the start of each window that are left as they are, neither zeroed nor
            spliced nor counted, though their losses are.

    Raises:
        InputError: it is of another model or width, its site is unknown, or the text is shorter
            than a window.
    """
    site = check_fit(sae, model, site)
    transformer = model.transformer
    batches = held_out(text, model.config.n_ctx, n_tokens)
    if skip_first >= model.config.n_ctx:
        raise InputError(f"skip_first {skip_first} leaves nothing of {model.config.n_ctx} tokens")
    device = transformer.embed.weight.device
    tally = _Tally(sae)
    edits = {"clean": None, "zeroed": torch.zeros_like, "spliced": tally.spliced}
    losses: dict[str, list[Tensor]] = {name: [] for name in edits}
    for inputs, targets in batches:
        for name, edit in edits.items():
            put = {} if edit is None else {site: from_position(skip_first, edit)}
            with transformer.edited(put):
                losses[name].append(transformer.loss(inputs.to(device), targets.to(device)))
    clean, zeroed, spliced = (float(torch.stack(ce).double().mean()) for ce in losses.values())
    lost = zeroed - clean
    return SaeQuality(
        site=site,
        architecture=sae.cfg.architecture(),
        d_sae=sae.cfg.d_sae,
        ce_score=(zeroed - spliced) / lost if lost > 0 else None,
        ce_clean=clean,
        ce_zeroed=zeroed,
        ce_spliced=spliced,
        **tally.totals(),
        n_tokens=tally.n_tokens,
    )


class _Tally:
    """Splices an autoencoder in and counts what it does, in float64."""

    def __init__(self, sae: Sae) -> None:
        self.sae = sae
        self.n_tokens = 0
        self._on = torch.zeros((), dtype=torch.int64)
        self._error = self._squares = self._sum = torch.zeros((), dtype=torch.float64)

    def spliced(self, x: Tensor) -> Tensor:
        """Return what the autoencoder makes of values (B, T, D)."""
        features = self.sae.encode(x)
        made = self.sae.decode(features).to(x.dtype)
        rows = x.double().flatten(0, 1)
        self._on = self._on.to(x.device) + features.flatten(0, 1).count_nonzero(0)
        self._sum = self._sum.to(x.device) + rows.sum(0)
        self._squares = self._squares.to(x.device) + rows.square().sum()
        self._error = self._error.to(x.device) + (x - made).double().square().sum()
        self.n_tokens += len(rows)
        return made

    def totals(self) -> dict[str, Any]:
        """Return the counts over all that was spliced."""
        mean = self._sum / self.n_tokens
        spread = float(self._squares - self.n_tokens * mean.square().sum())
        error = float(self._error)
        # Rounding leaves a little where nothing varies.
        varies = spread > 1e-12 * float(self._squares)
        return {
            "sae_l0": float(self._on.sum()) / self.n_tokens,
            "explained_variance": 1 - error / spread if varies else None,
            "mse": error / (self.n_tokens * mean.numel()),
            "dead_features": int((self._on == 0).sum()),
        }


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


def check_out(folder: Path) -> None:
    """Make sure that an autoencoder can be written to a folder, before the work that makes it.

    Raises:
        InputError: something else is there, or the place cannot be written to.
    """
    files.check_folder(folder, "an autoencoder", _FILES)


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
        sae.save_model(partial)
        if quality is not None:
            files.write_json(partial / "quality.json", asdict(quality))
        if settings is not None:
            files.write_text(partial / "settings.yaml", settings.to_yaml())
    return folder


def load_sae(folder: str | Path, device: str | torch.device = "cpu") -> Any:
    """Read an autoencoder in sae-lens' format, ours or another's.

    Raises:
        InputError: none there, damaged, or sae-lens is not installed.
    """
    folder = Path(folder)
    for name in _FILES:
        if not (folder / name).is_file():
            raise InputError(f"no autoencoder at {folder}: expected {name} in it")
    if (folder / "checksums.json").exists():
        files.verify_dir(folder, _FILES)
    read_header(folder / "sae_weights.safetensors")
    library = sae_lens()
    with translated_errors(f"{folder} is no autoencoder that sae-lens reads"), no_prompts():
        return library.SAE.load_from_disk(folder, device=str(device))


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
