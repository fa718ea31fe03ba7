"""What a number means and which values are good, for the tables that commands print."""

_MEANINGS = {
    # losses of a task
    "model": "whole model; lower is better",
    "circuit": "circuit alone; lower is better",
    "circuit_calibrated": "answers rescaled to fit; lower is better",
    "circuit_error": "standard error over pairs",
    "circuit_held_out": "circuit on held-out pairs; lower is better",
    "circuit_means_error": "standard error over samples of the means",
    "circuit_searched": "with the means that the search used",
    "without_circuit": "circuit removed; above chance is good",
    "chance": "a guess, ln 2",
    "target_loss": "the circuit must be at or below",
    "loss_reduction": "over the two prompts of a pair",
    "reached": "True: the circuit reaches the target",
    "task_accuracy": "1.00 = always right, 0.50 = chance",
    "task_loss_model": "task loss of the whole model; lower is better",
    "task_loss_circuit": "task loss of the circuit; lower is better; chance 0.693",
    "task_loss_without_circuit": "task loss without the circuit; above 0.693 it is necessary",
    # sizes
    "n_nodes": "fewer is better",
    "n_edges": "nonzero weights between the nodes; fewer is better",
    "n_kept_edges": "those of them that the circuit keeps; fewer is better",
    "paper_edges": "edges at plain bisection, as the paper counts; fewer is better",
    "paper_nodes": "nodes at plain bisection",
    "task_loss_calibrated": "the same with scale and shift fitted",
    "held_out_loss": "the same on held-out pairs",
    "held_out_loss_calibrated": "the same with scale and shift fitted on the judging pairs",
    "n_io_edges": "entries of embedding and unembedding",
    "n_embedding_edges": "token groups times channels that it reads; fewer is better",
    "n_token_groups": "token groups that it reads; fewer is better",
    "n_pairs": "pairs measured on",
    # training
    "val_loss": "nats per token on held-out text; lower is better",
    "dense_val_loss": "the same of the dense model",
    "bigram_val_loss": "the same of the bigram table alone; models should be below",
    "log_kurtosis": "log of the mean over channels, final residual stream; 1.10 = normal",
    "kurtosis": "the same pooled over channels, without the log; 3 = normal",
    "val_loss_ablated": "the same of the ablated stream",
    "val_loss_reconstruction": "squared difference of the two streams; 0 = they are the same",
    "tokens": "tokens trained on",
    "dead_neurons": "neurons that are zero at every token; 0 is best",
    "nonzero_fraction": "share of weights that are not zero; lower is sparser",
    "negligible_fraction": "share of these that are too small to do anything; 0 is best",
    # checks of a circuit
    "same": "values of the same answer; low is good",
    "mixed": "each node of another prompt; low is good",
    "other": "values of the other answer; high is good",
    "kl": "nats; 0 = the same predictions",
    "top1": "same most likely token; 1.00 = always",
    "attention": "0 = the same attention, 1 = disjoint",
    "n_touching": "weights that touch its nodes",
    "share": "share of these in the circuit; 1.00 = all",
    "resample": "other nodes at random text, new at each token; lower is better",
    "stochastic": "other nodes at one random token; lower is better",
    "adversarial": "the same, worst draw; lower is better",
    "means": "other nodes at their means; lower is better",
    "worst_draw": "at one random token of text, worst draw; lower is better",
    "per_node": "at the worst values found, one per node; lower is better",
    "per_prompt": "the same, one per node and prompt; lower is better",
    "limit": "the circuit survives at or below",
    "survives": "True: at or below the limit with all values found",
    "survived_share": "largest share of the range that it survives; higher is better",
    "n_draws": "draws of which the worst counts",
    "train_loss": "the same on training pairs",
    "n_train_pairs": "pairs that the two values are trained on",
    "median_error": "standard error of a mean / spread of its node; near 0 is good",
    "largest_error": "the same, the worst node",
    "n_same": "prompts for `same` and `mixed`",
    "n_other": "prompts for `other`",
    # pair of models that a study compares
    "apart": "difference of the held-out losses, as a share; near 0 is comparable",
    "ratio": "edges of the dense circuits / the sparse; above 1 the sparse are smaller",
    # path edges
    "n_path_edges": "fewer is better",
    "of": "all path edges of the model",
    "n_unreachable": "edges left out because they change nothing",
    "logit_difference": "right minus wrong answer; above 0 is right",
    "accuracy": "1.00 = always right, 0.50 = chance",
    "task_loss": "lower is better; chance 0.693",
    "model_logit_difference": "the same of the whole model",
    "model_accuracy": "the same of the whole model",
    "completeness": "share of the metric's difference that all scores explain; 1.00 is best",
    # autoencoders
    "sae_l0": "features on per token; lower is sparser",
    "ce_score": "share of the loss that the autoencoder wins back; 1.00 is best",
    "ce_clean": "nats per token, whole model",
    "ce_zeroed": "nats per token with the site at zero",
    "ce_spliced": "nats per token with the autoencoder in place; near ce_clean is good",
    "explained_variance": "1.00 = exact, 0 = no better than the mean",
    "mse": "lower is better",
    "dead_features": "features that are never on; 0 is best",
    "outlier_share": "share of tokens with extreme values; 0 is best",
    "n_tokens": "tokens measured on",
    "without_outliers": "the same without tokens of extreme values",
    # measures
    "perplexity": "lower is better; 1 = certain of every token",
    "path_edges": "path edges that the task needs; fewer is better",
    "explanation_score": "correlation of predicted and true activations; 1.00 is best",
    "mean_abs_weight": "mean magnitude of a weight",
    "mean_abs_weight_embedded": "the same with embeddings",
    "weight_l0": "nonzero weights; fewer is sparser",
    "gate_live_fraction": "share of gated units that are on per token; lower is sparser",
    "dead_units": "units that are never on; 0 is best",
    # explanations
    "requests": "answers in the cache are not deducted",
    "tokens_in": "tokens of all prompts, a rough count",
    "tokens_out": "tokens of all answers, a rough count",
    "price": "in the currency of the prices given",
    "explained": "neurons with an explanation",
    "dead": "neurons that are never active",
    "failed": "neurons without an answer of the explainer; 0 is best",
    "constant": "explanations that predict the same everywhere; 0 is best",
    "undefined": "neurons without a score, as they do the same everywhere",
}

_SCORES = {
    "top_and_random": "correlation on active and random excerpts; 1.00 is best, 0 is chance",
    "top": "the same on active excerpts alone",
    "random": "the same on random excerpts alone",
    "balanced_accuracy": "1.00 = always right, 0.50 = chance",
    "precision": "share of predicted activity that is real; 1.00 is best",
    "recall": "share of real activity that is predicted; 1.00 is best",
    "f1": "1.00 is best",
    "auroc": "1.00 is best, 0.50 = chance",
}


def meaning(name: str) -> str:
    """Return the meaning of a number and its good values; empty if the name is enough.

    Args:
        name: name of the number; of a dotted name or `part: name` the last word counts.
    """
    return _MEANINGS.get(name.rpartition(":")[2].rpartition(".")[2].strip(), "")


def score_meaning(name: str) -> str:
    """Return the meaning and good values of an explanation score; empty for unknown names."""
    return _SCORES.get(name, "")
