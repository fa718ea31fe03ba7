import math
import re

import pytest
import torch
import yaml
from present import present

from wirework import console
from wirework.config import TrainConfig
from wirework.data import Batches, eval_batches, prepare
from wirework.errors import InputError
from wirework.model import load
from wirework.training import bigram_loss, train
from wirework.training.baseline import bigram_table
from wirework.training.batch_evaluation import evaluate_batches
from wirework.training.checkpoint import checkpoint_steps
from wirework.training.loop import measured_negligible_fraction

VOCABULARY = 400


def test_a_run_leaves_what_the_architecture_says(whole):
    names = {path.name for path in whole.path.iterdir()}
    assert names == {
        "config.yaml", "data.json", "metrics.jsonl", "tokenizer.json", "checksums.json",
        "checkpoints", "model",
    }  # fmt: skip


def test_the_saved_model_is_the_trained_one(whole, settings):
    loaded = load(whole.path)
    assert loaded.fingerprint == whole.model.fingerprint
    config = settings()
    data = prepare(config.data, progress=False)
    batches = eval_batches(data.val, 16, config.batch_size, config.eval_batches)
    values = present(evaluate_batches(loaded.transformer, batches, torch.device("cpu")))
    assert values["val_loss"] == whole.metrics["val_loss"]
    assert present(loaded.tokenizer).fingerprint == data.tokenizer.fingerprint


def test_the_settings_are_saved_resolved(settings):
    run = train(settings(device="auto", precision="auto", steps=1), progress=False)
    saved = yaml.safe_load((run.path / "config.yaml").read_text())
    assert saved["device"] in ("cpu", "cuda")
    assert saved["precision"] in ("float32", "bfloat16")
    assert TrainConfig.load(run.path / "config.yaml").model == settings().model


def test_the_final_weights_have_the_target_count_in_every_tensor(whole):
    for prunable in whole.model.transformer.prunable():
        size = prunable.parameter.numel()
        assert int(prunable.parameter.count_nonzero()) == max(1, round(0.15 * size))
    assert whole.metrics["nonzero_fraction"] == pytest.approx(0.15, abs=0.001)


def test_weights_too_small_to_do_anything_are_counted_and_named(whole, caplog):
    assert whole.metrics["negligible_fraction"] == 0
    transformer = load(whole.path).transformer
    n_nonzero = transformer.weight_counts()[1]
    up = transformer.blocks[0].mlp.up.weight.detach()
    place = int(up.abs().where(up != 0, torch.inf).argmin())
    up.view(-1)[place] = 1e-9 * up.abs().max()
    assert transformer.n_negligible() == 1
    assert measured_negligible_fraction(transformer) == 1 / n_nonzero
    assert not caplog.records
    for prunable in transformer.prunable():
        values = prunable.parameter.detach().view(-1)
        values[values.abs() < values.abs().max()] *= 1e-9
    assert measured_negligible_fraction(transformer) > 0.5
    assert "try a lower weight_sparsity.floor" in caplog.text


def test_metrics_tell_the_story_of_the_run(whole):
    lines = whole.history()
    train_lines = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train_lines] == list(range(1, 13))
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [4, 6, 8, 12]
    assert [line["kind"] for line in lines].index("final") == len(lines) - 1
    first, last = train_lines[0], train_lines[-1]
    assert first["loss"] == pytest.approx(math.log(400), abs=0.1)
    assert (first["tokens"], last["tokens"]) == (32, 12 * 32)
    assert last["l0_fraction"] == pytest.approx(0.15, abs=0.001)
    assert last.keys() == {
        "step", "kind", "loss", "lr", "grad_rms", "l0_fraction", "tokens", "timing",
    }  # fmt: skip
    assert whole.metrics["tokens"] == 12 * 32
    assert whole.metrics["seconds"] > 0


def test_training_learns(settings):
    sparse = {"l0_fraction": 0.3, "anneal_end": 0.2}
    run = train(settings(steps=80, batch_size=8, weight_sparsity=sparse), progress=False)
    assert run.metrics["val_loss"] < math.log(400) - 0.8


def test_a_table_of_counts_begins_at_the_loss_of_the_bigram_table(settings):
    config = settings(steps=1, bigram_start="counts")
    run = train(config, progress=False)
    data = prepare(config.data, progress=False)
    first = Batches(data.train, 16, config.batch_size, config.seed).at(0)
    expected = bigram_loss(data.train, [first], VOCABULARY)
    # The untrained rest adds logits of a spread of 0.02 * sqrt(32) = 0.1.
    assert run.history()[0]["loss"] == pytest.approx(expected, abs=0.1)


def test_a_frozen_table_keeps_the_counts(settings):
    config = settings(steps=2, bigram_start="counts", model={"learn_bigram": False})
    run = train(config, progress=False)
    data = prepare(config.data, progress=False)
    table = torch.from_numpy(bigram_table(data.train, VOCABULARY))
    assert torch.equal(run.model.transformer.bigram, table)


@pytest.mark.parametrize("act_fraction", [None, 0.25])
def test_dense_models_differ_by_settings_alone(settings, act_fraction):
    config = settings(weight_sparsity=None, steps=2, model={"act_fraction": act_fraction})
    run = train(config, progress=False)
    assert [line["l0_fraction"] for line in run.history() if line["kind"] == "train"] == [1, 1]
    assert run.metrics["nonzero_fraction"] > 0.95  # biases that nothing moved are zero


def test_bf16_trains(settings):
    run = train(settings(precision="bfloat16", steps=3), progress=False)
    assert run.metrics["val_loss"] == pytest.approx(math.log(400), abs=0.3)
    assert run.model.transformer.embed.weight.dtype == torch.float32


def test_the_same_settings_give_the_same_model(settings):
    one, two = (train(settings(name, steps=3), progress=False) for name in ("one", "two"))
    other = train(settings("other", steps=3, seed=1), progress=False)
    assert one.model.fingerprint == two.model.fingerprint
    assert one.model.fingerprint != other.model.fingerprint


def test_the_callers_random_state_is_left_alone(settings):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(settings(steps=1), progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_newest_checkpoint_stays_and_the_best_of_those_as_sparse(settings):
    # Dense until step 20, then so sparse that the loss jumps and falls no more: the best of all is
    # a dense one, which says nothing about the model that is wanted.
    config = settings(
        steps=40, batch_size=8, checkpoint_every=4, keep_checkpoints=1, model={"bigram": False},
        optimizer={"lr": 0.03},
        weight_sparsity={"l0_fraction": 0.002, "floor": 0, "anneal_start": 0.5, "anneal_end": 0.55},
    )  # fmt: skip
    run = train(config, progress=False)
    losses = {x["step"]: x["val_loss"] for x in run.history() if x["kind"] == "eval"}
    sparse = {step: loss for step, loss in losses.items() if step > 20}
    assert min(losses, key=losses.get) <= 20
    assert checkpoint_steps(run.path / "checkpoints") == sorted({40, min(sparse, key=sparse.get)})


def test_a_finished_run_is_returned_as_it_is(settings, capsys):
    run = train(settings(), progress=False)
    log = (run.path / "metrics.jsonl").read_bytes()
    again = train(settings(), resume=True, progress=False)
    assert "is finished already" in capsys.readouterr().err
    assert again.metrics == run.metrics
    assert again.model.fingerprint == run.model.fingerprint
    assert (run.path / "metrics.jsonl").read_bytes() == log


def test_a_tokeniser_that_does_not_fit_is_refused(settings, whole):
    tokenizer = {"tokenizer": whole.path / "tokenizer.json"}
    config = settings(data=tokenizer, model={"vocab_size": 300})
    with pytest.raises(InputError, match=r"tokeniser has 400 tokens, model\.vocab_size is only"):
        train(config, progress=False)


def test_a_context_far_longer_than_the_data_is_refused(settings):
    with pytest.raises(InputError, match=r"context of 1000000 tokens .*lower model\.n_ctx"):
        train(settings(model={"n_ctx": 1_000_000}), progress=False)


def test_a_context_longer_than_the_data_is_what_there_is(settings, tmp_path, capsys):
    (tmp_path / "small").mkdir()
    for name in ("a.py", "b.py", "c.py"):
        (tmp_path / "small" / name).write_text(f"{name[0]} = 1\n" * 40)
    data = {"corpus": str(tmp_path / "small"), "vocab_size": "auto"}
    run = train(
        settings(steps=1, model={"n_ctx": 5000, "vocab_size": 0}, data=data), progress=False
    )
    assert run.metrics["val_loss"] > 0
    assert "too few for a context of 5000" in capsys.readouterr().err


def test_progress_without_a_terminal_is_a_few_plain_lines(settings, capsys, monkeypatch):
    monkeypatch.setattr(console, "EVERY", 0.001)
    train(settings(steps=3, checkpoint_every=2), progress=True)
    err = capsys.readouterr().err
    assert "step 2/3  held-out loss " in err
    assert re.search(r"^training: \d/3, .*loss \d.*tokens/s, .* so far$", err, re.MULTILINE)
    assert "\x1b" not in err
