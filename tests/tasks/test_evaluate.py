import math

import pytest
import torch
from present import present

from wirework.config import ModelConfig
from wirework.errors import InputError
from wirework.model import Model
from wirework.nn import Transformer
from wirework.tasks import (
    PYTHON_TASKS,
    all_reports,
    differences,
    evaluate,
    kl_divergence,
    load_task,
    logit_difference,
    pair_losses,
    tokenizer_of,
)


@pytest.fixture(scope="module")
def model(tokenizer) -> Model:
    config = ModelConfig(vocab_size=512, n_ctx=80, n_layer=1, d_model=16, d_head=8, d_mlp=16)
    return Model(Transformer(config, seed=1), tokenizer)


def test_task_loss_is_the_cross_entropy_of_two() -> None:
    logits = torch.tensor([[0.0, math.log(3), 9.0], [2.0, 2.0, -5.0]])
    answers = torch.tensor([[1, 0], [0, 1]])
    # softmax over (ln 3, 0) gives 3/4 to the right answer; equal logits give 1/2
    expected = torch.tensor([-math.log(0.75), math.log(2)])
    assert torch.allclose(pair_losses(logit_difference(logits, answers)), expected)
    assert torch.allclose(logit_difference(logits, answers), torch.tensor([math.log(3), 0.0]))


def test_kl_divergence_is_that_of_two_distributions_worked_by_hand() -> None:
    odds = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    found = kl_divergence(odds[0].log() + 3.0, odds.log())
    wanted = [0.0, 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_differences_are_those_of_one_prompt_at_a_time(model: Model) -> None:
    task = load_task("for_while", n=70)
    logit_diffs = differences(model.transformer, task.encode(model.tokenizer, 80))
    for i in (0, 1, 137):
        prompt = present(model.tokenizer).encode(task.pairs[i // 2].prompts[i % 2])
        logits = model(torch.tensor([prompt]))[0, -1].detach()
        right, wrong = (
            present(model.tokenizer).encode(task.pairs[i // 2].prompts[i % 2] + answer)[-1]
            for answer in (
                task.pairs[i // 2].answers[i % 2],
                task.pairs[i // 2].answers[1 - i % 2],
            )
        )
        assert logit_diffs[i] == pytest.approx(float(logits[right] - logits[wrong]), abs=1e-5)


def test_a_report_has_loss_accuracy_and_answer_tokens(model: Model) -> None:
    task = load_task("for_while", n=40)
    report = evaluate(model, task)
    rows = task.encode(model.tokenizer, 80)
    with torch.no_grad():
        logits = model.transformer(rows.tokens, rows.last_positions)
    assert report.valid
    assert (report.n_pairs, report.n_skipped) == (40, 0)
    logit_diffs = logit_difference(logits, rows.answers)
    assert report.loss == pytest.approx(float(pair_losses(logit_diffs).mean()), abs=1e-6)
    assert report.accuracy == pytest.approx(float((logit_diffs > 0).float().mean()))
    assert [text for text, _ in report.answers] == [" in", ":\n"]
    assert [present(model.tokenizer).token(token) for _, token in report.answers] == [" in", ":\n"]


def test_every_built_in_task_has_a_row(code_tokenizer) -> None:
    config = ModelConfig(vocab_size=2048, n_ctx=110, n_layer=1, d_model=16, d_head=8, bigram=False)
    rows = all_reports(Model(Transformer(config), code_tokenizer), n=20)
    assert [row["name"] for row in rows] == list(PYTHON_TASKS)
    assert all(row["valid"] and row["n_pairs"] == 20 for row in rows)


def test_a_task_that_does_not_fit_is_invalid_with_the_reason(tokenizer) -> None:
    config = ModelConfig(vocab_size=512, n_ctx=4, n_layer=1, d_model=16, d_head=8)
    report = evaluate(Model(Transformer(config), tokenizer), load_task("for_while", n=20))
    assert not report.valid
    assert "the model takes 4" in report.reason
    assert report.loss is None
    assert report.n_skipped == 20


def test_a_model_without_tokeniser_is_refused() -> None:
    config = ModelConfig(vocab_size=8, n_ctx=4, n_layer=1, d_model=16, d_head=8)
    with pytest.raises(InputError, match="needs a model with a tokeniser"):
        tokenizer_of(Model(Transformer(config)))
