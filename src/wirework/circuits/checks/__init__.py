"""Checks of a circuit, one file a check: functions of a circuit in its model and a task."""

from wirework.circuits.checks.agreement import Agreement, HeadAgreement, agreement, last_pattern
from wirework.circuits.checks.binarise import Binarised, binarise
from wirework.circuits.checks.coverage import Coverage, coverage
from wirework.circuits.checks.hypothesis_tests import (
    Equivalence,
    Independence,
    MinimalityTest,
    equivalence_test,
    independence_test,
    minimality_test,
    pair_scores,
)
from wirework.circuits.checks.inflate import (
    random_effects,
    random_paths,
    random_units,
    unit_effects,
)
from wirework.circuits.checks.interchange import Interchange, interchange
from wirework.circuits.checks.minimality import Minimality, minimality
from wirework.circuits.checks.resample import Draws, frozen_ablation, resample_ablation
from wirework.circuits.checks.subject import Gated, Subject

__all__ = [
    "Agreement",
    "Binarised",
    "Coverage",
    "Draws",
    "Equivalence",
    "Gated",
    "HeadAgreement",
    "Independence",
    "Interchange",
    "Minimality",
    "MinimalityTest",
    "Subject",
    "agreement",
    "binarise",
    "coverage",
    "equivalence_test",
    "frozen_ablation",
    "independence_test",
    "interchange",
    "last_pattern",
    "minimality",
    "minimality_test",
    "pair_scores",
    "random_effects",
    "random_paths",
    "random_units",
    "resample_ablation",
    "unit_effects",
]
