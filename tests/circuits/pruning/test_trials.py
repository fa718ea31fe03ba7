import torch

from wirework.circuits import Ablation, node_means
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.pruning.trials import trial_target
from wirework.tasks import TokenizedPairs


def test_trials_are_compared_at_a_loss_that_the_model_reaches(wired, task, corpus) -> None:
    rows = tokenize_task(task.take(task.pairs[:8]), wired)
    ablation = Ablation.of(wired.transformer, node_means(wired.transformer, [rows.tokens]))
    everything = torch.ones(1, ablation.space.size)
    own = float(ablation.losses(everything, rows)[0])
    assert trial_target(ablation, rows, 0.5) == 0.5
    assert own < trial_target(ablation, rows, own / 2) < own + 0.02
    wrong = TokenizedPairs(
        rows.tokens, rows.last_positions, rows.answers.flip(1)
    )  # which the model cannot do
    assert trial_target(ablation, wrong, 0.15) == 0.15
