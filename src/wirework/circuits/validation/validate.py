"""Validate a circuit: checks, controls and a verdict in one report.

`validate` reads from top to bottom: build a `ValidationContext`, run the checks of `check_circuit`
and the controls on it, and judge them. The pure functions behind the checks are in `checks/`, one
file each. A short report takes seconds. A full report repeats the circuit's search on controls.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import torch

from wirework.circuits.calibration import Calibration, calibrated_loss
from wirework.circuits.circuit import Circuit, tokenize_task
from wirework.circuits.held_out import pairs_of
from wirework.circuits.loading import load_inputs
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.masking.activation_cache import activation_cache_of_search
from wirework.circuits.masking.training_text import training_text_of
from wirework.circuits.node_assembly import circuit_losses, pair_error
from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.pruning.feasibility import without_feasibility_checks
from wirework.circuits.pruning.prune import PruningRun
from wirework.circuits.validation import checks
from wirework.circuits.validation.bars import loss_limit, reaches
from wirework.circuits.validation.context import COSTLY_CHECK_PAIRS, ValidationContext
from wirework.circuits.validation.controls import random_control, shuffled
from wirework.circuits.validation.random_labels import random_labels
from wirework.circuits.validation.stability import Stability, stability
from wirework.circuits.validation.validation_report import (
    CircuitChecks,
    CircuitMeans,
    Controls,
    HypothesisTests,
    PairLosses,
    Resampled,
    SearchedControl,
    ValidationReport,
)
from wirework.circuits.validation.verdict import verdict
from wirework.config import PruneConfig
from wirework.console import Progress
from wirework.errors import InputError, number_of
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.summaries import NotMeasured
from wirework.tasks import Task, TokenizedPairs, load_task, rephrased, tokenizer_of
from wirework.tasks.task_loss import chance_loss
from wirework.tasks.task_split import MIN_TEMPLATES

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_CHECKS = 0.3  # time of all checks of the circuit itself, as a fraction of one search
_MASKS = 256  # masks per call of the order of the necessity curve
_SEARCHED_CONTROLS = 2  # random labels and shuffled weights

_Result = TypeVar("_Result")


@unchanged_weights()
def validate(
    circuit: Circuit | str | Path,
    model: "Model | str | Path | None" = None,
    task: Task | str | Path | None = None,
    *,
    own_task: Task | str | Path | None = None,
    data: "Tokens | None" = None,
    short: bool = False,
    verdict_only: bool = False,
    runs: int = 0,
    progress: bool | None = True,
) -> ValidationReport:
    """Validate a circuit on held-out pairs, with further checks and controls.

    Args:
        circuit: the circuit; a path is loaded.
        model: its model; a path is loaded; None to load it from the path saved in the circuit.
        task: a task, or what `ww.task` takes; None for the task of the search. Pairs of another
            task that share a prompt with a training or judging pair are dropped. Required for a
            task of a user's function, because code that only a file names is not run.
        own_task: the task of the search, if a user's function generates it and `task` has other
            pairs.
        data: training text, for resampled activations and controls; None for the text of the
            model's run. Without text, the entries that need it give a `reason`.
        short: only checks that take seconds: no adversarial ablation, binarisation, minimality,
            necessity curve, hypothesis tests or searched controls.
        verdict_only: only what the verdict needs: the short report, minimality and the searched
            controls; not with `short`.
        runs: repetitions of the search, to measure the stability of each edge; not with `short`.
        progress: show progress on standard error; None: as the caller does.

    Returns:
        The report: size, checks, controls and verdict. An entry that cannot be computed is a
        `NotMeasured` with a `reason`.

    Raises:
        InputError: the circuit is of another model, the task does not fit it, no pair is held out,
            the pairs of the search cannot be determined, `runs` is below 0 or given with `short`,
            `verdict_only` is given with `short`, or there is no text for the runs.

    Source: Gao et al. 2025, sec. 2.2, Fig. 32, App. C, App. E; Shi et al. 2024 (arXiv 2410.13032).
    """
    if runs < 0:
        raise InputError(f"runs must be 0 or more, got {runs}")
    if short and runs:
        raise InputError(
            f"the short report makes no searches: leave out short or the {number_of(runs, 'run')}"
        )
    if verdict_only and short:
        raise InputError("the short report has no verdict on all levels: leave one of the two out")
    circuit, model, task = load_inputs(circuit, model, task)
    own = None if own_task is None else load_task(own_task)
    data = training_text_of(model, data) if runs else data  # fails before the long part
    pairs = pairs_of(circuit.document, model, task, own)
    context = ValidationContext.of(circuit, model, pairs, data)
    name, target = (task or pairs.full_task).name, circuit.document.target_loss
    searches = runs + (0 if short else _SEARCHED_CONTROLS)
    with Progress(f"validate {name}", _CHECKS + searches, shown=progress) as bar:
        results = check_circuit(context, short=short or verdict_only)
        if verdict_only:
            results = replace(results, minimality=or_reason(lambda: losses_without_each(context)))
        controls = Controls(random_circuits=random_control(context))
        bar.advance(_CHECKS)
        repeated = or_reason(lambda: repeat_search(context, runs)) if runs else None
        if not short:
            controls = searched_controls(context, controls)
    embedding = circuit.embedding_sizes()
    judged = verdict(
        results, controls, target_loss=target, n_nodes=circuit.n_nodes, full_validation=not short
    )
    return ValidationReport(
        task=name,
        target_loss=target,
        loss_reduction=circuit.loss_reduction,
        n_nodes=circuit.n_nodes,
        n_edges=context.n_edges,
        n_kept_edges=circuit.n_kept_edges,
        n_embedding_edges=embedding.get("n_embedding_edges"),
        n_token_groups=embedding.get("n_token_groups"),
        **vars(results),
        means=precision_of_means(circuit),
        stability=repeated,
        controls=controls,
        verdict=judged,
    )


def check_circuit(context: ValidationContext, *, short: bool) -> CircuitChecks:
    """Run all checks of one circuit, in the order of the report.

    Args:
        context: the circuit on its model.
        short: leave out the last five, which take longer than seconds.
    """
    masked_circuit, few = context.masked_circuit, context.first_held_out()
    return CircuitChecks(
        judged=None if context.judged is None else losses_on(context, context.judged),
        held_out=losses_on(context, context.held_out),
        held_out_templates=or_reason(lambda: losses_on_held_out_templates(context)),
        rephrased=or_reason(lambda: rephrased_losses(context)),
        resampled=or_reason(lambda: resampled_losses(context)),
        interchange=checks.interchange(masked_circuit, few),
        agreement=checks.agreement(masked_circuit, few),
        coverage=checks.coverage(
            masked_circuit.transformer, masked_circuit.gates, context.circuit.n_kept_edges
        ),
        adversarial_ablation=None if short else or_reason(lambda: adversarial_losses(context)),
        binarised=None if short else or_reason(lambda: binarised_losses(context)),
        minimality=None if short else or_reason(lambda: losses_without_each(context)),
        necessity=None if short else or_reason(lambda: necessity_curve(context)),
        hypothesis_tests=None if short else or_reason(lambda: hypothesis_tests(context)),
    )


def losses_on(context: ValidationContext, batch: TokenizedPairs) -> PairLosses:
    """Return the circuit's losses on a batch of pairs, and those to compare them with."""
    edge_masks, gates = context.edge_masks, context.gates
    calibration = context.circuit.document.calibration
    logit_diffs = edge_masks.all_logit_diffs(gates[None], batch)[0]
    return PairLosses(
        n_pairs=batch.n_pairs,
        **circuit_losses(edge_masks, gates, batch, logit_diffs),
        circuit_error=pair_error(logit_diffs, edge_masks.loss_reduction),
        circuit_calibrated=None
        if batch is context.judged  # the calibration was fitted on these pairs
        else calibrated_loss(
            logit_diffs,
            Calibration(calibration.scale, calibration.shift),
            edge_masks.loss_reduction,
        ),
    )


def losses_on_held_out_templates(context: ValidationContext) -> PairLosses:
    """Return the losses on the pairs of templates that the search has not seen.

    Raises:
        InputError: there are none.
    """
    pairs = context.pairs
    if pairs.held_out_templates is None:
        if pairs.judge is None:
            raise InputError("the circuit is checked on pairs of another task")
        templates = {pair.template for pair in pairs.full_task.pairs} - {None}
        problem = f"task {pairs.full_task.name} has {number_of(len(templates), 'template')}"
        if len(templates) >= MIN_TEMPLATES:
            raise InputError(f"{problem}, but no pair of some of them can be held out")
        raise InputError(f"{problem}, at least {MIN_TEMPLATES} are needed to hold some out")
    return losses_on(context, tokenize_task(pairs.held_out_templates, context.model))


def rephrased_losses(context: ValidationContext) -> PairLosses:
    """Return the losses on the held-out pairs with other words and names."""
    model = context.model
    task = rephrased(context.pairs.held_out, 0).fitted(tokenizer_of(model), model.config.n_ctx)
    return losses_on(context, tokenize_task(task, model))


def resampled_losses(context: ValidationContext) -> Resampled:
    """Return the losses with activations of training text at the ablated nodes."""
    masked_circuit, few, cache = (
        context.masked_circuit,
        context.first_held_out(),
        context.activation_cache,
    )
    constant = checks.constant_resample_ablation(masked_circuit, few, cache)
    per_token = checks.resample_ablation(masked_circuit, few, cache)
    return Resampled(resample=per_token.mean, stochastic=constant.mean, adversarial=constant.worst)


def adversarial_losses(context: ValidationContext) -> checks.AdversarialAblation:
    """Return the losses when an adversary sets the ablated nodes, on a few held-out pairs."""
    masked_circuit, target = context.masked_circuit, context.circuit.document.target_loss
    return checks.adversarial_ablation(
        masked_circuit,
        context.first_held_out(COSTLY_CHECK_PAIRS // 2),
        context.activation_cache,
        context.edge_masks.ablation.means,
        loss_limit(target, chance_loss(masked_circuit.loss_reduction)),
    )


def binarised_losses(context: ValidationContext) -> checks.Binarised:
    """Train two values per node on the search's training pairs and judge them on held-out pairs."""
    return checks.binarise(context.masked_circuit, context.train, context.held_out)


def precision_of_means(circuit: NodeCircuit) -> CircuitMeans | None:
    """Return the tokens and standard errors of a circuit's means; None if they are not recorded."""
    about = circuit.document.provenance
    n_tokens, median, largest = about.mean_tokens, about.mean_error_median, about.mean_error_largest
    if n_tokens is None or median is None or largest is None:
        return None
    return CircuitMeans(n_tokens, n_tokens < circuit.search_config.mean_tokens, median, largest)


def losses_without_each(context: ValidationContext) -> checks.Minimality:
    """Remove each node and edge alone, in all ablation modes of the search."""
    circuit, config = context.circuit, context.circuit.search_config
    cache = activation_cache_of_search(context.model, context.data, config)
    ablation = replace(
        context.edge_masks.ablation, activation_cache=cache, n_resamples=config.n_resamples
    )
    return checks.minimality(
        replace(context.edge_masks, ablation=ablation).ablation_modes(),
        context.gates,
        context.held_out if context.judged is None else context.judged,
        circuit.document.target_loss,
    )


def necessity_curve(context: ValidationContext) -> checks.Necessity:
    """Ablate the circuit's nodes one after the other in the whole model, on held-out pairs.

    The order is measured on judging pairs, if there are any: nodes whose removal alone raises the
    circuit's loss most come first.

    Raises:
        InputError: the circuit has no nodes.
    """
    edge_masks, gates = context.edge_masks, context.gates
    if edge_masks.n_nodes == 0:
        raise InputError("an empty circuit has no node to ablate")
    judged = context.held_out if context.judged is None else context.judged
    ablation, batch = edge_masks.ablation, context.first_held_out()
    nodes = torch.arange(edge_masks.n_nodes)
    alone = [
        edge_masks.losses(checks.without_each(gates, part), judged)
        for part in torch.split(nodes, _MASKS)
    ]
    return checks.necessity(
        ablation,
        edge_masks.node_indices,
        torch.cat(alone),
        checks.changed_by_ablation(ablation, batch),
        batch,
        order="loss of the circuit without this node alone, highest first",
    )


def hypothesis_tests(context: ValidationContext) -> HypothesisTests:
    """Run the three tests of Shi et al. 2024 on the held-out pairs."""
    edge_masks, batch = context.edge_masks, context.held_out
    nodes = context.masked_circuit.gates
    masks = torch.stack([torch.ones_like(nodes), 1 - nodes])
    model, complement = map(
        checks.pair_logit_diffs, edge_masks.ablation.all_logit_diffs(masks, batch)
    )
    circuit = checks.pair_logit_diffs(edge_masks.all_logit_diffs(context.gates[None], batch)[0])
    few = context.first_held_out(COSTLY_CHECK_PAIRS // 2)
    effects = checks.unit_effects(edge_masks.ablation, nodes, few)
    paths = checks.random_paths(edge_masks.transformer, nodes)
    random_effects = checks.random_effects(edge_masks.ablation, nodes, few, paths)
    return HypothesisTests(
        equivalence=checks.equivalence_test(circuit, model),
        independence=checks.independence_test(complement, model),
        minimality=checks.minimality_test(effects, random_effects),
    )


def repeat_search(context: ValidationContext, runs: int) -> Stability:
    """Repeat the search of the circuit on other pairs, seeds and words."""
    circuit, task = context.circuit, context.pairs.full_task
    return stability(circuit, context.model, task, circuit.search_config, context.text, runs)


def searched_controls(context: ValidationContext, controls: Controls) -> Controls:
    """Add the controls that repeat the search of the circuit.

    Raises:
        InputError: the circuit's search settings are not valid.
    """
    config = context.circuit.search_config
    model, task, seed = context.model, context.pairs.full_task, config.seed
    excluded = context.circuit.excluded
    return replace(
        controls,
        random_labels=or_reason(
            lambda: searched_control(
                model,
                random_labels(task, model, seed),
                config,
                context.text,
                _own_baseline(context),
                excluded=excluded,
            )
        ),
        shuffled_weights=or_reason(
            lambda: searched_control(
                shuffled(model, seed), task, config, context.text, excluded=excluded
            )
        ),
    )


def _own_baseline(context: ValidationContext) -> AblationBaseline | None:
    """Return the ablation values of the circuit's search, if they were measured on the same text.

    They are saved beside the model, which is faster than measuring them again.
    """
    source = context.circuit.document.provenance.mean_source
    if context.data is not None or source != "text of the model's run":
        return None
    return AblationBaseline.of(context.model, None, context.circuit.search_config)


def searched_control(
    model: "Model",
    task: Task,
    config: PruneConfig,
    text: "Tokens",
    baseline: AblationBaseline | None = None,
    *,
    excluded: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> SearchedControl:
    """Search for a circuit where there is no mechanism to find, and check it.

    Args:
        model: the model, or one with shuffled weights.
        task: the task, or one with random labels.
        config: settings of the circuit's search.
        text: training text, on which means are measured.
        baseline: ablation values of the search; None to measure them on `text`.
        excluded: site to channels of the nodes that the circuit's search excluded.

    Raises:
        InputError: no search is possible: too few pairs, or a loss that is not a number.
    """
    # A random-label task has at most half of the pairs, which may be fewer than a batch.
    config = without_feasibility_checks(config)
    baseline = baseline or AblationBaseline.of(model, text, config)
    pruning_run = PruningRun.of(model, task, config, baseline).excluding(excluded)
    with Progress(f"control: search on {task.name}", shown=None, part=1.0) as bar:
        circuit = pruning_run.run(bar.update)
    pairs = pairs_of(circuit.document, model, task)
    context = ValidationContext.of(circuit, model, pairs, text)
    results = check_circuit(context, short=True)
    target, n_nodes, losses = circuit.document.target_loss, circuit.n_nodes, results.held_out
    return SearchedControl(
        task=task.name,
        n_nodes=n_nodes,
        n_edges=context.n_edges,
        n_kept_edges=circuit.n_kept_edges,
        reached=reaches(losses.circuit, losses.circuit_error, target, losses.chance),
        **vars(results),
        verdict=verdict(results, Controls(), target_loss=target, n_nodes=n_nodes),
    )


def or_reason(check: Callable[[], _Result]) -> _Result | NotMeasured:
    """Return the result of a check, or the reason why it cannot be computed."""
    try:
        return check()
    except InputError as error:
        return NotMeasured(str(error))


@unchanged_weights()
def held_out_losses(
    circuit: Circuit | str | Path,
    model: "Model | str | Path",
    task: Task | str | Path | None = None,
) -> PairLosses:
    """Return the losses (nats) of a circuit on its held-out pairs, as in `validate`."""
    circuit, model, task = load_inputs(circuit, model, task)
    context = ValidationContext.of(circuit, model, pairs_of(circuit.document, model, task), None)
    return losses_on(context, context.held_out)
