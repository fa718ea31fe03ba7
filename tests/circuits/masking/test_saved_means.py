import shutil

import pytest
import torch
from present import present
from safetensors.torch import save_file

from wirework.circuits import load_means, save_means
from wirework.circuits.masking.means import measured_means
from wirework.circuits.masking.node_statistics import ablated_sites
from wirework.circuits.masking.saved_means import means_file, means_for
from wirework.config import TrainConfig
from wirework.errors import InputError
from wirework.files import tensors_checksum
from wirework.model import Model
from wirework.training import train


class TestMeansFor:
    def test_means_of_a_given_text_are_kept_beside_the_model_and_not_measured_again(
        self, random_model: Model, wired: Model, corpus, tmp_path, monkeypatch
    ) -> None:
        home = Model(random_model.transformer, random_model.tokenizer, tmp_path)
        measured = means_for(home, corpus, 640)
        file = tmp_path / means_file(corpus)
        assert [path.name for path in tmp_path.iterdir()] == [file.name]
        assert corpus.fingerprint[:16] in file.name

        def fail(*_):
            raise AssertionError("the means were measured again")

        with monkeypatch.context() as patch:
            patch.setattr("wirework.circuits.masking.saved_means.measured_means", fail)
            again = means_for(home, corpus, 640)
            with pytest.raises(AssertionError, match="measured again"):
                means_for(home, corpus, 1280)  # of another number of tokens
        assert again.error == measured.error
        for name in ("first", "groups", "first_error", "second_error", "deviation"):
            kept, made = present(getattr(again, name)), present(getattr(measured, name))
            assert kept.keys() == made.keys()
            assert all(torch.equal(kept[site], made[site]) for site in kept)
        other = Model(wired.transformer, wired.tokenizer, tmp_path)
        with pytest.raises(InputError, match="belongs to another model"):
            means_for(other, corpus, 640)
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        with pytest.raises(InputError, match="does not match its checksum; delete it"):
            means_for(home, corpus, 640)

    def test_a_file_without_errors_is_read_as_before(
        self, random_model: Model, corpus, tmp_path
    ) -> None:
        home = Model(random_model.transformer, random_model.tokenizer, tmp_path)
        path = tmp_path / "means.safetensors"
        means = measured_means(home, corpus, 640)
        header = {
            "format": "wirework-means", "fingerprint": home.fingerprint, "mean_tokens": "640",
            "n_tokens": str(means.n_tokens),
        }  # fmt: skip
        tensors = dict(means.first) | {
            f"second/{site}": part for site, part in present(means.groups).items()
        }
        save_file(tensors, path, {**header, "sha256": tensors_checksum(tensors, header)})
        found = means_for(home, None, 640)
        assert found.n_groups == 8
        assert found.error is found.deviation is None

    def test_saved_means_come_back_for_their_model_only(
        self, random_model: Model, wired: Model, corpus, tmp_path
    ) -> None:
        home = Model(random_model.transformer, random_model.tokenizer, tmp_path)
        with pytest.raises(InputError, match=r"no training text .*: give text"):
            means_for(home, None, 1)
        means = means_for(home, corpus, 1).first
        save_means(tmp_path, means, home)
        again = means_for(home, None, 1)
        assert all(torch.equal(again.first[name], mean) for name, mean in means.items())
        assert again.second is None
        with pytest.raises(InputError, match="belongs to another model"):
            load_means(tmp_path / "means.safetensors", wired)

    def test_a_file_of_an_earlier_version_has_one_sample_and_is_measured_anew(
        self, random_model: Model, corpus, tmp_path
    ) -> None:
        home = Model(random_model.transformer, random_model.tokenizer, tmp_path)
        means = means_for(home, corpus, 2).first
        header = {
            "format": "wirework-means", "fingerprint": home.fingerprint, "n_batches": "8",
        }  # fmt: skip
        tensors = {name: mean.contiguous() for name, mean in means.items()}
        path = tmp_path / "means.safetensors"
        save_file(tensors, path, {**header, "sha256": tensors_checksum(tensors, header)})
        said = (
            "measured on one sample of 8 x 16 x 80 tokens, mean_tokens is 300, and the corpus "
            "cannot be read: no training text"
        )
        with pytest.raises(InputError, match=said):
            means_for(home, None, 300)
        assert load_means(path, home).keys() == means.keys()  # but it still opens

    def test_the_corpus_of_a_run_is_read_once_and_kept(
        self, tokenizer, tmp_path, monkeypatch, capsys
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
        first = means_for(model, None, 500)
        kept = file.read_bytes()
        again = means_for(model, None, 500)
        assert file.read_bytes() == kept
        assert again.n_tokens == present(first.n_tokens) >= 500
        groups = present(first.groups), present(again.groups)
        for one, other in ((first.first, again.first), groups):
            assert all(torch.equal(one[name], other[name]) for name in one)
        assert load_means(file, model).keys() == first.first.keys()
        second = means_for(model, None, 1000)
        assert file.read_bytes() != kept
        assert any(not torch.equal(first.first[name], second.first[name]) for name in first.first)

        def no_space(*_):
            raise InputError("cannot write here")

        monkeypatch.setattr("wirework.circuits.masking.saved_means.write_bytes", no_space)
        assert means_for(model, None, 500).first.keys() == first.first.keys()
        said = "cannot write here: the means will be measured again next time"
        assert said in capsys.readouterr().err
        (text / "more.py").write_text("value = 1\n" * 500)  # the run's own tokens are still read
        again = means_for(model, None, 500)
        assert all(torch.equal(first.first[name], again.first[name]) for name in first.first)
        shutil.rmtree(tmp_path / "cache")
        with pytest.raises(InputError, match=r"mean_tokens is 500, .*give --corpus .*corpus"):
            means_for(model, None, 500)


class TestLoadMeans:
    def test_damaged_and_foreign_files_are_refused(self, random_model: Model, tmp_path) -> None:
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
        sites = random_model.transformer.sites
        means = {
            site: torch.zeros(sites[site].width) for site in ablated_sites(random_model.transformer)
        }
        save_means(path, means | {"other": torch.ones(1)}, random_model)
        assert load_means(path, random_model).keys() == means.keys()
        means["0.attn.y"][0] = torch.nan
        save_means(path, means, random_model)
        with pytest.raises(InputError, match=r"the means of 0\.attn\.y are not all finite"):
            load_means(path, random_model)

    def test_one_flipped_bit_is_seen(self, random_model: Model, corpus, tmp_path) -> None:
        path = tmp_path / "means.safetensors"
        save_means(path, means_for(random_model, corpus, 1).first, random_model)
        content = path.read_bytes()
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        with pytest.raises(InputError, match="does not match its checksum; delete it"):
            load_means(path, random_model)
