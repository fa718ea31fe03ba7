"""The grid and the settings of its points; nothing is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wirework.config import FrontierConfig, ModelConfig, TrainConfig
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.studies import FrontierPoint, grid, settings_of
from wirework.studies.attainable import check_attainable, least_l0, weights_kept
from wirework.studies.multiply_adds import training_multiply_adds
from wirework.studies.points import check_vocabulary, portable

RECIPE = Path(__file__).parents[2] / "recipes" / "frontier.yaml"
Study = Callable[..., FrontierConfig]


class TestGrid:
    def test_a_grid_is_every_combination_once(self, study: Study):
        points = grid(
            study(
                widths=[16, 32],
                l0_counts=[900, 1800],
                act_fractions=[0.5, 1.0],
                dense_widths=[16, 16],
                dense_steps=[3, 6],
            )
        )
        assert [point.kind for point in points] == ["sparse"] * 8 + ["dense"] * 2
        names = [point.name for point in points]
        assert len(set(names)) == 10
        assert {"sparse-w32-l1800-a0.5", "dense-w16-s3-seed0"} <= set(names)

    def test_an_empty_grid_is_refused(self, study: Study):
        with pytest.raises(InputError, match="the grid is empty: give widths"):
            grid(study(l0_counts=[], dense_widths=[]))


def test_a_sparse_model_with_another_seed_has_a_name_of_its_own():
    point = FrontierPoint(16, 3, 0, 900, 0.5)
    assert point.with_seed(0) == point
    assert point.with_seed(7).name == "sparse-w16-l900-a0.5-seed7"


def test_the_old_name_of_with_seed_works_and_warns(capsys: pytest.CaptureFixture[str]):
    point = FrontierPoint(16, 3, 0)
    assert point.twin(7) == point.with_seed(7) == FrontierPoint(16, 3, 7)  # type: ignore[attr-defined]
    assert "FrontierPoint.twin is called with_seed now" in capsys.readouterr().err


class TestSettingsOf:
    def test_equal_l0_is_the_same_number_of_weights_at_every_width(
        self, study: Study, tmp_path: Path
    ):
        config = study()
        for width in (16, 32, 64):
            made = settings_of(FrontierPoint(width, 6, 0, 4000, 0.5), config, tmp_path)
            weights = sum(entry.parameter.numel() for entry in Transformer(made.model).prunable())
            assert made.weight_sparsity is not None
            assert made.weight_sparsity.l0_fraction * weights == pytest.approx(4000)
            assert (made.weight_sparsity.floor, made.weight_sparsity.anneal_end) == (1, 0.5)
            assert made.model.d_mlp == 4 * width
            assert made.model.n_head == width // 16
            assert made.runs == tmp_path / "cells" / f"sparse-w{width}-l4000-a0.5"

    @pytest.mark.parametrize("size", [512, 8192])
    def test_l0_counts_the_weights_of_the_vocabulary_that_only_the_data_sets(
        self, size: int, tmp_path: Path
    ):
        train = {"model": {"n_layer": 2}, "data": {"corpus": "python", "vocab_size": size}}
        config = FrontierConfig.of({"widths": [64], "l0_counts": [20000], "train": train})
        (point,) = grid(config)
        made = settings_of(point, config, tmp_path)
        weights = sum(entry.parameter.numel() for entry in Transformer(made.model).prunable())
        assert made.model.vocab_size == size
        assert made.weight_sparsity is not None
        assert made.weight_sparsity.l0_fraction * weights == pytest.approx(20000)

    def test_a_tokeniser_of_another_size_is_refused(self):
        config = FrontierConfig.of({"widths": [64], "l0_counts": [20000]})
        check_vocabulary(grid(config), config, 2048)
        with pytest.raises(
            InputError, match=r"has 700 tokens.* set train\.model\.vocab_size to 700"
        ):
            check_vocabulary(grid(config), config, 700)
        dense = FrontierConfig.of({"dense_widths": [64]})
        check_vocabulary(grid(dense), dense, 700)

    def test_a_dense_point_has_no_sparsity_and_a_lower_rate(self, study: Study, tmp_path: Path):
        config = study(dense_lr=0.5)
        made = settings_of(FrontierPoint(16, 3, 7), config, tmp_path)
        assert made.weight_sparsity is None
        assert made.model.act_fraction is None
        assert (made.steps, made.seed, made.model.n_layer) == (3, 7, 1)
        assert made.optimizer.lr == 0.5 * config.train.optimizer.lr
        assert settings_of(FrontierPoint(16, 3, 7), config, tmp_path, lr=0.2).optimizer.lr == 0.1

    def test_more_nonzeros_than_weights_are_refused(self, study: Study, tmp_path: Path):
        with pytest.raises(InputError, match=r"99999 nonzero weights were asked for, .* has 16016"):
            settings_of(FrontierPoint(16, 6, 0, 99999, 0.5), study(), tmp_path)


class TestAttainable:
    # Width 16, one layer, one head of 16, d_mlp 64, 8 tokens: matrices of 768 (attention, 48
    # channels of 16 entries), 256 (16), 1,024 (64) and 1,024 (64), embeddings of 128 and 128,
    # biases of 48, 16, 64 and 16: 3,472 entries. A floor of 4 keeps a quarter of each matrix.
    SHAPE = ModelConfig(n_layer=1, d_model=16, vocab_size=8)

    def test_the_least_l0_is_the_largest_share_of_a_floor_times_all_entries(self):
        assert least_l0(self.SHAPE, 4) == 3472 // 4
        assert least_l0(self.SHAPE, 0) == 0

    def test_below_it_the_floor_keeps_more_than_was_asked(self):
        assert weights_kept(self.SHAPE, 3472 // 4, 4) == weights_kept(self.SHAPE, 3472 // 4, 0)
        # An eighth of each embedding and bias, 16 + 16 + 6 + 2 + 8 + 2, and a quarter of 3,072.
        assert weights_kept(self.SHAPE, 3472 // 8, 4) == 50 + 768
        assert weights_kept(self.SHAPE, 3472 // 8, 0) == 50 + 384


class TestMultiplyAdds:
    def config(self, **changes: Any) -> TrainConfig:
        return TrainConfig.of({"steps": 2, "batch_size": 3, "model": {"n_ctx": 5}, **changes})

    def test_a_dense_step_is_three_products_and_attention_over_the_tokens_before(self):
        model = TestAttainable.SHAPE.model_copy(update={"n_ctx": 5})
        # 3,072 entries and the unembedding's 128; queries with keys and weights with values: 2 *
        # 16 * (5 + 1) / 2 a token. All of it three times: forward and both gradients.
        expected = 2 * (3 * 5) * 3 * (3072 + 128 + 16 * 6)
        assert training_multiply_adds(self.config(weight_sparsity=None), model) == expected

    def test_a_sparse_step_multiplies_nonzero_weights_twice_and_all_once(self):
        model = TestAttainable.SHAPE.model_copy(update={"n_ctx": 5})
        sparsity = {"l0_fraction": 0.25, "floor": 0, "anneal_start": 0.0, "anneal_end": 0.5}
        # The first step has all weights, the second a quarter of them.
        expected = (3 * 5) * (3 * 3200 + (2 * 800 + 3200) + 2 * 3 * 16 * 6)
        assert training_multiply_adds(self.config(weight_sparsity=sparsity), model) == expected
        # With live gradients: (1 + 1) * 800 and a tenth of 3,200.
        live = {**sparsity, "gradient": "live", "candidates": 1.0, "dense_every": 10}
        live |= {"live_below": 0.25}
        less = (3 * 5) * (3200 - (2 * 800 + 320))
        got = training_multiply_adds(self.config(weight_sparsity=live), model)
        assert got == pytest.approx(expected - less, abs=3 * 5 * 5)  # whole entries per matrix


def test_portable_settings_hold_no_place(study: Study, tmp_path: Path):
    made = portable(settings_of(FrontierPoint(16, 6, 0), study(), tmp_path))
    assert str(tmp_path) not in str({**made, "data": {**made["data"], "corpus": ""}})


def test_the_shipped_recipe_is_a_possible_grid(tmp_path: Path):
    config = FrontierConfig.load(RECIPE)
    points = grid(config)
    check_attainable(points, config, tmp_path)
    for count in config.l0_counts:
        assert len({point.width for point in points if point.l0_count == count}) >= 4
    assert {point.kind for point in points} == {"sparse", "dense"}
    for point in points:
        settings_of(point, config, tmp_path)
