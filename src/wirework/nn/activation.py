"""Non-linearities of an MLP, and their gradients for hand-written backward passes."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Literal["gelu", "gelu_tanh", "relu"]


def activate(x: Tensor, kind: Activation) -> Tensor:
    """Apply a non-linearity; `gelu` is the exact (erf) form."""
    return x.relu() if kind == "relu" else F.gelu(x, approximate=_FORM[kind])


def activate_backward(grad: Tensor, x: Tensor, kind: Activation) -> Tensor:
    """Return the gradient with respect to the input `x`, given that of the output."""
    if kind == "relu":
        return grad * (x > 0)
    return torch.ops.aten.gelu_backward(grad, x, approximate=_FORM[kind])  # type: ignore[no-any-return]


_FORM = {"gelu": "none", "gelu_tanh": "tanh"}
