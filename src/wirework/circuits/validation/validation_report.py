"""What `validate` returns: a dict of all checks, with its verdict at hand."""

from typing import Any

from wirework.circuits.validation.verdict import WORDS
from wirework.summaries import DictReport


class ValidationReport(DictReport):
    """All checks of a circuit by name, and the verdict on them; `validate` says what each is."""

    kind = "ValidationReport"

    @property
    def faithful(self) -> bool | None:
        """Whether the circuit may be called faithful; None where not all was looked at."""
        faithful: bool | None = self["verdict"]["faithful"]
        return faithful

    @property
    def reasons(self) -> tuple[str, ...]:
        """A line for each criterion: those that failed, those not looked at, those met."""
        return tuple(self["verdict"]["reasons"])

    def summary(self) -> dict[str, Any]:
        """Return the verdict, its first reason, the size and the held-out losses in nats."""
        held_out = self["held_out"]
        return {
            "task": self["task"],
            "verdict": WORDS[self.faithful],
            "because": next(iter(self.reasons), None),
            "n_nodes": self["n_nodes"],
            "n_edges": self["n_edges"],
            "target_loss": self["target_loss"],
            "circuit": held_out["circuit"],
            "model": held_out["model"],
            "without_circuit": held_out["without_circuit"],
            "n_held_out_pairs": held_out["n_pairs"],
        }
