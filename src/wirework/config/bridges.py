"""Bridges between a dense model and a weight-sparse one that trains beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from wirework.config.base import Config, Count, Fraction
from wirework.config.model import ModelConfig

Coefficient = Annotated[float, Field(ge=0)]


class BridgeConfig(Config):
    """Encoders and decoders between the residual streams of two models (Gao et al. 2025, 2.3)."""

    basic: ClassVar = ("act_fraction", "locations")

    dense: Path | None = None
    """Run or model folder of the dense model, which stays as it is. It has as many layers as
    `model` and gives the tokeniser."""
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Peak learning rate of encoders and decoders, which are trained apart from the model: Adam
    with an eps of 1e-8, no weight decay. Ours."""
    act_fraction: Fraction | None = 0.25
    """Share of an encoder's output that AbsTopK keeps per token; None: all."""
    locations: Literal["all"] | Count = "all"
    """Locations of the KL losses in a step: `all`, or how many to draw. MSE losses take all."""
    encoder_nmse_coef: Coefficient = 1.0
    """Coefficient of the normalised MSE of encoded dense streams."""
    decoder_nmse_coef: Coefficient = 1.0
    """Coefficient of the normalised MSE of decoded sparse streams."""
    dense_to_sparse_kl_coef: Coefficient = 1.0
    """Coefficient of KL(dense model || sparse model that goes on from an encoded stream)."""
    sparse_to_dense_kl_coef: Coefficient = 1.0
    """Coefficient of KL(dense model || dense model that goes on from a decoded stream)."""

    def check_fits(self, model: ModelConfig) -> None:
        """Make sure that a model has the channels and locations that are asked for.

        Args:
            model: the sparse model.

        Raises:
            ValueError: it has not.
        """
        count = 2 * model.n_layer + 1
        if self.locations != "all" and self.locations > count:
            raise ValueError(
                f"bridges.locations {self.locations} is more than the {count} residual locations "
                f"of a model with model.n_layer {model.n_layer}"
            )
        if self.act_fraction is not None and int(self.act_fraction * model.d_model) == 0:
            raise ValueError(
                f"bridges.act_fraction {self.act_fraction} keeps nothing of model.d_model "
                f"{model.d_model}"
            )
