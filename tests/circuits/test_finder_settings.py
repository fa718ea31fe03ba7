"""All finders take `(model, task, config=None, **overrides)`."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_world import QUICK

import wirework as ww
from wirework.errors import InputError

GOLDEN = Path(__file__).parents[1] / "golden"
WHERE = (GOLDEN / "model", GOLDEN / "quotes.jsonl")
FINDERS: dict[str, Callable[..., Any]] = {
    "prune": ww.prune, "acdc": ww.acdc, "acdc_sweep": ww.acdc_sweep,
    "attribute": ww.attribute, "edge_attribution": ww.edge_attribution,
}  # fmt: skip


class TestEveryFinder:
    @pytest.mark.parametrize("name", FINDERS)
    def test_a_finder_begins_with_model_task_and_config_and_takes_overrides(self, name: str):
        parameters = list(inspect.signature(FINDERS[name]).parameters.values())
        assert [one.name for one in parameters[:3]] == ["model", "task", "config"]
        assert parameters[2].default is None
        assert parameters[-1].kind is inspect.Parameter.VAR_KEYWORD

    @pytest.mark.parametrize("name", FINDERS)
    def test_an_unknown_override_is_refused(self, name: str):
        with pytest.raises(InputError, match=r"sed.*did you mean 'seed'"):
            FINDERS[name](*WHERE, sed=1)

    @pytest.mark.parametrize("name", FINDERS)
    def test_settings_of_another_finder_are_refused(self, name: str):
        wrong: Any = ww.SaeConfig()
        with pytest.raises(InputError, match=r"config must be of (PruneConfig|AcdcConfig)"):
            FINDERS[name](*WHERE, wrong)

    @pytest.mark.parametrize(
        "name_and_setting",
        [("edge_attribution", {"tau": 0.1}), ("edge_attribution", {"keep_unreachable": True}),
         ("attribute", {"steps": 3})],
    )  # fmt: skip
    def test_a_setting_without_effect_is_refused(
        self, name_and_setting: tuple[str, dict[str, Any]]
    ):
        name, setting = name_and_setting
        with pytest.raises(InputError, match="settings that count here are"):
            FINDERS[name](*WHERE, **setting)


class TestAcdcSettings:
    def test_acdc_finds_the_same_by_config_by_keyword_and_by_tau_alone(self):
        config = ww.AcdcConfig(tau=(0.02,), pairs=4, seed=3)
        by_config = ww.acdc(*WHERE, config, progress=False)
        by_keyword = ww.acdc(*WHERE, tau=0.02, pairs=4, seed=3, progress=False)
        by_tau = ww.acdc(*WHERE, 0.02, pairs=4, seed=3, progress=False)
        (by_sweep,) = ww.acdc_sweep(*WHERE, tau=(0.02,), pairs=4, seed=3, progress=False)
        assert by_config.document == by_keyword.document == by_tau.document == by_sweep.document

    def test_an_override_wins_over_the_config(self):
        config = ww.AcdcConfig(tau=(9.0,), pairs=4)
        circuit = ww.acdc(*WHERE, config, tau=0.02, progress=False)
        assert circuit.document.provenance.settings["tau"] == 0.02
        assert circuit.document.task.n_pairs == 4

    def test_acdc_takes_one_tau(self):
        with pytest.raises(InputError, match=r"acdc takes one tau.*acdc_sweep"):
            ww.acdc(*WHERE, ww.AcdcConfig(tau=(0.1, 0.2)), progress=False)


def test_edge_attribution_takes_the_metric_of_its_config():
    by_config = ww.edge_attribution(*WHERE, ww.AcdcConfig(metric="task_loss", pairs=4))
    by_keyword = ww.edge_attribution(*WHERE, metric="task_loss", pairs=4)
    assert by_config.settings == by_keyword.settings
    assert by_config.scores.equal(by_keyword.scores)
    assert ww.edge_attribution(*WHERE, pairs=4).settings["metric"] == "logit_difference"


def test_attribute_takes_the_score_of_its_config(wired: ww.Model, corpus: Any, task: ww.Task):
    config = ww.PruneConfig(finder="random", seed=2)
    by_config = ww.attribute(wired, task, config, data=corpus)
    by_name = ww.attribute(wired, task, "random", seed=2, data=corpus)
    assert by_config.method == by_name.method == "random"
    assert by_config.top(5) == by_name.top(5)
    assert ww.attribute(wired, task, data=corpus).method == "attribution"


def test_prune_takes_any_setting_by_name(wired: ww.Model, corpus: Any, task: ww.Task):
    by_name = ww.prune(wired, task, QUICK, data=corpus, finder="random", progress=False)
    config = QUICK.model_copy(update={"finder": "random"})
    by_config = ww.prune(wired, task, config, data=corpus, progress=False)
    assert by_name.document == by_config.document
