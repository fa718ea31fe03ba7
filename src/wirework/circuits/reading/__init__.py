"""A circuit in words: what its nodes tell apart, and experiments that back each sentence."""

from wirework.circuits.reading.explain_circuit import CircuitExplanation, explain_circuit

__all__ = ["CircuitExplanation", "explain_circuit"]
