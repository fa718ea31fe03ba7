"""One pass over text, shared by the instruments: loss, kurtosis and dead neurons."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wirework.measures.measured_text import fixed_windows
from wirework.training.batch_evaluation import evaluate_batches

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model


@dataclass(frozen=True)
class TextStats:
    """Loss, kurtosis and dead neurons of a model on text."""

    loss: float
    """Mean next-token cross-entropy of the plain model, nats per token."""
    dead_neurons_by_layer: tuple[int, ...]
    """MLP neurons that are exactly 0 at every token, layer by layer."""
    n_tokens: int
    """Tokens that were read."""
    log_kurtosis: float
    """log(mean over channels of the kurtosis over tokens) of the final residual stream."""


def evaluate_text(model: "Model", text: "Tokens", n_tokens: int) -> TextStats:
    """Run a model on fixed windows of text.

    Args:
        model: the model.
        text: tokens, usually of the held-out split.
        n_tokens: number of tokens to read, in windows of n_ctx.

    Raises:
        InputError: the text is shorter than a window.
    """
    batches = fixed_windows(text, model.config.n_ctx, n_tokens)
    arrays = [(inputs.numpy(), targets.numpy()) for inputs, targets in batches]
    metrics = evaluate_batches(model.transformer, arrays, model.transformer.embed.weight.device)
    assert metrics is not None  # None only if stopped, and nothing stops it here
    return TextStats(
        metrics["val_loss"],
        tuple(metrics["dead_neurons_by_layer"]),
        sum(inputs.numel() for inputs, _ in batches),
        metrics["log_kurtosis"],
    )
