"""A folder as InterpBench publishes its cases, written with TransformerLens itself."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

transformer_lens = pytest.importorskip("transformer_lens")

EDGES = [
    ("blocks.1.attn.hook_result[2]", "blocks.1.hook_resid_post"),
    ("blocks.0.hook_mlp_out", "blocks.1.hook_q_input[2]"),
    ("blocks.0.hook_mlp_out", "blocks.1.hook_v_input[2]"),
    ("hook_embed", "blocks.0.hook_mlp_in"),
    ("hook_pos_embed", "blocks.1.hook_k_input[2]"),
    ("hook_embed", "blocks.1.hook_k_input[2]"),
    ("blocks.1.hook_q_input[2]", "blocks.1.attn.hook_q[2]"),
    ("blocks.1.attn.hook_q[2]", "blocks.1.attn.hook_result[2]"),
    ("blocks.0.hook_mlp_in", "blocks.0.hook_mlp_out"),
]
"""Edges in the form of case 3, with those inside of heads and MLPs."""


def lens_model(**changes: Any) -> Any:
    """Return a random HookedTransformer with the settings of a case compiled from a program."""
    settings = {
        "n_layers": 2, "d_model": 12, "n_ctx": 8, "d_head": 3, "n_heads": 4, "d_mlp": 20,
        "d_vocab": 10, "d_vocab_out": 5, "act_fn": "gelu", "normalization_type": None,
        "attention_dir": "causal", "use_attn_result": True, "use_split_qkv_input": True,
        "seed": 0, "device": "cpu",
    }  # fmt: skip
    with warnings.catch_warnings(action="ignore"):  # the class is to go in version 4
        config = transformer_lens.HookedTransformerConfig(**(settings | changes))
        model = transformer_lens.HookedTransformer(config)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.data.normal_(0, 0.4, generator=generator)
    return model.requires_grad_(False)


def write_case(
    folder: Path,
    model: nn.Module,
    *,
    edges: Any = EDGES,
    as_object: bool = False,
    protocol: int | None = None,
) -> Path:
    """Write a model as a case of InterpBench.

    Args:
        folder: folder to write to.
        model: the HookedTransformer.
        edges: what `edges.pkl` holds.
        as_object: pickle the object of settings itself, as some cases do, instead of its dict.
        protocol: of the pickles; None for Python's default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state: dict[str, Tensor] = model.state_dict()
    torch.save(state, folder / "ll_model.pth")
    config: Any = model.cfg
    dump(folder / "ll_model_cfg.pkl", config if as_object else config.to_dict(), protocol)
    dump(folder / "edges.pkl", edges, protocol)
    (folder / "meta.json").write_text('{"epochs": 2000, "strict_weight": 0.4}')
    return folder


def dump(path: Path, value: Any, protocol: int | None = None) -> None:
    """Pickle a value to a file."""
    path.write_bytes(pickle.dumps(value, protocol))
