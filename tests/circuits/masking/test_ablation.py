import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wirework.circuits import Ablation, NodeSpace
from wirework.circuits.masking.masks import PASS_TOKENS
from wirework.circuits.pruning.feasibility import check_target
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs, differences


def masks(ablation: Ablation, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return (torch.rand(count, ablation.space.size, generator=generator) < 0.8).float()


class TestAblation:
    def test_all_nodes_kept_is_the_model(self, ablation: Ablation, rows: TokenizedPairs) -> None:
        everything = torch.ones(1, ablation.space.size)
        found = ablation.all_logit_diffs(everything, rows)[0]
        assert torch.allclose(found, differences(ablation.transformer, rows), atol=1e-6)

    def test_no_node_kept_makes_all_prompts_alike(
        self, ablation: Ablation, rows: TokenizedPairs
    ) -> None:
        # What is left is the embedding of the last token, so prompts with the same one agree.
        found = ablation.all_logit_diffs(torch.zeros(1, ablation.space.size), rows)[0]
        assert torch.allclose(found[::2], -found[1::2], atol=1e-6)

    def test_which_sites_rest_is_asked_once(self, ablation: Ablation) -> None:
        gates = torch.zeros(2, ablation.space.size)
        ablation.space.split(gates)["0.mlp.post_act"][1, 3] = 1
        with Reads() as reads:
            edits = ablation.edits(gates)
        assert reads.single == 0  # each would wait for the device
        baseline = {name for name, edit in edits.items() if edit.constant}
        assert baseline == {*edits} - {"0.mlp.post_act"}
        assert not any(edit.constant for edit in ablation.edits(gates.requires_grad_()).values())

    def test_masks_in_one_pass_are_those_one_at_a_time(
        self, ablation: Ablation, rows: TokenizedPairs
    ) -> None:
        gates = masks(ablation, 5)
        together = ablation.logit_diffs(gates, rows)
        for r in range(5):
            alone = ablation.logit_diffs(gates[r : r + 1], rows)[0]
            assert torch.allclose(together[r], alone, atol=1e-5)

    def test_passes_in_pieces_are_those_in_one(
        self, ablation: Ablation, rows: TokenizedPairs
    ) -> None:
        gates = masks(ablation, 40)  # 40 masks of 24 rows of 30 tokens are several passes
        with torch.no_grad():
            whole = ablation.logit_diffs(gates, rows)
        assert 40 * rows.tokens.numel() > PASS_TOKENS
        assert torch.allclose(ablation.all_logit_diffs(gates, rows), whole, atol=1e-5)
        expected = torch.nn.functional.softplus(-whole).mean(1).double()
        assert torch.allclose(ablation.losses(gates, rows), expected, atol=1e-5)

    def test_a_mask_is_frozen_at_the_mean(self, ablation: Ablation, rows: TokenizedPairs) -> None:
        gates = masks(ablation, 1)[0]
        transformer = ablation.transformer
        with (
            transformer.edited(ablation.edits(gates)),
            transformer.recorded(transformer.node_sites) as values,
        ):
            transformer(rows.tokens)
        for name, kept in ablation.space.split(gates).items():
            dropped = values[name][..., kept == 0]
            baseline = ablation.means[name][kept == 0].expand_as(dropped)
            assert torch.allclose(dropped, baseline, atol=1e-6)

    def test_the_early_verdict_is_that_of_the_whole(
        self, ablation: Ablation, rows: TokenizedPairs
    ) -> None:
        for gates, loss in zip(
            masks(ablation, 6), ablation.losses(masks(ablation, 6), rows), strict=True
        ):
            assert ablation.within(gates, rows, float(loss) + 1e-4)
            assert not ablation.within(gates, rows, float(loss) - 1e-4)
            assert not ablation.within(gates, rows, 0.0)

    def test_a_model_in_float64_is_judged_in_float64(
        self, ablation: Ablation, rows: TokenizedPairs
    ) -> None:
        wide = copy.deepcopy(ablation.transformer).double()
        means = {name: mean.double() for name, mean in ablation.means.items()}
        gates = masks(ablation, 3)
        judged = Ablation.of(wide, means)
        found = judged.all_logit_diffs(gates, rows)
        assert found.dtype == torch.float64
        with torch.no_grad():
            assert torch.allclose(found, judged.logit_diffs(gates, rows), atol=1e-12)

    def test_what_is_not_a_number_reaches_no_target(
        self, ablation: Ablation, rows: TokenizedPairs
    ) -> None:
        broken = copy.deepcopy(ablation.transformer)
        with torch.no_grad():
            broken.unembed.weight.fill_(torch.nan)
        sick = Ablation.of(broken, ablation.means)
        assert not sick.within(masks(ablation, 1)[0], rows, 100.0)
        with pytest.raises(InputError, match="own task loss nan does not reach the target"):
            check_target(sick, rows, 100.0)


class Reads(TorchDispatchMode):
    """Counts the reads of single values."""

    single = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.single += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_nodes_stand_in_execution_order(ablation: Ablation) -> None:
    space = NodeSpace.of(ablation.transformer)
    assert list(space.widths)[:5] == [
        "0.attn.act_in", "0.attn.q", "0.attn.k", "0.attn.v", "0.attn.resid_delta",
    ]  # fmt: skip
    assert space.widths["0.attn.act_in"] == 20  # d_model 16 and d_pos 4
    row = torch.arange(space.size)
    assert torch.equal(space.join(space.split(row)), row)
    assert space.locate(torch.tensor([0, 19, 20, space.size - 1])) == [
        ("0.attn.act_in", 0),
        ("0.attn.act_in", 19),
        ("0.attn.q", 0),
        ("1.mlp.resid_delta", 15),
    ]
    gates = space.gates({"0.attn.q": [3]})
    assert gates.nonzero().flatten().tolist() == [23]
