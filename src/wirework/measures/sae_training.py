"""Train a sparse autoencoder with sae-lens, on activations streamed out of a model.

Trainer, architectures and mixing buffer are those of sae-lens; the stream of activations is ours.
Shapes: D width of the site, F features.
"""

import io
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework.config import SaeConfig
from wirework.console import Progress
from wirework.errors import InputError, number_of
from wirework.measures.activations import default_site, median_norm, norms_of, site_values
from wirework.measures.measured_text import fixed_windows, prepared_text, shuffled_windows
from wirework.measures.sae import SaeQuality, evaluate_sae, sae_lens
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.nn.sites import look_up

if TYPE_CHECKING:
    from wirework.data import Prepared, Tokens
    from wirework.model import Model

_LENS_NAMES = {
    "resid_in": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_out": "hook_resid_post",
    "attn.resid_delta": "hook_attn_out",
    "mlp.post_act": "mlp.hook_post",
    "mlp.resid_delta": "hook_mlp_out",
}
"""TransformerLens' names of a block's sites, which tools of sae-lens look up."""


@unchanged_weights()
def measure_sae(
    model: "Model | str | Path",
    settings: SaeConfig = SaeConfig(),
    data: "Prepared | None" = None,
    progress: bool = True,
) -> tuple[Any, SaeQuality]:
    """Train an autoencoder and measure it on held-out text.

    Args:
        model: the model; a path is loaded.
        settings: site, architecture and length of training.
        data: prepared text; None: the text of the run that the model lies in.
        progress: show progress on standard error.

    Returns:
        The autoencoder (`sae_lens.SAE`) and its quality.

    Raises:
        InputError: as for `train_sae`, or the held-out text is too short.
    """
    from wirework.model import load

    model = load(model)
    _place(model, settings)  # refuse bad settings before any text is prepared
    text = prepared_text(model, data)
    fixed_windows(
        text.val, model.config.n_ctx, settings.eval_tokens
    )  # refuse short text before training
    sae = train_sae(model, settings, text, progress)
    with Progress("measuring the autoencoder", None, shown=progress):
        quality = evaluate_sae(
            model,
            sae,
            text.val,
            n_tokens=settings.eval_tokens,
            skip_first=settings.skip_first,
            max_norm_multiple=settings.max_norm_multiple,
        )
    return sae, quality


@unchanged_weights()  # of the model; the autoencoder trains in products of its own
def train_sae(
    model: "Model | str | Path",
    settings: SaeConfig = SaeConfig(),
    data: "Prepared | None" = None,
    progress: bool = True,
) -> Any:
    """Train an autoencoder on a site's activations over the training split.

    Args:
        model: the model; a path is loaded.
        settings: site, architecture and length of training.
        data: prepared text, of which `train` is read; None: the text of the run that the model lies
            in.
        progress: show progress on standard error.

    Returns:
        An autoencoder of sae-lens (`sae_lens.SAE`) on the model's device, for inference. On a CPU
        the same seed gives the same autoencoder.

    Raises:
        InputError: sae-lens is not installed, there is no such site, there is no text or too
            little, the settings do not fit the site, or weights became infinite or NaN.

    Source: Ferrao et al. 2025 (sparse autoencoders).
    """
    from wirework.model import load

    model = load(model)
    site, width = _place(model, settings)
    text = prepared_text(model, data).train
    _check_enough(text, settings, model.config.n_ctx)
    lens = sae_lens()
    device = model.transformer.embed.weight.device
    with (
        Progress("autoencoder", settings.tokens, shown=progress) as bar,
        torch.random.fork_rng([] if device.type == "cpu" else [device]),
        redirect_stderr(io.StringIO()),  # the trainer has bars of its own
    ):
        torch.manual_seed(settings.seed)
        sae = _untrained(lens, model, site, width, settings)
        batches = _mixed(_rows(model, site, text, settings), settings, bar)
        trainer = lens.SAETrainer(_trainer_config(lens, settings, str(device)), sae, batches)
        try:
            trainer.fit()
        except ZeroDivisionError:  # the mean size of what flows in
            raise InputError(f"{site} is 0 at every token: there is nothing to learn") from None
        trained = _for_inference(lens, sae)  # in here: it draws weights before it gets its own
    if not all(bool(weight.isfinite().all()) for weight in trained.parameters()):
        raise InputError(f"training ran into values that are not finite: lower lr {settings.lr:g}")
    return trained


def _place(model: "Model", settings: SaeConfig) -> tuple[str, int]:
    """Return the site to train on and its width, if the settings fit it."""
    settings.check_fits(model.config)
    site = settings.site or default_site(model.config)
    width = look_up(model.transformer.sites, [site])[site].width
    features, n_ctx = settings.expansion * width, model.config.n_ctx
    if settings.architecture == "topk" and settings.k >= features:
        raise InputError(f"k {settings.k} must be below {features} features")
    if settings.skip_first >= n_ctx:
        raise InputError(
            f"skip_first {settings.skip_first} leaves nothing of {number_of(n_ctx, 'token')}"
        )
    return site, width


def _check_enough(text: "Tokens", settings: SaeConfig, n_ctx: int) -> None:
    """Refuse text that training would read more than once."""
    usable = text.n_tokens * (n_ctx - settings.skip_first) // n_ctx
    if usable < settings.tokens:
        skipped = f" after skip_first {settings.skip_first}" if settings.skip_first else ""
        raise InputError(
            f"{text.name} has {number_of(usable, 'token')}{skipped}, {settings.tokens} are "
            "asked for: give more text (--corpus) or ask for fewer (--tokens)"
        )


def _rows(model: "Model", site: str, text: "Tokens", settings: SaeConfig) -> Iterator[Tensor]:
    """Yield a site's activations (n, D), window by window, forever."""
    windows = shuffled_windows(text, model.config.n_ctx, settings.seed)
    for _, values in site_values(model.transformer, [site], windows):
        rows = values[site][:, settings.skip_first :].flatten(0, 1).float()
        yield _typical(rows, settings.max_norm_multiple)


def _typical(rows: Tensor, multiple: float | None) -> Tensor:
    """Return the rows (n, D) whose norm is at most so many times the median norm."""
    if multiple is None:
        return rows
    norms = norms_of(rows)
    return rows[norms <= multiple * median_norm(norms)]


def _mixed(rows: Iterator[Tensor], settings: SaeConfig, bar: Progress) -> Iterator[Tensor]:
    """Yield shuffled batches of rows."""
    from sae_lens.training.mixing_buffer import mixing_buffer

    for batch in mixing_buffer(settings.buffer, settings.batch_size, rows):
        yield batch
        bar.advance(len(batch))


def _untrained(lens: Any, model: "Model", site: str, width: int, settings: SaeConfig) -> Any:
    """Return an untrained autoencoder; the caller sets the seed."""
    layer, _, kind = site.partition(".")
    common = {
        "d_in": width,
        "d_sae": settings.expansion * width,
        "device": str(model.transformer.embed.weight.device),
        "apply_b_dec_to_input": False,
        "normalize_activations": "expected_average_only_in",
        "metadata": lens.saes.sae.SAEMetadata(
            model_name=str(model.path or "wirework"),
            model_fingerprint=model.fingerprint,
            hook_name=f"blocks.{layer}.{_LENS_NAMES.get(kind, kind)}" if kind else site,
            site=site,
            context_size=model.config.n_ctx,
            prepend_bos=False,
            seqpos_slice=[settings.skip_first, None],
        ),
    }
    warm_up = round(settings.warmup * settings.steps)
    if settings.architecture == "standard":
        return lens.StandardTrainingSAE(
            lens.StandardTrainingSAEConfig(
                **common, l1_coefficient=settings.l1_coef, l1_warm_up_steps=warm_up
            )
        )
    if settings.architecture == "topk":
        return lens.TopKTrainingSAE(lens.TopKTrainingSAEConfig(**common, k=settings.k))
    return lens.JumpReLUTrainingSAE(
        lens.JumpReLUTrainingSAEConfig(
            **common, l0_coefficient=settings.l0_coef, l0_warm_up_steps=warm_up
        )
    )


def _trainer_config(lens: Any, settings: SaeConfig, device: str) -> Any:
    return lens.config.SAETrainerConfig(
        total_training_samples=settings.steps * settings.batch_size,
        train_batch_size_samples=settings.batch_size,
        lr=settings.lr,
        lr_decay_steps=round(settings.decay * settings.steps),
        device=device,
        lr_end=settings.lr,
        # TopK's auxiliary loss counts a feature as dead once it was off for this many steps.
        dead_feature_window=max(1, settings.steps // 10),
        feature_sampling_window=max(1, settings.steps // 10),  # of the L0 in its metadata
        n_batches_for_norm_estimate=max(1, settings.buffer // (2 * settings.batch_size)),
    )


def _for_inference(lens: Any, trained: Any) -> Any:
    """Return the autoencoder as sae-lens' inference class, as `save_inference_model` writes it."""
    state = trained.state_dict()
    trained.process_state_dict_for_saving_inference(state)
    sae = lens.SAE.from_dict(trained.cfg.get_inference_sae_cfg_dict())
    sae.load_state_dict(state)
    return sae.eval()
