"""Circuits with and without a mechanism behind them.

| kind | what it is |
|---|---|
| `found` | the search's circuit of a task that the model performs, under mean ablation |
| `found, resampled` | the same, under resample ablation |
| `wired` | the nodes that were wired by hand, with all edges between them |
| `token labels` | search on labels by a token of the prompt, the same on all pairs |
| `name labels` | search on the pairs, answers swapped where a hash of a line of them is odd |
| `shuffled model` | search for the task in the model with shuffled weights |
| `cancelled path` | a wired path whose effect another one cancels: the model does not do the task |
| `unused path` | the same, but the model does the task by a third path |
| `random circuit` | a random connected circuit with the size of a real one |
| `luckiest random circuit` | that of 40 such circuits with the lowest loss on judging pairs |

The first three are real. Each of the others is null: the model does not do what the circuit is said
to do, does it otherwise, or the circuit was not chosen for doing it. Labels follow the same rule on
all pairs, searched or held out. A random circuit with the read, value and write of
the wired path is no random one and is drawn again: its head may attend to the token anyhow.
"""

import hashlib
from typing import NamedTuple

import torch

from benchmarks.blind_test.planted_model import Variant
from benchmarks.blind_test.subjects import Subject
from wirework.circuits import EdgeMasks, FinderResult, NodeCircuit, assemble, prune
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.pruning.feasibility import without_feasibility_checks
from wirework.circuits.validation.controls import shuffled
from wirework.circuits.validation.random_circuits import random_circuits
from wirework.circuits.validation.random_labels import random_labels
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.model import Model
from wirework.tasks import Pair, Task, tokenizer_of
from wirework.tasks.task_split import Parts, parts_of

REAL = ("found", "found, resampled", "wired")
SEARCHED_NULLS = ("token labels", "name labels", "shuffled model")
WIRED_NULLS: dict[str, Variant] = {"cancelled path": "cancelled", "unused path": "unused"}
RANDOM_NULLS = ("random circuit", "luckiest random circuit")
NULLS = (*SEARCHED_NULLS, *WIRED_NULLS, *RANDOM_NULLS)
DRAWS = 40
"""Random circuits of which the luckiest is taken."""

_LINES = 4
"""First lines of a prompt by which answers may be swapped."""


class Specimen(NamedTuple):
    """A circuit, and the model and the pairs that it is said to explain."""

    circuit: NodeCircuit
    model: Model
    task: Task


def specimen(subject: Subject, kind: str, seed: int) -> Specimen:
    """Return a circuit of a kind.

    Args:
        subject: model and task.
        kind: one of `REAL` or `NULLS`; for `WIRED_NULLS` the subject has that variant.
        seed: seed of the search, and of labels, shuffling or draws.
    """
    model, task = subject.model, subject.task
    config = PruneConfig.overridden(subject.search, {"seed": seed})
    if kind == "wired" or kind in WIRED_NULLS:
        return Specimen(_wired(subject, config), model, task)
    if kind in RANDOM_NULLS:
        return Specimen(_random(subject, config, kind == RANDOM_NULLS[1]), model, task)
    if kind == "found, resampled":
        config = PruneConfig.overridden(config, {"ablation": "resample"})
    if kind == "token labels":
        task = random_labels(task, model, seed)
    if kind == "name labels":
        task = name_labels(task, seed)
    if kind == "shuffled model":
        model = shuffled(model, seed)
    config = without_feasibility_checks(config)
    return Specimen(prune(model, task, config, data=subject.text, progress=False), model, task)


def name_labels(task: Task, seed: int) -> Task:
    """Return the task with its answers swapped where a hash of a line of the pair is odd.

    It is the first line for which a quarter to three quarters of the pairs are swapped: usually the
    import of a module, whose name occurs in many pairs, so that labels are consistent.

    Raises:
        InputError: there is no such line.
    """
    for line in range(_LINES):
        swapped = [
            _is_odd(f"{seed} {pair.prompts[0].splitlines()[line:][:1]}") for pair in task.pairs
        ]
        if len(swapped) <= 4 * sum(swapped) <= 3 * len(swapped):
            break
    else:
        raise InputError(f"the pairs of {task.name} have no line in common by which to swap")
    pairs = [
        Pair(pair.prompts, pair.answers[::-1] if is_swapped else pair.answers, pair.template)
        for pair, is_swapped in zip(task.pairs, swapped, strict=True)
    ]
    return Task(f"{task.name} (name labels)", tuple(pairs), generated=True, seed=seed)


def _is_odd(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] % 2 == 1


def _wired(subject: Subject, config: PruneConfig) -> NodeCircuit:
    """Return the nodes wired by hand."""
    baseline = AblationBaseline.of(subject.model, subject.text, config)
    ablation = baseline.ablation(subject.model, config)
    kept: dict[str, list[int]] = {}
    for site, channel in sorted(subject.planted):
        kept.setdefault(site, []).append(channel)
    masks = EdgeMasks.of(ablation, ablation.space.gates(kept))
    return _assembled(subject, config, masks, torch.ones(masks.size))


def _random(subject: Subject, config: PruneConfig, luckiest: bool) -> NodeCircuit:
    """Return a random circuit with the size of the found one."""
    kind = "wired" if subject.planted else "found"
    masks, gates = specimen(subject, kind, config.seed).circuit.edge_masks(subject.model)
    parts = _parts(subject, config)
    batch = tokenize_task(parts.judge, subject.model)
    count = DRAWS if luckiest else 4
    core = {node for node in subject.planted if not node[0].endswith(".k")}
    core -= set(subject.planted[1:2])  # what the key reads
    drawn = [
        one
        for one in random_circuits(masks, gates, batch, count, config.seed + 1)
        if not (subject.planted and core <= set(one[0].kept))
    ]
    losses = [float(one.losses(some[None], batch)[0]) for one, some in drawn]
    chosen = losses.index(min(losses)) if luckiest else 0
    return _assembled(subject, config, *drawn[chosen])


def _assembled(
    subject: Subject, config: PruneConfig, masks: EdgeMasks, gates: torch.Tensor
) -> NodeCircuit:
    baseline = AblationBaseline.of(subject.model, subject.text, config)
    settings = without_feasibility_checks(config).recorded()
    result = FinderResult(
        masks, gates, None, config.target_loss, True, "hand", settings, baseline, config.seed
    )
    return assemble(subject.model, subject.task, _parts(subject, config), result)


def _parts(subject: Subject, config: PruneConfig) -> Parts:
    model = subject.model
    fitted = subject.task.fitted(tokenizer_of(model), model.config.n_ctx)
    return parts_of(fitted, config.eval_pairs, config.seed)
