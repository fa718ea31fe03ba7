"""Learned pruning: masks, hyperparameter search, discretisation, greedy removal, merging."""
