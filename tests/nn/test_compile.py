"""`torch.compile` takes blocks and the loss as one graph, with the same values and gradients.

The backend `aot_eager` traces like the default one, forward and backward, and then runs the
operations of torch one by one: no compiler is needed, and results are comparable bit by bit.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wirework.config import ModelConfig
from wirework.nn import Transformer
from wirework.nn.device_reads import device_reads_deferred
from wirework.nn.kernels.attention import attention_with_sink_key

# torch's own tracing makes an instance of each autograd function, of which torch warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

MODEL = ModelConfig(
    vocab_size=50, d_model=32, d_head=8, n_layer=2, n_ctx=16, act_fraction=0.25, bigram=True
)
TOKENS, TARGETS = torch.randint(0, 50, (2, 2, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _nothing_compiled_yet() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(autouse=True)
def _torchs_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph has no kernels of numba: the same operations of torch are run without a graph."""
    for kernel in ("norm", "gelu_top_k"):
        monkeypatch.setattr(f"wirework.nn.kernels.{kernel}._is_compiled", lambda *_: False)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile as one graph: a break is an error."""
    return torch.compile(function, backend="aot_eager", fullgraph=True)


def model(**changes: Any) -> Transformer:
    return Transformer(ModelConfig.of({**MODEL.model_dump(), **changes}))


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Return the gradients of all parameters by name, and clear them."""
    module.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("changes", [{}, {"act_fraction": None, "norm": "layer", "sinks": False}])
def test_a_block_is_one_graph_with_the_same_bits(changes: dict[str, Any]):
    block = model(**changes).blocks[0]
    x = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0))
    inputs, outputs, grads = [], [], []
    for run in (block, compiled(block)):
        inputs.append(x.clone().requires_grad_())
        outputs.append(run(inputs[-1], None))
        grads.append(gradients(block, outputs[-1].square().sum()))
    assert torch.equal(*outputs)
    assert torch.equal(*(leaf.grad for leaf in inputs))
    assert grads[0].keys() == grads[1].keys()
    for name, gradient in grads[0].items():
        assert torch.equal(gradient, grads[1][name]), name


@pytest.mark.slow
def test_the_loss_is_one_graph_in_a_training_step_in_bf16():
    transformer = model()
    losses, grads = [], []
    for run in (transformer.loss, compiled(transformer.loss)):
        with torch.autocast("cpu", torch.bfloat16), device_reads_deferred():
            losses.append(run(TOKENS, TARGETS))
        grads.append(gradients(transformer, losses[-1]))
    assert torch.equal(*losses)
    for name, gradient in grads[0].items():
        torch.testing.assert_close(gradient, grads[1][name], rtol=2e-2, atol=2e-3)


@pytest.mark.slow
def test_attention_with_a_sink_key_is_one_graph():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 16, 8, generator=generator) for _ in range(3))
    sink, visible = torch.randn(4, generator=generator), torch.ones(16, 16).tril().bool()
    results = []
    eager: Callable[..., Tensor] = attention_with_sink_key
    for run in (eager, compiled(eager)):
        leaves = [t.clone().requires_grad_() for t in (q, k, v, sink)]
        out = run(*leaves, 0.3, visible)
        out.square().sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)
