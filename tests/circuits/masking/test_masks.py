from wirework.circuits import Ablation
from wirework.circuits.masking.masks import PASS_TOKENS, length_groups, without_weight_gradients
from wirework.tasks import TokenizedPairs


def test_pieces_hold_every_pair_once_and_fit(rows: TokenizedPairs) -> None:
    found = length_groups(rows, 32)
    assert sorted(i for part in found for i in part.tolist()) == list(range(rows.n_pairs))
    assert len(found) > 1
    assert all(32 * rows.select(part).tokens.numel() <= PASS_TOKENS for part in found)


def test_frozen_gives_back_what_it_took(ablation: Ablation) -> None:
    transformer = ablation.transformer
    weight = transformer.unembed.weight
    with without_weight_gradients(transformer):
        assert not weight.requires_grad
    assert weight.requires_grad
