"""Compiled attention of narrow heads against the definition in float64, and its choice."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from wirework import fastest
from wirework.nn.kernels import attention, narrow_attention
from wirework.nn.kernels.attention import causal_attention, causal_attention_reference
from wirework.nn.kernels.narrow_attention import is_faster
from wirework.nn.kernels.own_position import own_position_attention


def heads(length: int, channels: int, n: int = 3, count: int = 2, n_heads: int = 3) -> list[Tensor]:
    """Return n parts of a joint projection, float32 (B, H, T, K) each."""
    generator = torch.Generator().manual_seed(length)
    joint = torch.randn(count, length, n * n_heads * channels, generator=generator)
    parts = joint.chunk(n, -1)
    return [t.view(count, length, n_heads, channels).transpose(1, 2) for t in parts]


def with_gradients(attend: Callable[..., Tensor], *inputs: Tensor | None) -> list[Tensor]:
    """Return the output and the gradients of all inputs, for a fixed gradient of the output."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs]
    out = attend(*leaves)
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    wanted = [t for t in leaves if t is not None]
    found = torch.autograd.grad(out, wanted, slope, materialize_grads=True)
    return [out.detach(), *found]


def doubled(*inputs: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.double() for t in inputs]


def narrow(scale: float = 0.7, window: int | None = None) -> Callable[..., Tensor]:
    def attend(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, *own: Tensor) -> Tensor:
        pair = (own[0], own[1]) if own else None
        return narrow_attention.narrow_attention(q, k, v, pair, sink, scale, window)

    return attend


def by_definition(scale: float = 0.7, window: int | None = None) -> Callable[..., Tensor]:
    def attend(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> Tensor:
        return causal_attention_reference(q, k, v, sink, scale, window)

    return attend


def own_by_definition(scale: float, window: int | None) -> Callable[..., Tensor]:
    """Attend to all keys and the own ones, side by side."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, own_k: Tensor, own_v: Tensor
    ) -> Tensor:
        n = q.shape[-2]
        distance = torch.arange(n)[:, None] - torch.arange(n)
        sees_past = (distance > 0) & (distance < (n if window is None else window))
        sees = torch.cat([sees_past, distance == 0], 1)
        scores = scale * q @ torch.cat([k, own_k], -2).mT
        scores = scores.masked_fill(~sees, -torch.inf)
        if sink is not None:
            column = sink[:, None, None].expand(*scores.shape[:-1], 1)
            scores = torch.cat([scores, column], -1)
        return scores.softmax(-1)[..., : 2 * n] @ torch.cat([v, own_v], -2)

    return attend


def close(found: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-6, atol=4e-6)


@pytest.fixture
def _compiled_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "choose", lambda *_: "compiled")


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


SINK = torch.tensor([0.3, -1.0, 6.0])


class TestValuesAndGradients:
    @pytest.mark.parametrize("sink", [None, SINK, SINK - 30], ids=["none", "some", "low"])
    @pytest.mark.parametrize("window", [None, 1, 2, 16, 20, 90])
    @pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 100])
    def test_causal(self, length: int, window: int | None, sink: Tensor | None) -> None:
        inputs = [*heads(length, 8), sink]
        found = with_gradients(narrow(window=window), *inputs)
        close(found, with_gradients(by_definition(window=window), *doubled(*inputs)))

    @pytest.mark.parametrize("sink", [None, SINK], ids=["none", "some"])
    @pytest.mark.parametrize("window", [None, 1, 2, 16, 20, 90])
    @pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 100])
    def test_own_position(self, length: int, window: int | None, sink: Tensor | None) -> None:
        q, k, v, own_k, own_v = heads(length, 8, n=5)
        inputs = [q, k, v, sink, own_k, own_v]
        found = with_gradients(narrow(window=window), *inputs)
        close(found, with_gradients(own_by_definition(0.7, window), *doubled(*inputs)))

    @pytest.mark.parametrize("channels", [16, 32])
    def test_wider_heads(self, channels: int) -> None:
        q, k, v, own_k, own_v = heads(50, channels, n=5)
        found = with_gradients(narrow(0.3, 40), q, k, v, SINK)
        close(found, with_gradients(by_definition(0.3, 40), *doubled(q, k, v, SINK)))
        inputs = [q, k, v, SINK, own_k, own_v]
        found = with_gradients(narrow(0.3, 40), *inputs)
        close(found, with_gradients(own_by_definition(0.3, 40), *doubled(*inputs)))

    @pytest.mark.parametrize("channels", [8, 16, 32])
    def test_errors_are_no_larger_than_those_of_torch(self, channels: int) -> None:
        inputs = heads(300, channels)
        scale = channels**-0.5
        exact = with_gradients(by_definition(scale), *doubled(*inputs, None))
        found = with_gradients(narrow(scale), *inputs, None)
        torchs = with_gradients(
            lambda q, k, v, sink: attention._by_torch(q, k, v, sink, scale, None), *inputs, None
        )
        for one, other, wanted in zip(found, torchs, exact, strict=True):
            error, torch_error = (
                (t.double() - wanted).square().mean().sqrt() for t in (one, other)
            )
            assert error < 1.2 * torch_error

    def test_scores_of_tens_of_thousands(self) -> None:
        q, k, v = heads(60, 8)
        q, k = (t.mul(60).round() for t in (q, k))  # scores are exact integers, up to 3e4
        assert (q @ k.mT).abs().max() > 1e4
        found = with_gradients(narrow(1.0), q, k, v, SINK)
        close(found[:1], with_gradients(by_definition(1.0), *doubled(q, k, v, SINK))[:1])
        # Gradients are sums of products with entries of q and k, which are near 60.
        for one, other in zip(
            found, with_gradients(by_definition(1.0), *doubled(q, k, v, SINK)), strict=True
        ):
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-3)


class TestBits:
    def test_a_sequence_gives_the_same_in_every_batch(self) -> None:
        inputs = heads(70, 16, count=5)
        whole = with_gradients(narrow(), *inputs, None)[0]
        for i in range(5):
            alone = narrow()(*(t[i : i + 1] for t in inputs), None)
            assert torch.equal(alone[0], whole[i])

    @pytest.mark.usefixtures("_threads")
    def test_the_number_of_threads_changes_nothing(self) -> None:
        inputs = [*heads(400, 8, n_heads=3, count=3), SINK]  # three pieces
        results = []
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append(with_gradients(narrow(), *inputs))
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)


class TestMemory:
    def test_output_and_gradients_lie_as_projections_do(self) -> None:
        for result in with_gradients(narrow(), *heads(20, 8), None):
            assert result.transpose(1, 2).is_contiguous()

    def test_any_strides_of_inputs_and_gradient(self) -> None:
        q, k, v = heads(20, 8)
        wanted = with_gradients(narrow(), q, k, v, None)
        contiguous = [t.contiguous() for t in (q, k)]
        apart = torch.stack([v, v], -1)[..., 0]  # channels are not adjacent
        for one, other in zip(
            with_gradients(narrow(), *contiguous, apart, None), wanted, strict=True
        ):
            assert torch.equal(one, other)
        leaf = v.detach().requires_grad_()
        narrow()(q, k, leaf, None).sum().backward()  # its gradient is one number, expanded
        exact = v.double().requires_grad_()
        by_definition()(q.double(), k.double(), exact, None).sum().backward()
        torch.testing.assert_close(leaf.grad, exact.grad, check_dtype=False)


class TestNotFinite:
    def test_a_later_token_does_no_harm(self) -> None:
        q, k, v = heads(40, 8)
        wanted = narrow()(q, k, v, None)[:, :, :20]
        k = k.clone()
        k[:, :, 20] = torch.nan
        assert torch.equal(narrow()(q, k, v, None)[:, :, :20], wanted)

    @pytest.mark.parametrize("place", range(3))
    def test_nan_reaches_the_output(self, place: int) -> None:
        inputs = [t.clone() for t in heads(40, 8)]
        inputs[place][:, :, 20] = torch.nan
        assert narrow()(*inputs, None)[:, :, 20].isnan().all()


class TestChoice:
    @pytest.mark.usefixtures("_compiled_everywhere")
    @pytest.mark.parametrize(
        ("length", "channels", "dtype", "scale", "expected"),
        [
            (64, 8, torch.float32, 1.0, True),
            (64, 16, torch.bfloat16, 1.0, True),
            (63, 8, torch.float32, 1.0, False),
            (64, 12, torch.float32, 1.0, False),
            (64, 8, torch.float64, 1.0, False),
            (64, 8, torch.float32, -1.0, False),
        ],
    )
    def test_what_it_can_compute(
        self, length: int, channels: int, dtype: torch.dtype, scale: float, expected: bool
    ) -> None:
        q = torch.zeros(1, 2, length, channels, dtype=dtype)
        assert is_faster(q, scale, causal_attention) is expected

    @pytest.mark.usefixtures("_compiled_everywhere")
    def test_not_in_a_graph_of_torch_compile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not is_faster(torch.zeros(1, 2, 64, 8), 1.0, causal_attention)

    def test_the_question_has_no_number_of_sequences(self, monkeypatch: pytest.MonkeyPatch) -> None:
        questions = []

        def choose(question: str, default: str, ways: object) -> str:
            questions.append((question, default))
            return default

        monkeypatch.setattr(fastest, "choose", choose)
        for count in (1, 7):
            assert not is_faster(torch.zeros(count, 2, 100, 8), 1.0, causal_attention)
        assert set(questions) == {("attention of 8 channels, 128 tokens", "torch")}

    @pytest.mark.usefixtures("_compiled_everywhere")
    def test_both_streams_use_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        q, k, v, own_k, own_v = heads(64, 8, n=5)
        found = [
            causal_attention(q, k, v, sink=SINK, window=9),
            own_position_attention(q, k, v, own_k, own_v, sink=SINK, window=9),
        ]
        scale = 8**-0.5
        assert torch.equal(found[0], narrow(scale, 9)(q, k, v, SINK))
        assert torch.equal(found[1], narrow(scale, 9)(q, k, v, SINK, own_k, own_v))

    @pytest.mark.usefixtures("_compiled_everywhere")
    def test_bfloat16_in_and_out(self) -> None:
        inputs = [t.bfloat16() for t in heads(64, 8)]
        found = with_gradients(lambda *qkv: causal_attention(*qkv), *inputs)
        exact = with_gradients(by_definition(8**-0.5), *doubled(*inputs, None))
        for one, other in zip(found, exact, strict=True):
            assert one.dtype == torch.bfloat16
            torch.testing.assert_close(one.double(), other, rtol=2e-2, atol=2e-2)

    def test_the_measured_implementations_agree(self) -> None:
        ways = narrow_attention._ways(64, 8, causal_attention)
        assert set(ways) == {"torch", "compiled"}
        results = [way() for way in ways.values()]
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
