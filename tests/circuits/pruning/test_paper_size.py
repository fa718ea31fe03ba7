"""The size at plain bisection, against a scan of every count and circuits of bisection alone."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from scipy.optimize import minimize

from wirework.circuits import Ablation, NodeCircuit, find_edges, prune
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.pruning.discretise import best_nodes, ranking
from wirework.circuits.pruning.paper_size import paper_mask, paper_size
from wirework.circuits.pruning.prune import PruningRun
from wirework.circuits.pruning.search_folder import Candidate
from wirework.config import PruneConfig
from wirework.model import Model
from wirework.tasks import Task, TokenizedPairs

QUICK = PruneConfig(
    trials=3, parallel=3, steps=40, batch_pairs=8, eval_pairs=24, lr=1e-2, k_coef=1e-3
)
PLAIN = {"clean_up": False, "prune_edges": False}


@pytest.fixture(scope="module")
def pruning_run(wired: Model, task: Task, corpus) -> PruningRun:
    return PruningRun.of(wired, task, QUICK, AblationBaseline.of(wired, corpus, QUICK))


@pytest.fixture(scope="module")
def ranked(pruning_run: PruningRun) -> list[Candidate]:
    return pruning_run.ranked()


@pytest.fixture(scope="module")
def circuit(pruning_run: PruningRun, ranked: list[Candidate]) -> NodeCircuit:
    return pruning_run.circuit_from(ranked)


def scanned(ablation: Ablation, tau: torch.Tensor, batch: TokenizedPairs) -> torch.Tensor:
    """Return the mask of the fewest nodes of a ranking that reach 0.15, by trying every count."""
    rank = ranking(tau)
    for count in range(1, len(rank) + 1):
        mask = best_nodes(rank, [count])[0]
        if float(ablation.losses(mask[None], batch)[0]) <= 0.15:
            return mask
    raise AssertionError("no count reaches the target")


def size_of(ablation: Ablation, mask: torch.Tensor) -> tuple[int, int]:
    nodes = ablation.space.locate(mask.nonzero().flatten())
    return len(find_edges(ablation.transformer, nodes)), len(nodes)


def mean_loss(logit_diffs: list[float], scale: float = 1.0, shift: float = 0.0) -> float:
    """Return the task loss, prompt by prompt; the shift favours the first answer of a pair."""
    losses = [
        math.log1p(math.exp(-(scale * diff + (shift if row % 2 == 0 else -shift))))
        for row, diff in enumerate(logit_diffs)
    ]
    return sum(losses) / len(losses)


def test_it_is_the_smallest_bisection_of_the_learned_masks(
    pruning_run: PruningRun, ranked: list[Candidate], circuit: NodeCircuit
) -> None:
    judge, held_out = (
        tokenize_task(part, pruning_run.model)
        for part in (pruning_run.parts.judge, pruning_run.parts.held_out)
    )
    ablation = pruning_run.ablation
    assert [candidate.finder for candidate in ranked][-1] == "atp_star"
    learned = [candidate.tau for candidate in ranked if candidate.finder == "learned"]
    masks = [scanned(ablation, tau, judge) for tau in learned]
    mask = min(masks, key=lambda mask: size_of(ablation, mask))
    found = circuit.paper_size
    assert found is not None
    assert (found.n_edges, found.n_nodes) == size_of(ablation, mask)
    judged, unseen = (
        ablation.logit_diffs(mask[None], part)[0].tolist() for part in (judge, held_out)
    )
    assert found.task_loss == pytest.approx(mean_loss(judged), abs=1e-6)
    assert found.held_out_loss == pytest.approx(mean_loss(unseen), abs=1e-6)
    fitted = minimize(lambda xy: mean_loss(judged, *xy), (1.0, 0.0), method="Nelder-Mead").x
    assert found.task_loss_calibrated <= found.task_loss <= 0.15
    assert found.task_loss_calibrated == pytest.approx(mean_loss(judged, *fitted), abs=2e-3)


def test_clean_up_and_other_rankings_change_nothing_in_it(
    wired: Model, task: Task, corpus, circuit: NodeCircuit
) -> None:
    plain = prune(wired, task, QUICK, data=corpus, progress=False, extra_rankings=(), **PLAIN)
    assert plain.paper_size == circuit.paper_size
    assert circuit.paper_size is not None
    assert circuit.n_kept_edges <= circuit.paper_size.n_edges


def test_of_a_score_it_is_the_circuit_of_bisection_alone(wired: Model, task: Task, corpus) -> None:
    score = QUICK.model_copy(update={"finder": "attribution"})
    bare = prune(wired, task, score, data=corpus, progress=False, **PLAIN)
    paper = bare.paper_size
    assert paper is not None
    assert (paper.n_nodes, paper.n_edges) == (bare.n_nodes, bare.n_edges)
    assert bare.n_edges == bare.n_kept_edges
    assert paper.task_loss == pytest.approx(bare.losses.circuit_searched, abs=1e-6)
    cleaned = prune(wired, task, score, data=corpus, progress=False)
    assert cleaned.paper_size == paper
    assert cleaned.n_nodes < paper.n_nodes


def test_it_is_under_mean_ablation_whatever_the_search_ablates_with(
    wired: Model, task: Task, corpus, pruning_run: PruningRun
) -> None:
    resampled = QUICK.model_copy(update={"ablation": "resample", "finder": "attribution"})
    found = prune(wired, task, resampled, data=corpus, progress=False)
    plain = prune(wired, task, resampled, data=corpus, progress=False, ablation="mean")
    assert found.paper_size == plain.paper_size


def test_without_a_mask_that_reaches_the_target_there_is_none(
    pruning_run: PruningRun, ranked: list[Candidate]
) -> None:
    judge = tokenize_task(pruning_run.parts.judge, pruning_run.model)
    everything = torch.ones(pruning_run.ablation.size)
    assert paper_mask(pruning_run.ablation, [(ranked[0], everything)], judge, 1e-9) is None


def test_it_is_saved_and_shown(circuit: NodeCircuit, tmp_path) -> None:
    again = NodeCircuit.load(circuit.save(tmp_path / "circuit"))
    assert again.paper_size == circuit.paper_size
    paper = circuit.paper_size
    assert paper is not None
    about = circuit.summary()
    assert (about["paper_nodes"], about["paper_edges"]) == (paper.n_nodes, paper.n_edges)
    assert about["paper_loss"] == paper.task_loss
    assert f"the paper's size): {paper.n_nodes} nodes, {paper.n_edges} edges" in repr(circuit)
    document = circuit.document.model_copy(update={"paper_size": None})
    assert "paper_size" not in document.to_json()
    assert "paper_edges" not in replace(circuit, document=document).summary()


def test_all_nodes_have_the_edges_and_loss_of_the_model(
    ablation: Ablation, rows: TokenizedPairs
) -> None:
    everything = torch.ones(ablation.size)
    found = paper_size(ablation, everything, rows, rows)
    assert (found.n_edges, found.n_nodes) == size_of(ablation, everything)
    assert found.task_loss == pytest.approx(float(ablation.losses(everything[None], rows)[0]))
    losses = asdict(found)
    assert losses["held_out_loss"] == losses["task_loss"]
    assert losses["held_out_loss_calibrated"] == losses["task_loss_calibrated"]
