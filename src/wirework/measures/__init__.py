"""Numbers about a model; nothing here trains the model that it measures."""

from wirework.measures.explain import Explanations as Explanations
from wirework.measures.explain import explain_neurons as explain_neurons
