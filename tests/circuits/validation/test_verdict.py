"""Criteria and verdict, on hand-made numbers."""

from dataclasses import replace

import pytest

from wirework.circuits.validation.bars import SIZE_MARGIN, loss_limit, reaches
from wirework.circuits.validation.checks import (
    AdversarialAblation,
    Agreement,
    Coverage,
    Interchange,
    Minimality,
)
from wirework.circuits.validation.validation_report import (
    CircuitChecks,
    Controls,
    Levels,
    PairLosses,
    RandomControl,
    Resampled,
    SearchedControl,
    SizeRange,
    Verdict,
)
from wirework.circuits.validation.verdict import verdict
from wirework.summaries import NotMeasured

GOOD = CircuitChecks(
    held_out=PairLosses(
        n_pairs=24,
        model=0.1,
        circuit=0.16,
        without_circuit=2.0,
        chance=0.693,
        circuit_error=0.01,
    ),
    held_out_templates=NotMeasured("one template"),
    rephrased=NotMeasured("not part of the verdict"),
    resampled=Resampled(resample=0.2, stochastic=0.2, adversarial=0.3),
    interchange=Interchange(circuit=0.16, same=0.2, mixed=0.2, other=3.0, n_same=8, n_other=8),
    agreement=Agreement(kl=0.0, top1=1.0, attention=None, heads=()),
    coverage=Coverage(n_edges=5, n_touching=10, share=0.5),
)
SIZE = {"target_loss": 0.15, "n_nodes": 10}
NONE = Controls()


def changed(entry: str, **values: object) -> CircuitChecks:
    return replace(GOOD, **{entry: replace(getattr(GOOD, entry), **values)})


def searched(reached: bool, n_nodes: int) -> SearchedControl:
    checks = changed("held_out", circuit=0.1)
    return SearchedControl(
        task="control",
        n_nodes=n_nodes,
        n_edges=5,
        reached=reached,
        **vars(checks),
        verdict=Verdict(None, ()),
    )


class TestVerdict:
    def test_all_met_is_faithful_and_only_with_controls(self) -> None:
        assert verdict(GOOD, NONE, **SIZE).faithful is True
        short = verdict(GOOD, NONE, **SIZE, full_validation=False)
        assert short.faithful is None
        assert short.reasons[0] == "the same search has not been run on its controls"

    @pytest.mark.parametrize(
        ("part", "change", "words"),
        [
            (
                "held_out",
                {"circuit": 0.18},
                "not sufficient: loss 0.180 +- 0.010 on 24 held-out pairs",
            ),
            ("held_out", {"without_circuit": 0.42}, "not necessary"),
            ("held_out", {"model": 0.5}, "the model does not have the behaviour"),
            ("resampled", {"resample": 0.43}, "does not hold"),
            ("interchange", {"same": 0.5}, "does not carry"),
            ("interchange", {"other": 0.1}, "does not carry"),
        ],
    )
    def test_what_failed_stands_first(
        self, part: str, change: dict[str, float], words: str
    ) -> None:
        failed = verdict(changed(part, **change), NONE, **SIZE)
        assert failed.faithful is False
        assert failed.reasons[0].startswith(words)

    @pytest.mark.parametrize("name", ["random labels", "shuffled weights"])
    def test_a_control_that_gets_there_with_few_nodes_speaks_against_the_circuit(
        self, name: str
    ) -> None:
        def with_control(reached: bool, n_nodes: int) -> Verdict:
            controls = Controls(**{name.replace(" ", "_"): searched(reached, n_nodes)})
            return verdict(GOOD, controls, **SIZE)

        assert SIZE_MARGIN == 3
        failed = with_control(reached=True, n_nodes=29)
        assert failed.faithful is False
        assert failed.reasons[0] == (
            f"{name}: the same search reaches the target too: loss 0.100 with 29 nodes and 5 edges "
            "where the circuit has 10 nodes"
        )
        assert with_control(reached=True, n_nodes=30).faithful is True
        assert with_control(reached=False, n_nodes=2).faithful is True

    def test_random_circuits_must_not_be_sufficient(self) -> None:
        nodes, edges = SizeRange(10, 8, 10), SizeRange(5, 5, 5)
        lucky = RandomControl(
            n=20, nodes=nodes, edges=edges, lowest=0.1, median=2.0, n_sufficient=1
        )
        failed = verdict(GOOD, Controls(random_circuits=lucky), **SIZE)
        assert failed.faithful is False
        assert failed.reasons[0] == (
            "random circuits: 1 of 20 are sufficient too, lowest loss 0.100, with 8 to 10 "
            "(circuit 10) nodes and 5 (circuit 5) kept edges"
        )
        same = verdict(GOOD, Controls(random_circuits=replace(lucky, n_with_needed=1)), **SIZE)
        assert same.faithful is True
        assert any("0 of 20 are sufficient too and 1 with all nodes" in one for one in same.reasons)
        unlucky = replace(lucky, n_sufficient=0)
        assert verdict(GOOD, Controls(random_circuits=unlucky), **SIZE).faithful is True

    def test_what_could_not_be_looked_at_leaves_it_open(self) -> None:
        missing = replace(GOOD, resampled=NotMeasured("no text"))
        controls = Controls(random_labels=NotMeasured("few pairs"))
        left_open = verdict(missing, controls, **SIZE)
        assert left_open.faithful is None
        assert left_open.reasons[:2] == (
            "random labels: not run: few pairs", "not checked under resampling: no text",
        )  # fmt: skip
        failed = replace(missing, interchange=replace(GOOD.interchange, same=2.0))
        assert verdict(failed, NONE, **SIZE).faithful is False
        alone = changed("interchange", same=None, other=None)
        assert verdict(alone, NONE, **SIZE).faithful is None

    def test_an_adversary_is_named_last_and_is_no_criterion(self) -> None:
        broken = AdversarialAblation(
            means=0.16, worst_draw=0.3, per_node=1.2345, per_prompt=2.5, limit=0.4215,
            survives=False, survived_share=0.02, steps=100, n_draws=16, n_pairs=16,
        )  # fmt: skip
        without = verdict(GOOD, NONE, **SIZE)
        judged = verdict(replace(GOOD, adversarial_ablation=broken), NONE, **SIZE)
        assert judged.faithful is True
        *reasons, last = judged.reasons
        assert tuple(reasons) == without.reasons
        assert last == (
            "not a criterion: an adversary that sets ablated nodes within their range on training "
            "text brings the loss to 1.234 with one value per node and to 2.500 with one per node "
            "and prompt; to survive, at most 0.421"
        )
        for entry in (replace(broken, survives=True), NotMeasured("no text"), None):
            assert verdict(replace(GOOD, adversarial_ablation=entry), NONE, **SIZE) == without

    def test_a_single_pair_has_no_standard_error(self) -> None:
        single = changed("held_out", circuit=0.03, circuit_error=0.0, n_pairs=1)
        reasons = verdict(single, NONE, **SIZE).reasons
        words = "0.030 on a single held-out pair, too few for a standard"
        assert any(words in reason for reason in reasons)
        assert not any("+- 0.000" in reason for reason in reasons)

    def test_an_empty_circuit_is_called_so(self) -> None:
        empty = verdict(GOOD, NONE, target_loss=0.15, n_nodes=0)
        assert empty.faithful is None
        assert empty.reasons[0] == "the circuit is empty: the task needs no node"


def test_a_large_error_does_not_make_a_circuit_sufficient() -> None:
    assert reaches(0.165, 0.01, 0.15)
    assert not reaches(0.18, 0.01, 0.15)
    assert not reaches(1.0, 0.5, 0.15)
    assert reaches(0.9, 0.0, 1.0)


def levels_of(checks: CircuitChecks, controls: Controls = NONE, **about: bool) -> Levels:
    levels = verdict(checks, controls, **SIZE, **about).levels
    assert levels is not None
    return levels


def met(levels: Levels) -> list[bool | None]:
    return [getattr(levels, name).met for name in ("sufficient", "specific", "robust", "minimal")]


class TestLevels:
    @pytest.mark.parametrize(
        ("part", "change", "failed"),
        [
            ("held_out", {"circuit": 0.18}, 0),
            ("held_out", {"model": 0.5}, 1),
            ("held_out", {"without_circuit": 0.42}, 1),
            ("resampled", {"resample": 0.43}, 2),
            ("interchange", {"same": 0.5}, 2),
            ("interchange", {"other": 0.1}, 2),
        ],
    )
    def test_a_criterion_decides_one_level(
        self, part: str, change: dict[str, float], failed: int
    ) -> None:
        expected: list[bool | None] = [True, True, True, None]
        assert met(levels_of(GOOD)) == expected
        expected[failed] = False
        assert met(levels_of(changed(part, **change))) == expected

    def test_sufficient_needs_the_held_out_templates_where_there_are_any(self) -> None:
        for loss, is_met in ((0.42, True), (0.43, False)):
            templates = replace(GOOD.held_out, circuit=loss, circuit_error=0.5)
            levels = levels_of(replace(GOOD, held_out_templates=templates))
            assert met(levels)[:2] == [is_met, True]
            last = levels.sufficient.criteria[-1]
            assert (last.name, last.value) == ("held_out_templates", loss)
            assert last.bar == pytest.approx((0.15 + 0.693) / 2)

    def test_a_short_report_is_never_specific_but_can_fail_to_be(self) -> None:
        assert met(levels_of(GOOD, full_validation=False)) == [True, None, True, None]
        lucky = RandomControl(
            n=20, nodes=SizeRange(10, 10, 10), edges=SizeRange(5, 5, 5), lowest=0.1, median=2.0,
            n_sufficient=1,
        )  # fmt: skip
        controls = Controls(random_circuits=lucky)
        assert levels_of(GOOD, controls, full_validation=False).specific.met is False

    @pytest.mark.parametrize(
        ("entry", "is_met", "words"),
        [
            (
                Minimality(0.14, (0.3, 0.2), 0, True),
                True,
                "0 of 2 nodes and edges can each be removed alone",
            ),
            (
                Minimality(0.14, (0.3, 0.1), 1, False),
                False,
                "1 of 2 nodes and edges can each be removed alone",
            ),
            (
                Minimality(0.16, (0.3, 0.2), 0, None),
                None,
                "minimality: the circuit itself misses the target, loss 0.160",
            ),
            (NotMeasured("empty"), None, "minimality: not tested: empty"),
        ],
    )
    def test_minimality_is_a_level_that_faithful_does_not_need(
        self, entry: Minimality | NotMeasured, is_met: bool | None, words: str
    ) -> None:
        judged = verdict(replace(GOOD, minimality=entry), NONE, **SIZE)
        assert judged.faithful is True
        assert judged.levels is not None
        (criterion,) = judged.levels.minimal.criteria
        assert (criterion.met, criterion.words) == (is_met, words)
        assert words not in judged.reasons

    def test_levels_and_calibration_are_json(self) -> None:
        content = verdict(GOOD, NONE, **SIZE).to_dict()
        assert list(content) == ["faithful", "reasons", "levels", "calibration"]
        assert list(content["levels"]) == ["sufficient", "specific", "robust", "minimal"]
        assert content["levels"]["robust"]["criteria"][0] == {
            "name": "resampled",
            "met": True,
            "words": "holds when ablated nodes take values of real text: loss 0.200, at most 0.421",
            "value": 0.2,
            "bar": loss_limit(0.15, 0.693),
        }

    def test_the_bars_are_calibrated(self) -> None:
        calibration = verdict(GOOD, NONE, **SIZE).calibration
        assert calibration is not None
        assert calibration.n_null >= 200
        assert calibration.highest_rate <= 0.025
