"""The released self-ablating models in plain, slow PyTorch: random files of them and both streams.

Written from the method's description alone, with all scores written out, so that it shares no code
with what it checks. Shapes: B sequences, T tokens, H heads.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

BASE: dict[str, Any] = {
    "vocab_size": 23, "hidden_size": 16, "mlp_hidden_size": 40, "num_layers": 2, "num_heads": 4,
    "max_position_embeddings": 9, "window_size": 256, "attention_layers": ["global", "global"],
    "k_attention": 3, "k_neurons": 5, "temperature_attention": 0.1, "temperature_neurons": 0.1,
    "top_k_epsilon": 1e-12, "loss_coeff_base": 1.0, "loss_coeff_ablated": 0.1,
    "reconstruction_coeff": 0.1, "reconstruction_loss_type": "MSE",
    "has_layer_by_layer_ablation_mask": True, "has_overall_ablation_mask": False,
    "ablation_processing": "hard-top-K-with-soft-gradient",
}  # fmt: skip


def random_state(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """A state dict with their keys, every tensor random, in float32."""
    generator = torch.Generator().manual_seed(seed)
    width, layers = config["hidden_size"], config["num_layers"]
    inner = config["mlp_hidden_size"] or 4 * width
    state: dict[str, Tensor] = {}

    def put(name: str, *shape: int, around: float = 0.0) -> None:
        state[name] = around + 0.4 * torch.randn(*shape, generator=generator)

    def linear(name: str, out: int, into: int, bias: bool = True) -> None:
        put(f"{name}.weight", out, into)
        if bias:
            put(f"{name}.bias", out)

    def norm(name: str) -> None:
        put(f"{name}.weight", width, around=1.0)
        put(f"{name}.bias", width)

    put("transformer.wte.weight", config["vocab_size"], width)
    put("transformer.wpe.weight", config["max_position_embeddings"], width)
    for layer in range(layers):
        prefix = f"transformer.h.{layer}"
        norm(f"{prefix}.ln_1")
        norm(f"{prefix}.ln_2")
        for one in "kvq":
            linear(f"{prefix}.attn.attention.{one}_proj", width, width, bias=False)
        linear(f"{prefix}.attn.attention.out_proj", width, width)
        linear(f"{prefix}.mlp.c_fc", inner, width)
        linear(f"{prefix}.mlp.c_proj", width, inner)
        if config["has_layer_by_layer_ablation_mask"]:
            linear(f"{prefix}.attention_ablation_head", width, width)
            linear(f"{prefix}.neuron_ablation_head", inner, width)
    norm("transformer.ln_f")
    if config["has_overall_ablation_mask"]:
        linear("attention_ablations_head", layers * width, width)
        linear("neuron_ablations_head", layers * inner, width)
    return state


def write(folder: Path, config: dict[str, Any], state: dict[str, Tensor], kind: str) -> None:
    """Write a folder as theirs: weights tied under two names, the configuration beside them."""
    torch.save(state | {"lm_head.weight": state["transformer.wte.weight"]}, folder / "best.pt")
    if kind == "json":
        (folder / "config.json").write_text(json.dumps(config))
    else:
        values = {name: {"desc": None, "value": value} for name, value in config.items()}
        (folder / "config.yaml").write_text(yaml.safe_dump(values | {"wandb_version": 1}))


class Reference:
    """Both streams, by definition."""

    def __init__(
        self,
        config: dict[str, Any],
        state: dict[str, Tensor],
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.config = config
        self.state = {name: t.to(dtype).requires_grad_() for name, t in state.items()}

    def __call__(self, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
        c = self.config
        start = self.state["transformer.wte.weight"][tokens]
        start = start + self.state["transformer.wpe.weight"][: tokens.shape[1]]
        scores = self.overall_scores(start) if c["has_overall_ablation_mask"] else None
        clean = ablated = start
        masks, apart = [], []
        for layer in range(c["num_layers"]):
            given = None if scores is None else [one[:, :, layer] for one in scores]
            heads_on, neurons_on = self.masks(layer, clean, given)
            before = self.norm(clean, f"transformer.h.{layer}.ln_1")
            ablated = ablated + self.attention(
                layer, self.norm(ablated, f"transformer.h.{layer}.ln_1"), before, heads_on
            )
            ablated = ablated + self.mlp(layer, ablated, neurons_on)
            clean = self.clean_block(layer, clean)
            masks.append((heads_on, neurons_on))
            apart.append(distance(clean, ablated))
        clean, ablated = (self.norm(x, "transformer.ln_f") for x in (clean, ablated))
        apart.append(distance(clean, ablated))
        logits = [x @ self.state["transformer.wte.weight"].t() for x in (clean, ablated)]
        losses = [F.cross_entropy(one.flatten(0, 1), targets.flatten()) for one in logits]
        measured = c["reconstruction_loss_type"] is not None
        reconstruction = torch.stack(apart).mean() if measured else losses[0].new_zeros(())
        total = c["loss_coeff_base"] * losses[0] + c["loss_coeff_ablated"] * losses[1]
        return {
            "logits_clean": logits[0],
            "logits_ablated": logits[1],
            "attention_masks": torch.stack([one for one, _ in masks], 2),
            "neuron_masks": torch.stack([other for _, other in masks], 2),
            "loss_clean": losses[0],
            "loss_ablated": losses[1],
            "loss_reconstruction": reconstruction,
            "loss": total + c["reconstruction_coeff"] * reconstruction,
        }

    def plain_loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.state["transformer.wte.weight"][tokens]
        x = x + self.state["transformer.wpe.weight"][: tokens.shape[1]]
        for layer in range(self.config["num_layers"]):
            x = self.clean_block(layer, x)
        logits = self.norm(x, "transformer.ln_f") @ self.state["transformer.wte.weight"].t()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def overall_scores(self, x: Tensor) -> list[Tensor]:
        for layer in range(self.config["num_layers"]):
            x = self.clean_block(layer, x)
        x = self.norm(x, "transformer.ln_f")
        parts = [self.linear(x, f"{kind}_ablations_head") for kind in ("attention", "neuron")]
        return [part.unflatten(-1, (self.config["num_layers"], -1)) for part in parts]

    def masks(self, layer: int, x: Tensor, given: list[Tensor] | None) -> list[Tensor]:
        found = []
        for i, (kind, setting) in enumerate((("attention", "attention"), ("neuron", "neurons"))):
            scores = torch.zeros(()) if given is None else given[i]
            if self.config["has_layer_by_layer_ablation_mask"]:
                scores = scores + self.linear(x, f"transformer.h.{layer}.{kind}_ablation_head")
            k = self.config[f"k_{setting}"]
            found.append(self.winners(scores, k, self.config[f"temperature_{setting}"]))
        return found

    def winners(self, scores: Tensor, k: int, temperature: float) -> Tensor:
        top = scores.topk(k + 1, -1)
        inside, outside = top.values[..., k - 1 : k], top.values[..., k:]
        spread = temperature * (inside - outside) + self.config["top_k_epsilon"]
        soft = ((scores - (inside + outside) / 2) / spread).sigmoid()
        soft = k * soft / soft.sum(-1, keepdim=True)
        if self.config["ablation_processing"].startswith("soft"):
            return soft
        hard = torch.zeros_like(soft).scatter(-1, top.indices[..., :k], 1.0)
        return hard - soft.detach() + soft

    def clean_block(self, layer: int, x: Tensor) -> Tensor:
        normed = self.norm(x, f"transformer.h.{layer}.ln_1")
        x = x + self.attention(layer, normed, normed, None)
        return x + self.mlp(layer, x, None)

    def attention(self, layer: int, x: Tensor, clean: Tensor, on: Tensor | None) -> Tensor:
        prefix = f"transformer.h.{layer}.attn.attention"
        q, k, v, own_k, own_v = (
            self.heads(source @ self.state[f"{prefix}.{one}_proj.weight"].t())
            for source, one in ((x, "q"), (clean, "k"), (clean, "v"), (x, "k"), (x, "v"))
        )
        places = torch.arange(x.shape[1])
        back = places[:, None] - places
        kinds = self.config["attention_layers"] or ["global"] * self.config["num_layers"]
        window = self.config["window_size"] if kinds[layer] == "local" else len(places)
        scores = torch.where(back == 0, q @ own_k.mT, q @ k.mT)  # no scale
        scores = scores.masked_fill((back < 0) | (back >= window), -torch.inf)
        shares = scores.softmax(-1)
        y = (shares * (back != 0)) @ v + shares.diagonal(dim1=-2, dim2=-1).unsqueeze(-1) * own_v
        y = y.transpose(1, 2).flatten(2)
        return self.linear(y if on is None else y * on, f"{prefix}.out_proj")

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.config["num_heads"], -1)).transpose(1, 2)

    def mlp(self, layer: int, x: Tensor, on: Tensor | None) -> Tensor:
        prefix = f"transformer.h.{layer}"
        x = self.linear(self.norm(x, f"{prefix}.ln_2"), f"{prefix}.mlp.c_fc")
        x = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
        return self.linear(x if on is None else x * on, f"{prefix}.mlp.c_proj")

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.state[f"{name}.weight"].t() + self.state[f"{name}.bias"]

    def norm(self, x: Tensor, name: str) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]


def distance(x: Tensor, y: Tensor) -> Tensor:
    x, y = (t / t.norm(dim=-1, keepdim=True) for t in (x, y))
    return (x - y).square().mean()
