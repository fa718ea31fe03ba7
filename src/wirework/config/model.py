"""The transformer's shape and parts, and the kinds of its sites."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wirework.config.base import Config, Count, Fraction
from wirework.errors import number_of

_LARGEST = 2**63 - 1  # what torch can count


def _zero_if_auto(value: object) -> object:
    return 0 if value == "auto" else value


Size = Annotated[int, Field(ge=1, le=_LARGEST)]
"""A number of layers, or the size of a tensor in one dimension."""

SiteKind = Literal[
    "attn.act_in",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.resid_delta",
    "mlp.act_in",
    "mlp.post_act",
    "mlp.resid_delta",
    "resid_mid",
    "resid_out",
]
"""Where AbsTopK can act. The first eight are the node locations of App. A.5; `resid_mid` and
`resid_out` (the residual stream after each sublayer) exist in the authors' code only."""

NODE_KINDS: tuple[SiteKind, ...] = (
    "attn.act_in",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.resid_delta",
    "mlp.act_in",
    "mlp.post_act",
    "mlp.resid_delta",
)
"""The node locations of one layer in the order in which the forward pass meets them (App. A.5)."""


class ModelConfig(Config):
    """The transformer's shape and parts (sec. 2.1, App. A.1; Ferrao et al. 2025, sec. 2)."""

    basic: ClassVar = ("n_ctx", "n_layer", "d_model", "act_fraction")

    vocab_size: Annotated[int, BeforeValidator(_zero_if_auto), Field(ge=0, le=_LARGEST)] = 2048
    """Size of the tokeniser's vocabulary. Training takes it from the tokeniser unless it is set;
    `auto`, stored as 0, means the same."""
    n_ctx: Size = 256
    """Longest context in tokens."""
    n_layer: Size = 4
    """Number of blocks, each attention then MLP."""
    d_model: Size = 256
    """Width of the residual stream."""
    d_head: Size = 16
    """Width of an attention head. Small heads are easier to read (App. A.1)."""
    n_head: Annotated[int, Field(ge=0, le=_LARGEST, validate_default=True)] = 0
    """Number of heads; 0: d_model / d_head."""
    d_mlp: Annotated[int, Field(ge=0, le=_LARGEST, validate_default=True)] = 0
    """Number of neurons per block; 0: 4 d_model."""
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    """MLP non-linearity; `gelu` is the exact (erf) form."""
    norm: Literal["rms", "layer", "none"] = "rms"
    """RMSNorm keeps zero a privileged value of the residual stream (sec. 2.1). `none`: what reads
    the residual stream reads it as it is, as in models compiled from programs."""
    norm_eps: Annotated[float, Field(gt=0)] | None = None
    """Added to the mean square; None: machine epsilon of the dtype for RMS, 1e-5 for LayerNorm."""
    norm_bias: bool = True
    """Bias in LayerNorm; RMSNorm has none."""
    positions: Literal["none", "added", "concat", "sinusoidal_concat"] = "none"
    """`added`: learned vectors, added to the token embedding. `concat`, `sinusoidal_concat`:
    learned or fixed vectors, concatenated to the input of attention and MLP only (App. A.1)."""
    d_pos: Size | None = None
    """Width of concatenated position vectors; only with `concat` and `sinusoidal_concat`."""
    attention_scale: Literal["rsqrt", "none"] = "rsqrt"
    """Attention scores are multiplied by 1/sqrt(d_head), or not (GPT-Neo)."""
    attention_windows: tuple[Count | None, ...] | None = None
    """Positions that a token attends to in each layer, including itself; None: all before it."""
    qkv_bias: bool = True
    """Biases on queries, keys and values."""
    bias: bool = True
    """Biases on the attention output and both MLP matrices."""
    tied_embedding: bool = False
    """Use the embedding as the unembedding."""
    sinks: bool = True
    """Attention sink: a learned logit per head in the softmax denominator (App. A.1)."""
    bigram: bool = True
    """Bigram table: a dense V x V matrix; the current token's row is added to the logits."""
    learn_bigram: bool = True
    """Train the bigram table; False keeps it as loaded."""
    logit_bias: bool = False
    """Bias of the final logits; the released models have one."""
    residual_activation: Literal["identity", "relu"] = "identity"
    """Non-linearity of the residual stream after each sublayer, as in the authors' code."""
    act_fraction: Fraction | None = 0.25
    """Share of each site's channels that AbsTopK keeps per token; None: no AbsTopK."""
    act_sites: tuple[SiteKind, ...] = NODE_KINDS
    """Sites where AbsTopK acts."""

    @model_validator(mode="before")
    @classmethod
    def _zero_is_unset(cls, values: Any) -> Any:
        """Drop a zero width, so that it does not count as set and a copy derives it again."""
        if not isinstance(values, dict):
            return values
        zero = {k for k in ("n_head", "d_mlp") if isinstance(values.get(k), int) and not values[k]}
        return {name: value for name, value in values.items() if name not in zero}

    @field_validator("n_head")
    @classmethod
    def _derived_n_head(cls, n_head: int, info: ValidationInfo) -> int:
        d_model, d_head = info.data.get("d_model", 0), info.data.get("d_head", 1)
        return n_head or d_model // d_head

    @field_validator("d_mlp")
    @classmethod
    def _derived_d_mlp(cls, d_mlp: int, info: ValidationInfo) -> int:
        return d_mlp or 4 * info.data.get("d_model", 0)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if "n_head" not in self.model_fields_set and self.d_model % self.d_head:
            raise ValueError(
                f"d_model {self.d_model} is not divisible by d_head {self.d_head}: "
                "change one of them or give n_head"
            )
        concat = self.positions in ("concat", "sinusoidal_concat")
        if concat and self.d_pos is None:
            raise ValueError(f"positions: {self.positions} needs d_pos")
        if not concat and self.d_pos is not None:
            raise ValueError(
                f"d_pos is only used with concatenated positions, not {self.positions!r}"
            )
        if self.attention_windows is not None and len(self.attention_windows) != self.n_layer:
            raise ValueError(
                f"attention_windows has {number_of(len(self.attention_windows), 'entry')} for "
                f"{number_of(self.n_layer, 'layer')}"
            )
        for kind in self.act_sites:
            if self.site_k(kind) == 0:
                raise ValueError(
                    f"act_fraction {self.act_fraction} keeps nothing of {kind} "
                    f"({self.site_width(kind)} wide)"
                )
        return self

    def site_width(self, kind: SiteKind) -> int:
        """Return the number of nodes (channels) at a site of this kind."""
        if kind in ("attn.q", "attn.k", "attn.v"):
            return self.n_head * self.d_head
        if kind == "mlp.post_act":
            return self.d_mlp
        return self.d_model + (self.d_pos or 0) if kind.endswith("act_in") else self.d_model

    def site_k(self, kind: SiteKind) -> int | None:
        """Return how many entries AbsTopK keeps per token at this kind of site; None: all."""
        if self.act_fraction is None or kind not in self.act_sites:
            return None
        return int(self.act_fraction * self.site_width(kind))
