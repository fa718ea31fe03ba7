import shutil

import pytest
import torch

from wirework.circuits import load_means, node_means, save_means, training_windows
from wirework.circuits.means import means_for
from wirework.config import TrainConfig
from wirework.errors import InputError
from wirework.model import Model
from wirework.training import train


def test_means_are_over_all_tokens_of_all_batches(random_model: Model) -> None:
    dice = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 512, (2, 10), generator=dice), torch.randint(0, 512, (3, 4))]
    means = node_means(random_model.transformer, batches)
    total, count = torch.zeros(24, dtype=torch.float64), 0
    for tokens in batches:
        for sequence in tokens:
            _, values = random_model.record(sequence[None], ["1.mlp.post_act"])
            total += values["1.mlp.post_act"][0].double().sum(0).detach()
            count += len(sequence)
    assert torch.allclose(means["1.mlp.post_act"].double(), total / count, atol=1e-6)
    assert set(means) == {*random_model.transformer.node_sites, "0.attn.y", "1.attn.y"}
    with pytest.raises(InputError, match="at least one batch"):
        node_means(random_model.transformer, [])


def test_windows_are_spread_over_the_corpus(corpus) -> None:
    first, second = training_windows(corpus, 20, 2)
    assert first.shape == second.shape == (16, 20)
    assert torch.equal(first[0], corpus.ids[:20])
    assert torch.equal(second[-1], corpus.ids[-20:])
    (whole,) = training_windows(corpus, corpus.n_tokens + 1, 1)
    assert whole.tolist() == [corpus.ids.tolist()] * 16


def test_saved_means_come_back_for_their_model_only(
    random_model: Model, wired: Model, corpus, tmp_path
) -> None:
    home = Model(random_model.transformer, random_model.tokenizer, tmp_path)
    with pytest.raises(InputError, match=r"no training text .*: give text"):
        means_for(home, None, 1)
    means = means_for(home, corpus, 1)
    save_means(tmp_path, means, home)
    again = means_for(home, None, 1)
    assert all(torch.equal(again[name], mean) for name, mean in means.items())
    with pytest.raises(InputError, match="belongs to another model"):
        load_means(tmp_path / "means.safetensors", wired)


def test_damaged_and_foreign_files_are_refused(random_model: Model, tmp_path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "means.safetensors"
    with pytest.raises(InputError, match=r"(cannot read .*|means\.safetensors is damaged)"):
        load_means(path, random_model)
    path.write_bytes(b"not tensors at all")
    with pytest.raises(InputError, match=r"(cannot read .*|means\.safetensors is damaged)"):
        load_means(path, random_model)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="does not hold node means"):
        load_means(path, random_model)
    save_means(path, {"0.attn.act_in": torch.zeros(3)}, random_model)
    with pytest.raises(InputError, match=r"expected 20 means of 0.attn.act_in, got \(3,\)"):
        load_means(path, random_model)


def test_a_file_of_another_number_of_batches_is_not_what_was_asked_for(
    random_model: Model, corpus, tmp_path
) -> None:
    home = Model(random_model.transformer, random_model.tokenizer, tmp_path)
    means = means_for(home, corpus, 2)
    save_means(tmp_path, means, home, 2)
    again = means_for(home, None, 2)
    assert all(torch.equal(again[name], mean) for name, mean in means.items())
    said = (
        "measured on 2 batches, mean_batches is 3, and the corpus cannot be read: no training text"
    )
    with pytest.raises(InputError, match=said):
        means_for(home, None, 3)


def test_one_flipped_bit_is_seen(random_model: Model, corpus, tmp_path) -> None:
    path = tmp_path / "means.safetensors"
    save_means(path, means_for(random_model, corpus, 1), random_model, 1)
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    with pytest.raises(InputError, match="does not match its checksum; delete it"):
        load_means(path, random_model)


def test_the_corpus_of_a_run_is_read_once_and_kept(
    tokenizer, tmp_path, monkeypatch, capsys
) -> None:
    text = tmp_path / "corpus"
    text.mkdir()
    (text / "a.py").write_text("".join(f"name_{i} = {i}\n" for i in range(2000)))
    config = TrainConfig.of(
        {
            "name": "run", "runs": tmp_path, "steps": 1, "batch_size": 2, "eval_batches": 1,
            "model": {
                "vocab_size": 512, "n_ctx": 16, "n_layer": 1, "d_model": 16, "d_head": 8,
            },
            "data": {
                "corpus": str(text), "cache": tmp_path / "cache", "vocab_size": 512,
                "val_fraction": 0.5, "workers": 1,
            },
        }
    )  # fmt: skip
    for i in range(20):
        (text / f"{i}.py").write_text(f"# {i}\n" * 300)
    model = train(config, progress=False).model
    file = tmp_path / "run" / "model" / "means.safetensors"
    first = means_for(model, None, 1)
    kept = file.read_bytes()
    means_for(model, None, 1)
    assert file.read_bytes() == kept
    second = means_for(model, None, 2)
    assert file.read_bytes() != kept
    assert any(not torch.equal(first[name], second[name]) for name in first)

    def no_space(*_):
        raise InputError("cannot write here")

    monkeypatch.setattr("wirework.circuits.means.write_bytes", no_space)
    assert means_for(model, None, 1).keys() == first.keys()
    said = "cannot write here: the means will be measured again next time"
    assert said in capsys.readouterr().err
    (text / "more.py").write_text("value = 1\n" * 500)
    again = means_for(model, None, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(InputError, match=r"mean_batches is 1, .*give --corpus .*corpus"):
        means_for(model, None, 1)
