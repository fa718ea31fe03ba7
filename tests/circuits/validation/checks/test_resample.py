import pytest
import torch

from wirework.circuits import Ablation
from wirework.circuits.masking.activation_cache import activation_cache
from wirework.circuits.validation.checks import (
    MaskedCircuit,
    constant_resample_ablation,
    resample_ablation,
)
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs


def recorded(transformer: Transformer, batches: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every node at every token of the batches, in order."""
    found: dict[str, list[torch.Tensor]] = {}
    for tokens in batches:
        with torch.no_grad():
            _, values = transformer.record(tokens, transformer.node_sites)
        for name, value in values.items():
            found.setdefault(name, []).append(value.flatten(0, 1))
    return {name: torch.cat(parts) for name, parts in found.items()}


@pytest.fixture(scope="module")
def batches(rows: TokenizedPairs) -> list[torch.Tensor]:
    return [rows.tokens[:4, :20], rows.tokens[4:8, :20], rows.tokens[8:11, :20]]


@pytest.fixture(scope="module")
def whole(ablation: Ablation, batches: list[torch.Tensor]):
    return activation_cache(ablation.transformer, batches, 10_000)


class TestActivationCache:
    def test_a_bank_larger_than_the_text_is_all_of_it(self, whole, ablation, batches) -> None:
        expected = recorded(ablation.transformer, batches)
        for name, value in expected.items():
            assert torch.allclose(whole[name], value, atol=1e-6)

    def test_a_bank_holds_distinct_tokens_in_all_sites_alike(self, ablation, batches) -> None:
        found = activation_cache(ablation.transformer, batches, 15, seed=1)
        expected = recorded(ablation.transformer, batches)
        together = ablation.space.join(found)
        every = ablation.space.join(expected)
        places = [int((every - row).abs().amax(1).argmin()) for row in together]
        assert torch.allclose(every[places], together, atol=1e-6)
        assert len(together) == 15
        again = activation_cache(ablation.transformer, batches, 15, seed=1)
        assert all(torch.equal(again[name], value) for name, value in found.items())
        other = activation_cache(ablation.transformer, batches, 15, seed=2)
        assert not torch.equal(ablation.space.join(other), together)

    def test_every_token_is_as_likely_to_be_held(
        self, ablation: Ablation, rows: TokenizedPairs
    ) -> None:
        batches = [rows.tokens[:1, :10], rows.tokens[2:3, 10:20]]
        every = ablation.space.join(recorded(ablation.transformer, batches))
        counts = torch.zeros(20)
        for seed in range(100):
            found = ablation.space.join(activation_cache(ablation.transformer, batches, 5, seed))
            counts[torch.cdist(found, every).argmin(1)] += 1
        assert len(every.unique(dim=0)) == 20
        assert ((counts - 25).abs() < 20).all()  # 4.6 standard deviations of Binomial(100, 1/4)


class TestResampleChecks:
    def test_nothing_removed_nothing_drawn(
        self, everything: MaskedCircuit, rows: TokenizedPairs, whole
    ) -> None:
        own = everything.loss(rows)
        for check in (resample_ablation, constant_resample_ablation):
            assert check(everything, rows, whole, n_resamples=2).losses == (own, own)

    def test_a_bank_of_one_token_is_ablation_at_its_values(
        self,
        some: MaskedCircuit,
        some_gates: torch.Tensor,
        ablation: Ablation,
        rows: TokenizedPairs,
        whole,
    ) -> None:
        one = {name: value[7:8] for name, value in whole.items()}
        baseline = Ablation.of(
            ablation.transformer, {name: value[0] for name, value in one.items()}
        )
        expected = float(baseline.losses(some_gates[None], rows)[0])
        for check in (resample_ablation, constant_resample_ablation):
            found = check(some, rows, one, n_resamples=2)
            assert found.losses == (pytest.approx(expected, abs=1e-5),) * 2
            assert found.worst == pytest.approx(found.mean)

    def test_removed_nodes_take_one_token_of_the_bank_together(
        self, some: MaskedCircuit, rows: TokenizedPairs, whole
    ) -> None:
        name = "1.mlp.act_in"
        removed = some.space.split(some.gates)[name] == 0
        held = whole[name][:, removed]
        with Spy(some, name) as seen:
            resample_ablation(some, rows, whole, n_resamples=1)
        drawn = torch.cat([x.flatten(0, 1) for x in seen])[:, removed]
        assert rows_among(drawn, held)
        assert len(drawn.unique(dim=0)) > len(held) // 2  # tokens and rows draw apart
        with Spy(some, name) as seen:
            constant_resample_ablation(some, rows, whole, n_resamples=3)
        passes = len(seen) // 3
        for draw in range(3):
            values = torch.cat([x.flatten(0, 1) for x in seen[draw * passes : (draw + 1) * passes]])
            assert len(values[:, removed].unique(dim=0)) == 1
            assert rows_among(values[:1, removed], held)

    def test_draws_are_by_seed_and_more_can_only_raise_the_worst(
        self, some: MaskedCircuit, rows: TokenizedPairs, whole
    ) -> None:
        for check in (resample_ablation, constant_resample_ablation):
            few, many = (
                check(some, rows, whole, n_resamples=n_resamples, seed=3) for n_resamples in (2, 6)
            )
            assert many.losses[:2] == few.losses
            assert many.worst >= few.worst
            assert many.mean == pytest.approx(sum(many.losses) / 6)
            assert many.worst == max(many.losses) > many.mean
            assert check(some, rows, whole, n_resamples=2, seed=4) != few

    def test_the_planted_circuit_needs_nothing_outside(
        self, planted: MaskedCircuit, quotes: TokenizedPairs
    ) -> None:
        held = activation_cache(planted.transformer, [quotes.tokens], 64)
        own = planted.loss(quotes)
        assert resample_ablation(planted, quotes, held).mean == pytest.approx(own, abs=0.1)
        assert constant_resample_ablation(planted, quotes, held).mean < 0.3

    def test_bad_requests_are_one_line(
        self, some: MaskedCircuit, rows: TokenizedPairs, whole
    ) -> None:
        with pytest.raises(InputError, match="at least one token"):
            activation_cache(some.transformer, [], 4)
        with pytest.raises(InputError, match="an activation cache of 0 tokens"):
            activation_cache(some.transformer, [rows.tokens], 0)
        with pytest.raises(InputError, match="at least one draw, got 0"):
            constant_resample_ablation(some, rows, whole, n_resamples=0)
        with pytest.raises(InputError, match=r"20 channels at 0.attn.act_in, got None"):
            resample_ablation(some, rows, {})


class Spy:
    """What leaves a site while a check runs."""

    def __init__(self, masked_circuit: MaskedCircuit, name: str) -> None:
        self.seen: list[torch.Tensor] = []
        self.handle = masked_circuit.transformer.sites[name].register_forward_hook(
            lambda _module, _args, out: self.seen.append(out)
        )

    def __enter__(self) -> list[torch.Tensor]:
        return self.seen

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def rows_among(values: torch.Tensor, held: torch.Tensor) -> bool:
    apart = torch.cdist(values, held, compute_mode="donot_use_mm_for_euclid_dist")
    return bool(apart.amin(1).max() < 1e-6)
