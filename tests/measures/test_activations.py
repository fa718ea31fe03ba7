import pytest
import torch
from torch import Tensor

from wirework.config import ModelConfig
from wirework.errors import InputError
from wirework.measures import default_site, site_values
from wirework.measures.activations import from_position
from wirework.model import Model


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 512, (2, 20), generator=generator) for _ in range(3)]


def test_values_are_those_of_a_whole_pass(model: Model) -> None:
    sites = ["1.mlp.resid_delta", "0.attn.q", "1.resid_mid"]
    found = list(site_values(model.transformer, sites, batches()))
    for (tokens, values), given in zip(found, batches(), strict=True):
        assert torch.equal(tokens, given)
        expected = model.run_with_cache(given, sites)[1]
        assert set(values) == set(sites)
        assert all(torch.equal(values[site], expected[site]) for site in sites)


def test_nothing_after_the_last_site_is_computed(model: Model) -> None:
    reached = []

    def see(x: Tensor) -> Tensor:
        reached.append(x)
        return x

    with model.transformer.edited({"1.resid_out": see}):
        assert len(list(site_values(model.transformer, ["1.mlp.resid_delta"], batches()))) == 3
        assert not reached
        list(site_values(model.transformer, ["1.mlp.resid_delta", "2.resid_in"], batches()))
        assert len(reached) == 3
    assert not any(site.edits for site in model.transformer.sites.values())


def test_one_batch_is_drawn_at_a_time(model: Model) -> None:
    def endless():
        while True:
            yield batches()[0]

    assert next(site_values(model.transformer, ["0.mlp.post_act"], endless()))[0].shape == (2, 20)


def test_an_unknown_site_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match=r"no site '1.mlp.resid_dleta' .* '1.mlp.resid_delta'"):
        next(site_values(model.transformer, ["1.mlp.resid_dleta"], iter([])))


def test_the_default_site_is_the_papers_at_its_depth() -> None:
    names = {n: default_site(ModelConfig(n_layer=n)) for n in (1, 2, 4, 8, 12)}
    assert {n: int(name.split(".")[0]) for n, name in names.items()} == {
        1: 0, 2: 1, 4: 3, 8: 6, 12: 9
    }  # fmt: skip
    assert names[8] == "6.mlp.resid_delta"


def test_an_edit_may_begin_after_the_first_tokens() -> None:
    x = torch.arange(12.0).reshape(1, 4, 3) + 1
    out = from_position(2, torch.zeros_like)(x)
    assert torch.equal(out[:, :2], x[:, :2])
    assert not out[:, 2:].any()
    assert from_position(0, torch.zeros_like) is torch.zeros_like
