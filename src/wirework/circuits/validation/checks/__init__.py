"""Checks of a circuit, one file per check: pure functions of a masked model and a task."""

from wirework.circuits.masking.masked_circuit import Gated, MaskedCircuit
from wirework.circuits.validation.checks.adversarial_ablation import (
    AdversarialAblation,
    adversarial_ablation,
)
from wirework.circuits.validation.checks.agreement import (
    Agreement,
    HeadAgreement,
    agreement,
    last_pattern,
)
from wirework.circuits.validation.checks.binarise import Binarised, binarise
from wirework.circuits.validation.checks.coverage import Coverage, coverage
from wirework.circuits.validation.checks.hypothesis_tests import (
    Equivalence,
    Independence,
    MinimalityTest,
    equivalence_test,
    independence_test,
    minimality_test,
    pair_logit_diffs,
)
from wirework.circuits.validation.checks.interchange import Interchange, interchange
from wirework.circuits.validation.checks.minimality import Minimality, minimality, without_each
from wirework.circuits.validation.checks.necessity import (
    Necessity,
    changed_by_ablation,
    necessity,
)
from wirework.circuits.validation.checks.random_inflation import (
    random_effects,
    random_paths,
    random_units,
    unit_effects,
)
from wirework.circuits.validation.checks.resample import (
    Draws,
    constant_resample_ablation,
    resample_ablation,
)
from wirework.renamed_names import old_names

__all__ = [
    "AdversarialAblation",
    "Agreement",
    "Binarised",
    "Coverage",
    "Draws",
    "Equivalence",
    "Gated",
    "HeadAgreement",
    "Independence",
    "Interchange",
    "MaskedCircuit",
    "Minimality",
    "MinimalityTest",
    "Necessity",
    "adversarial_ablation",
    "agreement",
    "binarise",
    "changed_by_ablation",
    "constant_resample_ablation",
    "coverage",
    "equivalence_test",
    "independence_test",
    "interchange",
    "last_pattern",
    "minimality",
    "minimality_test",
    "necessity",
    "pair_logit_diffs",
    "random_effects",
    "random_paths",
    "random_units",
    "resample_ablation",
    "unit_effects",
    "without_each",
]

__getattr__ = old_names(__name__, pair_scores="pair_logit_diffs")
