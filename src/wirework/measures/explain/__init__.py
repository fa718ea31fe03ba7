"""What neurons look for, in words or patterns, and how well that predicts them (Bills et al. 2023).

Text is streamed through the model once (`collect.py`); an explainer makes an explanation of a
neuron from excerpts of training text and predicts its activations on held-out ones (`patterns.py`
and `learn.py` without a language model, `language_model.py` with one); `score.py` compares.
"""

from wirework.measures.explain.run import Explanations as Explanations
from wirework.measures.explain.run import estimate_cost as estimate_cost
from wirework.measures.explain.run import explain_neurons as explain_neurons
