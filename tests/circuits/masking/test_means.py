import pytest
import torch
from present import present

from wirework.circuits import node_means
from wirework.circuits.masking.means import Means, measured_means
from wirework.circuits.masking.training_text import disjoint_windows, windows_at
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.model import Model


def test_means_are_over_all_tokens_of_all_batches(random_model: Model) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 512, (2, 10), generator=generator), torch.randint(0, 512, (3, 4))]
    means = node_means(random_model.transformer, batches)
    total, count = torch.zeros(24, dtype=torch.float64), 0
    for tokens in batches:
        for sequence in tokens:
            _, values = random_model.run_with_cache(sequence[None], ["1.mlp.post_act"])
            total += values["1.mlp.post_act"][0].double().sum(0).detach()
            count += len(sequence)
    assert torch.allclose(means["1.mlp.post_act"].double(), total / count, atol=1e-6)
    assert set(means) == {*random_model.transformer.node_sites, "0.attn.y", "1.attn.y"}
    with pytest.raises(InputError, match="at least one batch"):
        node_means(random_model.transformer, [])


class TestMeasuredMeans:
    def test_samples_have_as_many_tokens_as_asked_for_or_half_of_the_text(
        self, random_model: Model, corpus
    ) -> None:
        assert PruneConfig().mean_tokens >= 200_000
        few = measured_means(random_model, corpus, 100)
        assert few.n_tokens == 8 * 80  # in eight groups of windows
        every = measured_means(random_model, corpus, 200_000)
        assert corpus.n_tokens // 2 - 8 * 80 < every.n_tokens <= corpus.n_tokens // 2 + 80

    def test_the_second_sample_is_of_the_other_windows_and_its_groups_are_its_parts(
        self, random_model: Model, corpus
    ) -> None:
        means = measured_means(random_model, corpus, 16 * 80)
        first, second = disjoint_windows(corpus, 80, 16)
        for starts, found in ((first, means.first), (second, present(means.second))):
            expected = node_means(random_model.transformer, windows_at(corpus, starts, 80))
            assert all(
                torch.allclose(found[site], mean, atol=1e-6) for site, mean in expected.items()
            )
        part = node_means(random_model.transformer, windows_at(corpus, second[3::8], 80))
        assert means.n_groups == 8
        assert all(
            torch.allclose(present(means.groups)[site][3], mean) for site, mean in part.items()
        )


class TestError:
    def test_it_is_of_the_windows_of_the_sample_that_judges(
        self, random_model: Model, corpus
    ) -> None:
        means = measured_means(random_model, corpus, 16 * 80)
        first, second = disjoint_windows(corpus, 80, 16)
        for starts, found in ((first, means.first_error), (second, means.second_error)):
            of_windows = torch.stack([
                node_means(random_model.transformer, windows_at(corpus, [start], 80))["0.attn.q"]
                for start in starts
            ])  # fmt: skip
            expected = of_windows.std(0) / len(starts) ** 0.5
            assert torch.allclose(present(found)["0.attn.q"], expected, atol=1e-6)
        error = present(means.error)
        assert 0 < error.median < error.largest < 1
        relative = present(means.second_error)["0.attn.q"] / present(means.deviation)["0.attn.q"]
        assert error.largest >= float(relative.nan_to_num().max())

    def test_more_text_makes_it_smaller(self, random_model: Model, corpus) -> None:
        few, many = (measured_means(random_model, corpus, n * 80) for n in (8, 64))
        assert present(many.error).median < present(few.error).median / 2

    def test_given_means_have_none(self, random_model: Model, corpus) -> None:
        assert Means(measured_means(random_model, corpus, 80).first).error is None
