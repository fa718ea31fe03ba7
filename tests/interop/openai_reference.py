"""The format of the released models in plain, slow PyTorch: random files of it and its forward.

Written from its description alone (keys, defaults and formulas), token by token where attention is
concerned, so that it shares no code and no shape tricks with what it checks.
Shapes: B sequences, T tokens.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BASE: dict[str, Any] = {
    "vocab_size": 23,
    "block_size": 12,
    "n_layer": 2,
    "n_head": 2,
    "d_model": 16,
    "rms_norm": True,
    "tied_unembed": False,
}

DEFAULTS: dict[str, Any] = {
    "rms_norm": False,
    "bias": True,
    "ln_bias": True,
    "residual_activation_type": "identity",
    "activation_type": "gelu",
    "afrac": None,
    "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
    "enable_bigram_table": False,
    "d_pos_emb": None,
    "sink": False,
}


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in what a file may leave out."""
    full = DEFAULTS | config
    full["d_mlp"] = full.get("d_mlp") or full.get("n_mlp") or 4 * full["d_model"]
    full["d_head"] = full.get("d_head") or full["d_model"] // full["n_head"]
    return full


def random_state(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """A state dict with their keys, every tensor random, in float32."""
    c = complete(config)
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, around: float = 0.0, std: float = 0.3) -> Tensor:
        return around + std * torch.randn(*shape, generator=generator)

    state: dict[str, Tensor] = {}

    def add_norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = normal(width, around=1.0)
        if not c["rms_norm"] and c["ln_bias"]:
            state[f"{name}.bias"] = normal(width)

    def add_linear(name: str, rows: int, columns: int) -> None:
        state[f"{name}.weight"] = normal(rows, columns)
        if c["bias"]:
            state[f"{name}.bias"] = normal(rows)

    d, inner, p = c["d_model"], c["n_head"] * c["d_head"], c["d_pos_emb"] or 0
    state["transformer.wte.weight"] = normal(c["vocab_size"], d, std=1.0)
    state["transformer.wpe.weight"] = normal(c["block_size"], p or d, std=1.0)
    for i in range(c["n_layer"]):
        h = f"transformer.h.{i}"
        for norm in ("ln_1", "ln_2"):
            add_norm(f"{h}.{norm}", d)
        for norm in ("ln_p1", "ln_p2") if p else ():
            add_norm(f"{h}.{norm}", p)
        add_linear(f"{h}.attn.c_attn", 3 * inner, d + p)
        add_linear(f"{h}.attn.c_proj", d, inner)
        add_linear(f"{h}.mlp.c_fc", c["d_mlp"], d + p)
        add_linear(f"{h}.mlp.c_proj", d, c["d_mlp"])
        if c["sink"]:
            state[f"{h}.attn.attn_imp.sink_logit"] = normal(c["n_head"], std=1.0)
    add_norm("transformer.ln_f", d)
    tied = config.get("tied_unembed", True)
    state["lm_head.weight"] = (
        state["transformer.wte.weight"] if tied else normal(c["vocab_size"], d)
    )
    state["final_logits_bias"] = normal(c["vocab_size"])
    if c["enable_bigram_table"]:
        state["bigram_table"] = normal(c["vocab_size"], c["vocab_size"])
    return state


def write(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> Path:
    """Write both files of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "beeg_config.json").write_text(json.dumps(config))
    torch.save(state, folder / "final_model.pt")
    return folder


class Reference:
    """One forward pass in float64; `sites` holds what their hooks see."""

    def __init__(self, config: dict[str, Any], state: dict[str, Tensor]) -> None:
        self.c = complete(config)
        self.state = {name: tensor.double() for name, tensor in state.items()}
        self.sites: dict[str, Tensor] = {}

    def logits(self, idx: Tensor) -> Tensor:
        """(B, T) int64 to (B, T, V) float64."""
        s, length = self.state, idx.shape[1]
        x = s["transformer.wte.weight"][idx]
        positions = s["transformer.wpe.weight"][:length].repeat(len(idx), 1, 1)
        beside = positions if self.c["d_pos_emb"] else None
        if beside is None:
            x = x + positions
        for i in range(self.c["n_layer"]):
            x = self.block(i, x, beside)
        self.sites["final_resid"] = x
        out = self.norm("transformer.ln_f", x) @ s["lm_head.weight"].T
        if "final_logits_bias" in s:
            out = out + s["final_logits_bias"]
        return out + s["bigram_table"][idx] if "bigram_table" in s else out

    def block(self, i: int, x: Tensor, beside: Tensor | None) -> Tensor:
        """Attention and MLP, each followed by what stands on the residual stream."""
        h = f"transformer.h.{i}"
        self.sites[f"{i}.resid_in"] = x
        for part, norm, kind in (("attn", "1", self.attention), ("mlp", "2", self.mlp)):
            read = self.norm(f"{h}.ln_{norm}", x)
            if beside is not None:
                read = torch.cat([read, self.norm(f"{h}.ln_p{norm}", beside)], dim=2)
            read = self.sparse(f"{part}_in", read)
            self.sites[f"{i}.{part}.act_in"] = read
            delta = self.sparse(f"{part}_out", kind(i, f"{h}.{part}", read))
            self.sites[f"{i}.{part}.resid_delta"] = delta
            x = x + delta
            if self.c["residual_activation_type"] == "relu":
                x = torch.clamp(x, min=0)
            x = self.sparse(f"resid_post_{part}", x)
            if part == "attn":
                self.sites[f"{i}.resid_mid"] = x
        return x

    def attention(self, i: int, name: str, read: Tensor) -> Tensor:
        """One head and one token at a time."""
        heads, width = self.c["n_head"], self.c["d_head"]
        three = self.linear(f"{name}.c_attn", read)
        parts = {}
        for j, part in enumerate("qkv"):
            value = three[..., j * heads * width : (j + 1) * heads * width]
            parts[part] = self.sites[f"{i}.attn.{part}"] = self.sparse(f"attn_{part}", value)
        y = torch.zeros_like(parts["v"])
        for b in range(len(read)):
            for head in range(heads):
                channels = slice(head * width, (head + 1) * width)
                q, k, v = (parts[part][b, :, channels] for part in "qkv")
                for t in range(len(q)):
                    scores = k[: t + 1] @ q[t] / math.sqrt(width)
                    weights = scores.exp()
                    total = weights.sum()
                    if self.c["sink"]:
                        total = total + self.state[f"{name}.attn_imp.sink_logit"][head].exp()
                    y[b, t, channels] = (weights / total) @ v[: t + 1]
        self.sites[f"{i}.attn.y"] = y
        return self.linear(f"{name}.c_proj", y)

    def mlp(self, i: int, name: str, read: Tensor) -> Tensor:
        """Neurons, then what they write."""
        hidden = self.linear(f"{name}.c_fc", read)
        if self.c["activation_type"] == "gelu":
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        else:
            hidden = torch.clamp(hidden, min=0)
        hidden = self.sites[f"{i}.mlp.post_act"] = self.sparse("mlp_neuron", hidden)
        return self.linear(f"{name}.c_proj", hidden)

    def sparse(self, location: str, x: Tensor) -> Tensor:
        """Keep the int(afrac * width) entries of largest magnitude of each token."""
        if self.c["afrac"] is None or location not in self.c["afrac_loctypes"].split(","):
            return x
        keep = int(self.c["afrac"] * x.shape[-1])

        def sparse_row(row: list[float]) -> list[float]:
            order = sorted(range(len(row)), key=lambda j: (-abs(row[j]), j))
            return [value if j in order[:keep] else 0.0 for j, value in enumerate(row)]

        rows = [[sparse_row(row) for row in sequence] for sequence in x.tolist()]
        return torch.tensor(rows, dtype=x.dtype)

    def norm(self, name: str, x: Tensor) -> Tensor:
        """RMSNorm or LayerNorm by its formula."""
        gain, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias", 0)
        if self.c["rms_norm"]:
            eps = torch.finfo(torch.float64).eps
            return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * gain
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * gain + bias

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Matrix, then bias if there is one."""
        return x @ self.state[f"{name}.weight"].T + self.state.get(f"{name}.bias", 0)
