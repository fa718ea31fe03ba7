"""Neuron explanations, in words or patterns, and their scores (Bills et al. 2023).

`collect.py` streams text through the model once. An explainer (`explainers.py`) explains each
neuron from excerpts of training text and predicts its activations on held-out excerpts: with token
patterns (`patterns.py`, `learn.py`) or with a language model (`prompts.py`, `openai_client.py`).
`score.py` compares predicted and true activations.
"""

from wirework.measures.explain.explain_run import estimate_cost as estimate_cost
from wirework.measures.explain.explain_run import explain_neurons as explain_neurons
from wirework.measures.explain.explanations import ExplainReport as ExplainReport
from wirework.measures.explain.explanations import Explanations as Explanations
from wirework.measures.explain.node_patterns import node_patterns as node_patterns
