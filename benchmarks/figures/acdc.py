"""Seconds of a search for path edges by ACDC, for each threshold tau."""

import torch

from benchmarks import stored
from benchmarks.figure import Figure
from benchmarks.settings import Settings
from benchmarks.timing import alternate
from wirework.circuits.path_patching.contrast import Contrast
from wirework.circuits.path_patching.patched import Patched
from wirework.circuits.path_patching.search import SearchResult, search
from wirework.circuits.path_patching.state import PatchedState
from wirework.config import ModelConfig
from wirework.nn import Transformer

LAYERS, HEADS, WIDTH, VOCAB = 4, 8, 128, 2048
"""With these there are 1,519 path edges."""
TAUS = (0.01, 0.001, 0.0003, 0.0001)
WEIGHTS = 4.0
"""Factor of the initial matrices, with which a fair number of edges is kept."""
TARGET = 1.05
"""Now / stored; repeated runs of one version differ by as much."""


def measure(settings: Settings) -> list[Figure]:
    """Return seconds and passes of the model for each tau, beside the stored seconds."""
    layers, taus = (1, TAUS[:1]) if settings.quick else (LAYERS, TAUS)
    transformer, contrast = random_transformer(layers, HEADS), random_prompts(16, 15)
    steps = {
        f"ACDC {layers}x{HEADS} tau {tau:g}": (lambda tau=tau: found(transformer, contrast, tau))
        for tau in taus
    }
    with torch.no_grad():
        seconds = alternate(steps, settings.counted_rounds)
    figures = [Figure.of(name, values, unit="s") for name, values in seconds.items()]
    return figures + stored.now_over_stored(figures, TARGET)


def found(transformer: Transformer, contrast: Contrast, tau: float) -> SearchResult:
    """Search as `acdc` does, including the clean and corrupted runs."""
    state = PatchedState(Patched.of(transformer, contrast), "kl")
    return search(state, state.graph.edges, tau)


def random_transformer(layers: int, heads: int) -> Transformer:
    """Return a GPT-Neo-like model of width 128 whose initial matrices are scaled."""
    config = ModelConfig.of({
        "vocab_size": VOCAB, "n_ctx": 256, "n_layer": layers, "d_model": WIDTH, "n_head": heads,
        "d_head": WIDTH // heads, "act_fraction": None, "norm": "layer", "positions": "added",
        "sinks": False, "bigram": False, "activation": "gelu_tanh",
    })  # fmt: skip
    transformer = Transformer(config)
    with torch.no_grad():
        for weight in transformer.parameters():
            if weight.dim() == 2:
                weight.mul_(WEIGHTS)
    return transformer


def random_prompts(count: int, length: int) -> Contrast:
    """Return prompts whose corrupted twins differ at two tokens."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(VOCAB, (count, length), generator=generator)
    corrupted = clean.clone()
    places = [length // 7, 2 * length // 3]
    corrupted[:, places] = torch.randint(VOCAB, (count, 2), generator=generator)
    last_positions = torch.full((count,), length - 1)
    answers = torch.randint(VOCAB, (count, 2), generator=generator)
    return Contrast(clean, corrupted, last_positions, answers)
