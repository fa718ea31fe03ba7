from typing import Any

from wirework.circuits.pipeline.task_table import judged, levels_met, markdown, with_kept_edges

REPORT: dict[str, Any] = {
    "held_out": {"circuit": 0.1512},
    "held_out_templates": {"circuit": 0.2},
    "rephrased": {"reason": "no other words"},
    "resampled": {"resample": 0.3},
    "controls": {
        "random circuits": {"n": 20, "n_sufficient": 0, "lowest": 0.6},
        "nonsense task": {"reached": True, "n_nodes": 120, "n_edges": 300},
        "shuffled weights": {"reached": False, "n_nodes": 2816, "n_edges": 9},
        "other": {"reason": "too few pairs"},
    },
    "verdict": {"faithful": None, "reasons": []},  # of a version without levels
}


def test_what_a_table_shows_of_a_report() -> None:
    assert judged(REPORT) == {
        "held_out": 0.1512,
        "held_out_templates": 0.2,
        "rephrased": None,
        "resampled": 0.3,
        "controls": "random circuits: 0 of 20 reach the target; random labels: reached with 120 "
        "nodes; shuffled weights: not reached; other: not run",
    }


def test_what_only_a_full_report_has_is_a_column_of_tables_with_one() -> None:
    full = judged({**REPORT, "adversarial_ablation": {"per_node": 1.0, "per_prompt": 2.5}})
    assert full == {**judged(REPORT), "adversarial_ablation": 2.5}
    assert judged({**REPORT, "adversarial_ablation": {"reason": "no text"}}) == {
        **judged(REPORT),
        "adversarial_ablation": None,
    }
    short, row = {"task": "loops", **judged(REPORT)}, {"task": "quotes", **full}
    head, _, *lines = markdown([short, row]).splitlines()
    assert "| resampled | adversary, per prompt | without |" in head
    assert ["| 0.300 |  |  |" in lines[0], "| 0.300 | 2.500 |  |" in lines[1]] == [True, True]
    assert "adversary" not in markdown([short])


def test_each_level_of_the_verdict_is_a_column_of_tables_with_levels() -> None:
    met = {"sufficient": True, "specific": None, "robust": False, "minimal": True}
    levels = {name: {"met": value} for name, value in met.items()}
    row = judged({**REPORT, "verdict": {**REPORT["verdict"], "levels": levels}})
    in_words = {"sufficient": "met", "specific": "open", "robust": "failed", "minimal": "met"}
    assert row == judged(REPORT) | in_words
    assert levels_met(row) == "sufficient, minimal"
    earlier = {"task": "loops", **judged(REPORT), "controls": "none", "verdict": "open"}
    row |= {"task": "quotes", "controls": "none", "verdict": "not faithful"}
    head, _, *lines = markdown([earlier, row]).splitlines()
    assert head.endswith("| controls | sufficient | specific | robust | minimal | verdict |")
    assert lines[0].endswith("| none |  |  |  |  | open |")
    assert lines[1].endswith("| none | met | open | failed | met | not faithful |")
    assert "sufficient" not in markdown([earlier])
    assert levels_met(earlier) == ""
    assert levels_met({"sufficient": "failed"}) == "none"


def test_a_table_of_found_and_passed_over() -> None:
    found = {"task": "quotes", "n_nodes": 12, "n_edges": 9, "n_kept_edges": 7, "model": 0.02}
    found |= {"circuit": 0.15, "paper_nodes": 20, "paper_edges": 40, "paper_loss": 0.149}
    found |= {"without_circuit": 0.9, "verdict": "open", **judged(REPORT), "controls": "none"}
    missed = {"task": "swap", "n_nodes": None, "n_edges": None, "reason": "the model cannot"}
    assert markdown([found, missed]).splitlines() == [
        "| task | nodes | edges | kept edges | model | circuit | held out | held-out templates "
        "| rephrased | resampled | without | paper nodes | paper edges | paper loss "
        "| paper calibrated | paper held out "
        "| paper held out, calibrated | controls | verdict |",
        f"| {' | '.join(['---'] * 19)} |",
        "| quotes | 12 | 9 | 7 | 0.020 | 0.150 | 0.151 | 0.200 |  | 0.300 | 0.900 | 20 | 40 "
        "| 0.149 |  |  |  | none | open |",
        "",
        "- swap: the model cannot",
    ]


def test_rows_of_an_earlier_version_counted_kept_edges() -> None:
    old, new = {"task": "a", "n_edges": 9}, {"task": "b", "n_edges": 9, "n_kept_edges": 7}
    assert with_kept_edges([old, new, {"task": "c", "n_edges": None, "reason": "no"}]) == [
        {"task": "a", "n_edges": None, "n_kept_edges": 9},
        new,
        {"task": "c", "n_edges": None, "n_kept_edges": None, "reason": "no"},
    ]
