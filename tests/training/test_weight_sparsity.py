import pytest
import torch
from present import present

from wirework.config import ModelConfig, WeightSparsityConfig
from wirework.nn import Transformer
from wirework.training.weight_sparsity import WeightSparsity, kept_entries

MODEL = ModelConfig(vocab_size=32, n_ctx=8, n_layer=2, d_model=32, d_head=8)


def dense(seed: int = 0) -> Transformer:
    transformer = Transformer(MODEL, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.normal_(generator=generator)
    return transformer


def counts(transformer: Transformer) -> dict[str, tuple[int, int]]:
    return {
        p.name: (int(p.parameter.count_nonzero()), p.parameter.numel())
        for p in transformer.prunable()
    }


def test_each_matrix_and_bias_keeps_its_own_exact_count():
    transformer = dense()
    prior = WeightSparsity(WeightSparsityConfig(l0_fraction=0.03, floor=0), steps=1)
    prior.wrap_model(transformer)
    numbers = prior.after_step(0)
    found = counts(transformer)
    assert found["blocks.0.mlp.up.weight"] == (round(0.03 * 128 * 32), 128 * 32)
    assert found["blocks.1.attn.out.bias"] == (1, 32)
    assert all(kept == max(1, round(0.03 * size)) for kept, size in found.values())
    total = sum(kept for kept, _ in found.values()) / sum(size for _, size in found.values())
    assert numbers == {"l0_fraction": total}


def test_norms_sinks_and_bigram_stay_dense():
    transformer = dense()
    prior = WeightSparsity(WeightSparsityConfig(l0_fraction=0.03), steps=1)
    prior.wrap_model(transformer)
    prior.after_step(0)
    untouched = (transformer.bigram, transformer.norm.weight, transformer.blocks[0].attn.sink)
    for tensor in map(present, untouched):
        assert int(tensor.count_nonzero()) == tensor.numel()


def test_annealing_projects_to_the_fraction_of_the_step():
    transformer = dense()
    config = WeightSparsityConfig(l0_fraction=0.5, floor=0, anneal_start=0.25, anneal_end=0.75)
    prior = WeightSparsity(config, steps=4)
    prior.wrap_model(transformer)
    got = [prior.after_step(step)["l0_fraction"] for step in range(4)]
    assert got == pytest.approx([1.0, 0.75, 0.5, 0.5], abs=1e-3)


def test_the_largest_stay_and_keep_their_values():
    transformer = dense()
    before = transformer.blocks[0].mlp.up.weight.detach().clone()
    prior = WeightSparsity(WeightSparsityConfig(l0_fraction=0.1, floor=0), steps=1)
    prior.wrap_model(transformer)
    prior.after_step(0)
    after = transformer.blocks[0].mlp.up.weight.detach()
    kept = after != 0
    assert torch.equal(after[kept], before[kept])
    assert before[kept].abs().min() > before[~kept].abs().max()


def test_a_floor_that_makes_the_target_unreachable_is_said_in_one_line(capsys):
    # 4 of 32 entries a row are 1/8, above 0.03. An output matrix counts its columns the same way.
    WeightSparsity(WeightSparsityConfig(l0_fraction=0.03, floor=4), 1).wrap_model(dense())
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "l0_fraction 0.03 unreachable" in said
    assert "blocks.*.mlp.up.weight 0.125" in said
    assert "blocks.*.attn.out.weight 0.125" in said
    assert "embed" not in said


def test_the_fraction_warned_of_is_the_one_that_results():
    transformer = dense()
    prior = WeightSparsity(WeightSparsityConfig(l0_fraction=0.03, floor=4), steps=1)
    prior.wrap_model(transformer)
    prior.after_step(0)
    kept, size = counts(transformer)["blocks.0.mlp.up.weight"]
    assert kept / size == 0.125


def test_a_reachable_floor_is_not_mentioned(capsys):
    WeightSparsity(WeightSparsityConfig(l0_fraction=0.2, floor=4), 1).wrap_model(dense())
    assert capsys.readouterr().err == ""


def test_at_least_one_entry_stays():
    assert [kept_entries(0.001, size) for size in (3, 1500, 10_000)] == [1, 2, 10]


def test_nan_is_refused():
    transformer = dense()
    with torch.no_grad():
        transformer.embed.weight[0, 0] = torch.nan
    prior = WeightSparsity(WeightSparsityConfig(l0_fraction=0.1), steps=1)
    prior.wrap_model(transformer)
    with pytest.raises(ValueError, match="NaN"):
        prior.after_step(0)


class TestOnADevice:
    """The path of parameters that are not on the CPU, on tensors of the CPU."""

    @pytest.fixture(autouse=True)
    def _as_on_a_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(WeightSparsity, "_on_cpu", lambda self: False)

    def test_the_weights_and_the_fraction_are_those_of_the_cpu(self, monkeypatch):
        config = WeightSparsityConfig(l0_fraction=0.05, anneal_start=0.0, anneal_end=0.9)
        results = []
        for on_cpu in (False, True):
            monkeypatch.setattr(WeightSparsity, "_on_cpu", lambda self, on_cpu=on_cpu: on_cpu)
            transformer = dense()
            prior = WeightSparsity(config, steps=4)
            prior.wrap_model(transformer)
            numbers = [prior.after_step(step) for step in range(4)]
            results.append((numbers, dict(transformer.named_parameters())))
        assert results[0][0] == results[1][0]
        for name, parameter in results[0][1].items():
            assert torch.equal(parameter, results[1][1][name])

    def test_nan_is_a_flag(self):
        transformer = dense()
        prior = WeightSparsity(WeightSparsityConfig(l0_fraction=0.1), steps=1)
        prior.wrap_model(transformer)
        assert prior.nan_flag is None
        prior.after_step(0)
        assert not present(prior.nan_flag)
        with torch.no_grad():
            transformer.embed.weight[0, 0] = torch.nan
        prior.after_step(0)
        assert present(prior.nan_flag)
