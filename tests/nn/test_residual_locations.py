"""Streams of the residual locations, and runs that start from them."""

import pytest
import torch
from transformer_variants import SMALL, VARIANTS, build

from wirework.nn import Transformer
from wirework.nn.residual_locations import (
    location_names,
    location_sites,
    record_streams,
    recorded_streams,
    run_from,
)

TOKENS = torch.randint(SMALL["vocab_size"], (3, 9), generator=torch.Generator().manual_seed(0))
N_LOCATIONS = 2 * SMALL["n_layer"] + 1


def slow_run_from(transformer: Transformer, location: int, stream: torch.Tensor) -> torch.Tensor:
    """Return the logits of a whole pass in which the stream at a location is replaced."""
    site = location_sites(transformer.config.n_layer)[location]
    with transformer.edited({site: lambda x: stream.expand_as(x)}):
        logits: torch.Tensor = transformer(TOKENS)
    return logits


def test_names_in_the_order_of_the_pass():
    assert location_names(2) == ["0.attn", "0.mlp", "1.attn", "1.mlp", "unembed"]


class TestRecordStreams:
    def test_streams_add_up(self):
        transformer = build("dense")
        with transformer.recorded(["0.attn.resid_delta", "0.mlp.resid_delta"]) as deltas:
            state, streams = record_streams(transformer, TOKENS)
        assert torch.equal(streams[0], transformer.embed(TOKENS))
        assert torch.equal(streams[1], streams[0] + deltas["0.attn.resid_delta"])
        assert torch.equal(streams[2], streams[1] + deltas["0.mlp.resid_delta"])
        assert torch.equal(transformer.norm(streams[-1]), state)

    def test_the_list_is_filled_by_the_callers_pass(self):
        transformer = build("default")
        with recorded_streams(transformer) as streams:
            transformer(TOKENS)
        assert [stream.shape for stream in streams] == [(3, 9, 16)] * N_LOCATIONS


@pytest.mark.parametrize("variant", VARIANTS)
class TestRunFrom:
    def test_from_its_own_streams_it_ends_bitwise_the_same(self, variant: str):
        transformer = build(variant)
        state, streams = record_streams(transformer, TOKENS)
        for location, stream in enumerate(streams):
            assert torch.equal(run_from(transformer, {location: stream}, TOKENS)[0], state)

    def test_runs_in_one_batch_are_those_of_replaced_streams(self, variant: str):
        transformer = build(variant)
        starts = {location: torch.randn(3, 9, 16) for location in (0, 1, 3, 4)}
        states = run_from(transformer, starts, TOKENS)
        assert states.shape == (4, 3, 9, 16)
        for state, (location, stream) in zip(states, starts.items(), strict=True):
            expected = slow_run_from(transformer, location, stream)
            torch.testing.assert_close(transformer.logits_of(state, TOKENS), expected)


def test_edits_act_on_later_sites_only():
    transformer = build("default")
    seen = []

    def edit(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x

    starts = {0: torch.randn(3, 9, 16), 2: torch.randn(3, 9, 16)}
    with transformer.edited({"0.resid_in": edit, "1.resid_in": edit, "final_resid": edit}):
        run_from(transformer, starts, TOKENS)
    assert seen == [3, 6]
