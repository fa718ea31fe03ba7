"""The grid and the settings of its points; nothing is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest

from wirework.config import FrontierConfig
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.studies import FrontierPoint, grid, settings_of
from wirework.studies.points import portable

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

    def test_a_dense_point_has_no_sparsity_and_a_lower_rate(self, study: Study, tmp_path: Path):
        config = study(dense_lr=0.5)
        made = settings_of(FrontierPoint(16, 3, 7), config, tmp_path)
        assert made.weight_sparsity is None
        assert made.model.act_fraction is None
        assert (made.steps, made.seed, made.model.n_layer) == (3, 7, 1)
        assert made.optimizer.lr == 0.5 * config.train.optimizer.lr

    def test_more_nonzeros_than_weights_are_refused(self, study: Study, tmp_path: Path):
        with pytest.raises(InputError, match=r"99999 nonzero weights were asked for, .* has 16016"):
            settings_of(FrontierPoint(16, 6, 0, 99999, 0.5), study(), tmp_path)


def test_portable_settings_hold_no_place(study: Study, tmp_path: Path):
    made = portable(settings_of(FrontierPoint(16, 6, 0), study(), tmp_path))
    assert str(tmp_path) not in str({**made, "data": {**made["data"], "corpus": ""}})


def test_the_shipped_recipe_is_a_possible_grid(tmp_path: Path):
    config = FrontierConfig.load(RECIPE)
    points = grid(config)
    assert {point.kind for point in points} == {"sparse", "dense"}
    for point in points:
        settings_of(point, config, tmp_path)
