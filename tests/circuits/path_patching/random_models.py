"""Small models of all kinds with random weights, and prompts for them."""

import pytest
import torch

from wirework.circuits.path_patching.contrast import Contrast
from wirework.config import ModelConfig
from wirework.nn import Transformer

VOCAB = 40

KINDS: dict[str, dict[str, object]] = {
    # AbsTopK everywhere, sinks, a bigram table, concatenated positions, RMSNorm
    "sparse": {"act_fraction": 0.5, "positions": "concat", "d_pos": 4},
    # GPT-Neo's parts and a window
    "neo": {
        "act_fraction": None, "norm": "layer", "sinks": False, "bigram": False,
        "positions": "added", "tied_embedding": True, "attention_scale": "none",
        "qkv_bias": False, "activation": "gelu_tanh", "attention_windows": (3, None),
    },
    # AbsTopK on the sum of the heads alone, and on the queries of all heads alone
    "folded": {"act_fraction": 0.4, "act_sites": ("attn.resid_delta",), "logit_bias": True},
    "joined": {"act_fraction": 0.4, "act_sites": ("attn.q",), "attention_windows": (2, None)},
    # AbsTopK where it ties no heads together
    "apart": {"act_fraction": 0.4, "act_sites": ("attn.act_in", "mlp.post_act")},
    "bare": {"act_fraction": None, "bias": False, "n_layer": 3, "activation": "relu"},
}  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of model in turn."""
    return str(request.param)


def transformer_of(kind: str, seed: int = 0) -> Transformer:
    """Return a small model with weights so large that every part matters."""
    config = ModelConfig.of(
        {"vocab_size": VOCAB, "n_ctx": 12, "n_layer": 2, "d_model": 16, "d_head": 8, "d_mlp": 24}
        | KINDS[kind]
    )
    transformer = Transformer(config, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if name != "bigram":
                spread = 0.5 if weight.dim() == 2 else 0.2
                weight.add_(spread * torch.randn(weight.shape, generator=generator))
    return transformer


def contrast_of(seed: int = 0, prompts: int = 5, length: int = 7) -> Contrast:
    """Return prompts of several lengths; the corrupted ones differ at two tokens."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(VOCAB, (prompts, length), generator=generator)
    corrupted = clean.clone()
    corrupted[:, [1, 3]] = torch.randint(VOCAB, (prompts, 2), generator=generator)
    at = torch.randint(4, length, (prompts,), generator=generator)
    at[0] = length - 1
    return Contrast(clean, corrupted, at, torch.randint(VOCAB, (prompts, 2), generator=generator))
