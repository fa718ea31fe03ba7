"""Sites: recording, edits and their end, hooks by name, many masks at once."""

import pytest
import torch
from present import present
from torch import Tensor, nn

from wirework.config import NODE_KINDS, ModelConfig
from wirework.errors import InputError
from wirework.nn import Site, Transformer, mean_ablation

CONFIG = ModelConfig(vocab_size=13, n_ctx=8, n_layer=2, d_model=16, d_head=4)

LAYER = [
    *("resid_in", "attn.act_in", "attn.q", "attn.k", "attn.v", "attn.y", "attn.resid_delta"),
    *("resid_mid", "mlp.act_in", "mlp.post_act", "mlp.resid_delta", "resid_out"),
]


@pytest.fixture
def model() -> Transformer:
    transformer = Transformer(CONFIG, seed=0)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return transformer


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, 13, (3, 8), generator=torch.Generator().manual_seed(0))


def zero(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


class TestSites:
    def test_names_come_in_execution_order(self, model, tokens):
        names = [f"{layer}.{name}" for layer in range(2) for name in LAYER] + ["final_resid"]
        assert list(model.sites) == names
        assert model.node_sites == [f"{layer}.{kind}" for layer in range(2) for kind in NODE_KINDS]
        seen: list[str] = []
        hooks = [
            site.register_forward_hook(lambda *_, name=name: seen.append(name))
            for name, site in model.sites.items()
        ]
        model(tokens)
        for hook in hooks:
            hook.remove()
        assert seen == names

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("0.mlp.post_acts", "; did you mean '0.mlp.post_act'"),
            ("blocks.0.attn.q", "; did you mean '0.attn.q'"),
            ("2.attn.q", "; did you mean"),
            ("zzzzzzzz", "$"),
        ],
    )
    def test_unknown_name_is_refused_with_the_nearest(self, model, tokens, name, hint):
        with pytest.raises(InputError, match=f"no site '{name}' in this model{hint}"):
            model.record(tokens, [name])
        with pytest.raises(InputError, match=f"no site '{name}'"), model.edited({name: zero}):
            pass

    def test_site_shows_its_width_and_k(self):
        assert repr(Site(8)) == "Site(8)"
        assert repr(Site(8, 2)) == "Site(8, k=2)"


class TestRecordedValues:
    def test_recorded_values_are_after_abs_top_k(self, model, tokens):
        _, values = model.record(tokens, model.sites)
        for name, value in values.items():
            site = model.sites[name]
            assert value.shape == (3, 8, site.width)
            if name in model.node_sites:
                assert site.k == site.width // 4
                assert ((value != 0).sum(-1) <= site.k).all()
        assert torch.equal(
            values["0.resid_mid"], values["0.resid_in"] + values["0.attn.resid_delta"]
        )
        assert torch.equal(values["1.resid_in"], values["0.resid_out"])
        assert torch.equal(values["final_resid"], values["1.resid_out"])

    def test_hooks_by_module_name_see_what_record_gives(self, model, tokens):
        _, values = model.record(tokens, model.sites)
        seen: dict[str, Tensor] = {}
        for name in values:
            module = name if name == "final_resid" else f"blocks.{name}"
            model.get_submodule(module).register_forward_hook(
                lambda _module, _args, out, name=name: seen.__setitem__(name, out)
            )
        model(tokens)
        assert seen.keys() == values.keys()
        assert all(torch.equal(seen[name], values[name]) for name in values)

    def test_a_hook_before_a_site_sees_and_may_replace_its_input(self, model, tokens):
        expected, seen = model(tokens), []
        site = model.blocks[0].mlp.post_act

        def keep(_: nn.Module, args: tuple[Tensor]) -> Tensor:
            seen.append(args[0])
            return args[0]

        site.register_forward_pre_hook(keep)
        assert torch.equal(model(tokens), expected)
        assert seen[0].min() > -0.2  # GELU's values, before AbsTopK
        site.register_forward_pre_hook(lambda _, args: torch.zeros_like(args[0]))
        assert not torch.equal(model(tokens), expected)

    def test_a_backward_hook_on_a_site_is_called(self, model, tokens):
        seen: list[int] = []
        site = model.blocks[0].mlp.post_act
        site.register_full_backward_hook(lambda *_: seen.append(1))
        model(tokens).sum().backward()
        assert seen == [1]

    def test_gradients_flow_through_recorded_values(self, model, tokens):
        with model.recorded(["0.mlp.post_act"]) as values:
            loss = model(tokens).square().mean()
        (slope,) = torch.autograd.grad(loss, values["0.mlp.post_act"])
        assert slope.any()


class TestEdited:
    def test_refused_edits_leave_no_trace(self, model, tokens):
        before = model(tokens)
        with pytest.raises(InputError), model.edited({"0.attn.q": zero, "nowhere": zero}):
            pass
        assert torch.equal(model(tokens), before)

    def test_edits_change_the_run_and_are_gone_after_it(self, model, tokens):
        before = model(tokens)
        with model.edited({"1.mlp.resid_delta": zero}):
            logits, values = model.record(
                tokens, ["1.mlp.resid_delta", "1.resid_mid", "1.resid_out"]
            )
        assert not torch.equal(logits, before)
        assert not values["1.mlp.resid_delta"].any()
        assert torch.equal(values["1.resid_out"], values["1.resid_mid"])
        assert torch.equal(model(tokens), before)

    def test_edits_are_gone_after_an_exception(self, model, tokens):
        before = model(tokens)
        with pytest.raises(KeyError), model.edited({"0.attn.v": zero}):
            raise KeyError
        assert torch.equal(model(tokens), before)
        assert all(site.edits == () for site in model.sites.values())

    def test_edits_nest_outer_first(self, model, tokens):
        with model.edited({"0.resid_in": lambda x: x + 1}):
            with model.edited({"0.resid_in": lambda x: x * 2}):
                _, both = model.record(tokens, ["0.resid_in"])
            _, outer = model.record(tokens, ["0.resid_in"])
        _, plain = model.record(tokens, ["0.resid_in"])
        assert torch.equal(outer["0.resid_in"], plain["0.resid_in"] + 1)
        assert torch.equal(both["0.resid_in"], (plain["0.resid_in"] + 1) * 2)

    def test_edit_that_changes_the_shape_is_refused(self, model, tokens):
        with (
            pytest.raises(InputError, match=r"turned shape \(3, 8, 16\) into \(3, 8, 15\)"),
            model.edited({"0.mlp.resid_delta": lambda x: x[..., 1:]}),
        ):
            model(tokens)


def gates_and_mean(model: Transformer, name: str, trials: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    width = model.sites[name].width
    gates = torch.randint(0, 2, (trials, width), generator=generator)
    return gates, torch.randn(width, generator=generator)


class TestMeanAblation:
    def test_mean_ablation_worked_by_hand(self):
        x = torch.tensor([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]])  # two sequences of one token
        mean = torch.tensor([10.0, 20.0, 30.0])
        one = mean_ablation(torch.tensor([True, False, True]), mean)(x)
        assert torch.equal(one, torch.tensor([[[1.0, 20.0, 3.0]], [[4.0, 20.0, 6.0]]]))
        two = mean_ablation(torch.tensor([[1, 0, 0], [0, 1, 1]]), mean)(x)
        assert torch.equal(two, torch.tensor([[[1.0, 20.0, 30.0]], [[10.0, 5.0, 6.0]]]))
        half = mean_ablation(torch.tensor([0.5, 1.0, 1.0]), mean)(x)
        assert torch.equal(half[..., 0], torch.tensor([[5.5], [7.0]]))

    @pytest.mark.parametrize("name", ["0.attn.act_in", "1.attn.k", "0.mlp.post_act"])
    def test_all_gates_kept_is_the_model(self, model, tokens, name):
        width = model.sites[name].width
        for gates in (torch.ones(width), torch.ones(3, width)):
            with model.edited({name: mean_ablation(gates, torch.randn(width))}):
                edited = model(tokens)
            assert torch.equal(edited, model(tokens))

    def test_many_masks_at_once_are_one_at_a_time(self, model, tokens):
        names = ["0.attn.act_in", "0.attn.q", "1.mlp.post_act", "1.mlp.resid_delta"]
        parts = {name: gates_and_mean(model, name, 4) for name in names}
        together = {name: mean_ablation(gates, mean) for name, (gates, mean) in parts.items()}
        with model.edited(together):
            logits = model(tokens.repeat(4, 1)).unflatten(0, (4, 3))  # trial-major
        for trial in range(4):
            alone = {
                name: mean_ablation(gates[trial], mean) for name, (gates, mean) in parts.items()
            }
            with model.edited(alone):
                torch.testing.assert_close(logits[trial], model(tokens), atol=1e-6, rtol=1e-5)

    def test_gradients_reach_the_gates(self, model, tokens):
        gates = torch.full((2, 16), 0.7, requires_grad=True)
        with model.edited({"0.attn.act_in": mean_ablation(gates, torch.zeros(16))}):
            model(tokens.repeat(2, 1)).square().mean().backward()
        assert present(gates.grad).any(-1).all()

    @pytest.mark.parametrize(
        ("gates", "mean"), [((3,), (4,)), ((2, 3), (2,)), ((1, 2, 3), (3,)), ((3,), (1, 3))]
    )
    def test_gates_and_mean_that_do_not_fit_are_refused(self, gates, mean):
        with pytest.raises(InputError, match="do not cover the same nodes"):
            mean_ablation(torch.ones(gates), torch.ones(mean))

    def test_batch_that_is_no_multiple_of_the_masks_is_refused(self, model, tokens):
        edit = mean_ablation(torch.ones(2, 16), torch.zeros(16))
        with (
            pytest.raises(InputError, match="3 sequences are not a multiple of 2 masks"),
            model.edited({"0.resid_in": edit}),
        ):
            model(tokens)

    def test_a_sublayer_at_rest_is_passed_over_only_where_nobody_looks(self):
        config = ModelConfig(
            vocab_size=20, n_ctx=8, n_layer=2, d_model=16, d_head=4, act_fraction=0.5
        )
        model = Transformer(config, seed=1)
        tokens = torch.arange(16).view(2, 8)
        ran: list[str] = []
        means = torch.linspace(-1, 1, 16)
        rest = {f"1.{part}.resid_delta": mean_ablation(torch.zeros(3, 16), means) for part in PARTS}
        kept = {name: mean_ablation(torch.ones(3, 16), means) for name in rest}
        three = tokens.repeat(3, 1)
        with model.edited(rest):
            fast = model(three)
            with model.recorded(["1.attn.q", "1.mlp.post_act"]) as values:
                watched = model(three)
            handle = model.blocks[1].mlp.up.register_forward_hook(lambda *_: ran.append("up"))
            hooked = model(three)
            handle.remove()
            with model.recorded(["1.mlp.resid_delta"]) as last:
                model(three)
        assert torch.equal(fast, watched)
        assert torch.equal(fast, hooked)
        assert ran == ["up"]
        assert values["1.attn.q"].shape == (6, 8, 16)
        assert torch.equal(last["1.mlp.resid_delta"], means.expand(6, 8, 16))
        plain = model(tokens).repeat(3, 1, 1)
        with model.edited(kept):
            assert torch.allclose(model(three), plain, atol=1e-6)


PARTS = ("attn", "mlp")
