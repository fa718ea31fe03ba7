"""The transformer in every configuration: causality, seeds, loss, generation, refusals."""

import pytest
import torch
import torch.nn.functional as F
from present import present
from torch import Tensor
from transformer_variants import SMALL, VARIANTS, build

from wirework.config import ModelConfig
from wirework.errors import InputError
from wirework.nn import Transformer


def some_tokens(rows: int = 2, length: int = 10, seed: int = 0) -> Tensor:
    return torch.randint(0, 17, (rows, length), generator=torch.Generator().manual_seed(seed))


class TestForward:
    @pytest.mark.parametrize("name", VARIANTS)
    def test_logits_do_not_depend_on_later_tokens(self, name):
        transformer, tokens = build(name), some_tokens()
        logits = transformer(tokens)
        assert logits.shape == (2, 10, 17)
        assert logits.dtype == torch.float32
        for t in (0, 4, 9):
            changed = tokens.clone()
            changed[:, t + 1 :] = (changed[:, t + 1 :] + 5) % 17
            torch.testing.assert_close(transformer(changed)[:, : t + 1], logits[:, : t + 1])
            torch.testing.assert_close(transformer(tokens[:, : t + 1]), logits[:, : t + 1])
        changed = tokens.clone()
        changed[:, 0] = (changed[:, 0] + 5) % 17
        assert not torch.allclose(transformer(changed)[:, 1], logits[:, 1])

    @pytest.mark.parametrize("name", ["default", "no bigram", "logit bias"])
    def test_logits_at_chosen_positions(self, name):
        transformer, tokens = build(name), some_tokens(4)
        at = torch.tensor([0, 9, 3, 3])
        expected = transformer(tokens)[torch.arange(4), at]
        torch.testing.assert_close(transformer(tokens, at), expected)

    @pytest.mark.parametrize(
        ("tokens", "message"),
        [
            (torch.zeros(1, 11, dtype=torch.long), r"1 <= T <= 10, got int64 \(1, 11\)"),
            (torch.zeros(1, 0, dtype=torch.long), r"got int64 \(1, 0\)"),
            (torch.zeros(0, 3, dtype=torch.long), r"got int64 \(0, 3\)"),
            (torch.zeros(3, dtype=torch.long), r"must be int64 \(B, T\).* got int64 \(3,\)"),
            (torch.zeros(1, 3), r"got float32 \(1, 3\)"),
            (torch.tensor([[1, 17]]), "token 17 is outside the vocabulary of 17"),
            (torch.tensor([[-1, 2]]), "token -1 is outside the vocabulary of 17"),
        ],
    )
    def test_tokens_that_do_not_fit_are_refused(self, tokens, message):
        transformer = build("default")
        for use in (transformer, transformer.state, lambda t: transformer.record(t, [])):
            with pytest.raises(InputError, match=message):
                use(tokens)

    def test_32_bit_tokens_do(self):
        transformer = build("default")
        assert torch.equal(transformer(some_tokens().int()), transformer(some_tokens()))


class TestLoss:
    @pytest.mark.parametrize("name", VARIANTS)
    def test_loss_and_its_gradients_are_cross_entropy_of_the_logits(self, name):
        transformer, tokens, targets = build(name).double(), some_tokens(), some_tokens(seed=1)
        wanted = [p for p in transformer.parameters() if p.requires_grad]
        got = transformer.loss(tokens, targets)
        aim = F.cross_entropy(transformer(tokens).flatten(0, 1), targets.flatten())
        torch.testing.assert_close(got, aim, atol=1e-12, rtol=0)
        pairs = zip(torch.autograd.grad(got, wanted), torch.autograd.grad(aim, wanted), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-9)

    @pytest.mark.parametrize("name", VARIANTS)
    def test_every_trained_parameter_gets_a_gradient(self, name):
        transformer = build(name)
        transformer.loss(some_tokens(4), some_tokens(4, seed=1)).backward()
        for parameter_name, parameter in transformer.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, parameter_name
            assert not parameter.requires_grad or present(parameter.grad).any(), parameter_name
        assert (present(build("fixed bigram").bigram).requires_grad) is False

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            (
                torch.zeros(2, 9, dtype=torch.long),
                r"int64 \(2, 10\), the shape of the tokens, got int64 \(2, 9\)",
            ),
            (torch.zeros(10, 2, dtype=torch.long), r"got int64 \(10, 2\)"),
            (torch.zeros(2, 10, dtype=torch.int32), r"got int32 \(2, 10\)"),
            (torch.full((2, 10), -100), "target -100 is outside the vocabulary of 17"),
            (torch.full((2, 10), 17), "target 17 is outside the vocabulary of 17"),
        ],
    )
    def test_targets_that_do_not_fit_are_refused(self, targets, message):
        with pytest.raises(InputError, match=message):
            build("default").loss(torch.zeros(2, 10, dtype=torch.long), targets)

    @pytest.mark.parametrize("name", ["default", "layer norm", "logit bias", "positions beside"])
    def test_bfloat16_autocast_stays_close(self, name):
        transformer, tokens = build(name), some_tokens()
        if name == "default":
            transformer = Transformer(ModelConfig.of(SMALL | {"act_fraction": None}), 0)
        expected = transformer.loss(tokens, some_tokens(seed=1))
        with torch.autocast("cpu", torch.bfloat16):
            got = transformer.loss(tokens, some_tokens(seed=1))
        assert got.dtype == torch.float32
        got.backward()
        assert all(present(p.grad).dtype == torch.float32 for p in transformer.parameters())
        torch.testing.assert_close(got, expected, atol=0.2, rtol=0)


class TestInitialWeights:
    def test_same_seed_same_weights(self):
        one, same, other = (Transformer(ModelConfig.of(SMALL), seed) for seed in (3, 3, 4))
        assert all(
            torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True)
        )
        assert not torch.equal(one.embed.weight, other.embed.weight)
        assert not torch.equal(one.blocks[1].attn.qkv.weight, other.blocks[1].attn.qkv.weight)

    def test_global_random_state_does_not_matter(self):
        torch.manual_seed(1)
        one, sample = (
            Transformer(ModelConfig.of(SMALL)),
            build("default").generate(some_tokens(), 2),
        )
        torch.manual_seed(2)
        assert torch.equal(Transformer(ModelConfig.of(SMALL)).embed.weight, one.embed.weight)
        assert torch.equal(build("default").generate(some_tokens(), 2), sample)

    def test_initial_weights(self):
        config = ModelConfig(vocab_size=100, n_ctx=8, n_layer=8, d_model=128)
        transformer = Transformer(config)
        block = transformer.blocks[3]
        for matrix in (transformer.embed, transformer.unembed, block.attn.qkv, block.mlp.up):
            assert matrix.weight.std().item() == pytest.approx(0.02, rel=0.05)
        for matrix in (block.attn.out, block.mlp.down):
            assert matrix.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
            assert not matrix.bias.any()
        assert not present(transformer.bigram).any()
        assert not present(block.attn.sink).any()
        assert (block.norm1.weight == 1).all()


class TestGeneration:
    def test_greedy_generation_is_the_argmax_of_the_forward_pass(self):
        transformer, tokens = build("added positions"), some_tokens(length=4)
        out = transformer.generate(tokens, 9, temperature=0)  # beyond the context of 10
        assert out.shape == (2, 13)
        assert torch.equal(out[:, :4], tokens)
        for t in range(4, 13):
            window = out[:, max(0, t - 10) : t]
            assert torch.equal(out[:, t], transformer(window)[:, -1].argmax(-1))

    def test_sampling_is_repeatable_and_follows_the_odds(self):
        transformer, tokens = build("default"), some_tokens(rows=1, length=3).expand(2000, -1)
        one, same, other = (transformer.generate(tokens, 1, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        odds = transformer(tokens[:1])[0, -1].softmax(-1)
        shares = torch.bincount(one[:, -1], minlength=17) / 2000
        assert (shares - odds).abs().max() < 0.05
        cold = transformer.generate(tokens, 1, temperature=1e-3)
        assert (cold[:, -1] == odds.argmax()).all()

    def test_no_generation_gives_the_prompt_back(self):
        assert torch.equal(build("default").generate(some_tokens(), 0), some_tokens())

    @pytest.mark.parametrize(("length", "temperature"), [(-1, 1.0), (1, -0.5)])
    def test_negative_generation_is_refused(self, length, temperature):
        with pytest.raises(InputError, match="must not be negative"):
            build("default").generate(some_tokens(), length, temperature=temperature)


class TestParameters:
    def test_tied_embedding_is_one_parameter(self):
        transformer = build("tied")
        assert transformer.unembed.weight is transformer.embed.weight
        assert "unembed.weight" not in dict(transformer.named_parameters())

    def test_prunable_are_matrices_and_biases_with_the_side_of_their_neurons(self):
        found = {p.name: p.floor_dim for p in build("positions beside").prunable()}
        block = {
            "attn.qkv.weight": 0,
            "attn.qkv.bias": None,
            "attn.out.weight": 1,
            "attn.out.bias": None,
            "mlp.up.weight": 0,
            "mlp.up.bias": None,
            "mlp.down.weight": 1,
            "mlp.down.bias": None,
        }
        expected = {f"blocks.{i}.{name}": dim for i in range(2) for name, dim in block.items()}
        assert found == expected | {"embed.weight": None, "unembed.weight": None}


def test_a_model_of_no_tokens_is_refused():
    with pytest.raises(InputError, match="vocab_size is 0: set it to the number of tokens"):
        Transformer(ModelConfig.of({**SMALL, "vocab_size": 0}))
