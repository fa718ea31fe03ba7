"""Old names of modules, attributes and arguments still work, with a line that names the new one."""

import copy
import doctest
import inspect
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import wirework as ww
from wirework import circuits, console, renamed_names, studies, tasks
from wirework.circuits.validation import checks
from wirework.config import ModelConfig
from wirework.nn import Transformer
from wirework.renamed_names import old_arguments, old_attributes
from wirework.tasks import TokenizedPairs
from wirework.training import prior

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_said_once", set())


@dataclass(frozen=True)
class Sized:
    """A class whose field is renamed below."""

    size: int


@dataclass(frozen=True)
class Painted(Sized):
    """A class that has one more old name than its base."""

    colour: str = "red"


@old_attributes(length="size")
class Fitted:
    """A class with a property that raises an AttributeError of its own."""

    size = 3

    @property
    def weights(self) -> list[float]:
        """Its weights."""
        raise AttributeError("no weights: fit the box first")


@old_attributes(count="size")
class FittedChild(Fitted):
    """A class that has one more old name than its base."""


def repeat(batch: list[int], count: int = 1) -> list[int]:
    """Return a list as often as asked for."""
    return batch * count


# `Any`: a type checker knows the current names only.
renamed: Any = old_attributes({"weight": lambda box: 2 * box.size}, length="size")
Box: Any = old_arguments(length="size")(renamed(Sized))
Coloured: Any = old_attributes(color="colour")(Painted)
repeated: Any = old_arguments(rows="batch", n="count")(repeat)


class TestOldNames:
    @pytest.mark.parametrize(
        ("module", "old", "new"),
        [
            (tasks, "Encoded", "TokenizedPairs"),
            (tasks, "skill", "task_accuracy"),
            (tasks, "doubt", "accuracy_warning"),
            (studies, "Point", "FrontierPoint"),
            (prior, "Losses", "StepLosses"),
            (checks, "pair_scores", "pair_logit_diffs"),
        ],
    )
    def test_is_the_current_object(self, module, old, new, capsys):
        assert getattr(module, old) is getattr(module, new)
        assert f"{module.__name__}.{old} is called {new} now" in capsys.readouterr().err

    def test_an_unknown_name_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match="has no attribute 'Pint'") as error:
            studies.Pint  # noqa: B018
        assert str(error.value) == "module 'wirework.studies' has no attribute 'Pint'"
        # From these, Python finds what it asks in "Did you mean".
        assert (error.value.name, error.value.obj) == ("Pint", studies)


class TestOldAttributes:
    def test_is_the_current_one(self, capsys):
        assert Box(3).length == 3
        assert capsys.readouterr().err == "warning: Sized.length is called size now\n"

    def test_warns_once(self, capsys):
        assert Box(3).length + Box(4).length == 7
        assert capsys.readouterr().err.count("\n") == 1

    def test_a_removed_one_has_its_last_value(self, capsys):
        assert Box(3).weight == 6
        assert "a Sized has no weight: the next version refuses it" in capsys.readouterr().err

    def test_a_subclass_has_those_of_its_base_too(self):
        box = Coloured(3)
        assert (box.color, box.length, box.weight) == ("red", 3, 6)
        with pytest.raises(
            AttributeError, match="'Sized' object has no attribute 'color'"
        ) as error:
            Box(3).color  # noqa: B018
        assert (error.value.name, error.value.obj) == ("color", Box(3))
        assert str(error.value) == "'Sized' object has no attribute 'color'"

    @pytest.mark.parametrize("fitted", [Fitted(), FittedChild()])
    def test_a_property_that_fails_keeps_its_message(self, fitted):
        with pytest.raises(AttributeError, match=r"^no weights: fit the box first$"):
            fitted.weights  # noqa: B018

    def test_copies_and_pickles_are_as_before(self):
        assert copy.deepcopy(Box(3)) == pickle.loads(pickle.dumps(Box(3))) == Box(3)

    def test_of_tokenised_pairs(self):
        pairs: Any = TokenizedPairs(torch.zeros(2, 1), torch.zeros(2), torch.zeros(2, 2))
        assert pairs.at is pairs.last_positions

    def test_of_a_model(self):
        model: Any = ww.load(GOLDEN / "model")
        assert model.record == model.run_with_cache

    def test_of_masks(self, capsys):
        transformer = Transformer(ModelConfig(n_layer=1, d_model=16, vocab_size=8, n_ctx=4))
        means = {
            site: torch.zeros(transformer.sites[site].width)
            for site in [*transformer.node_sites, "0.attn.y"]
        }
        ablation: Any = circuits.Ablation.of(transformer, means)
        assert (ablation.bank, ablation.draws) == (None, 1)
        assert ablation.falls == ablation.loss_increase
        assert ablation.at_means == ablation.with_mean_ablation
        assert "Ablation.falls is called loss_increase now" in capsys.readouterr().err
        masks: Any = circuits.EdgeMasks.of(ablation, torch.ones(ablation.size))
        assert masks.places is masks.node_indices
        by_old_name: Any = circuits.EdgeMasks
        indices = torch.arange(2)
        assert by_old_name(ablation, places=indices, edges_by_matrix=()).node_indices is indices

    def test_of_a_transformer(self):
        transformer: Any = Transformer(ModelConfig(n_layer=1, d_model=16, vocab_size=8, n_ctx=4))
        assert transformer.ablated == transformer.run_ablated
        with pytest.raises(AttributeError, match="'Transformer' object has no attribute 'nope'"):
            transformer.nope  # noqa: B018


class TestOldArguments:
    def test_is_passed_by_its_current_name(self, capsys):
        assert repeated(rows=[1], n=2) == repeated([1], 2) == [1, 1]
        told = capsys.readouterr().err
        assert "warning: the argument rows of repeat is called batch now\n" in told
        assert "warning: the argument n of repeat is called count now\n" in told

    def test_of_a_constructor(self, capsys):
        assert Box(length=3) == Box(size=3) == replace(Box(1), size=3)
        assert "the argument length of Sized is called size now" in capsys.readouterr().err

    def test_both_names_at_once_are_an_error(self):
        with pytest.raises(TypeError, match=r"repeat\(\) got batch also as rows, its old name"):
            repeated(batch=[1], rows=[2])

    def test_an_unknown_argument_is_an_error(self):
        with pytest.raises(TypeError, match="unexpected keyword argument 'row'"):
            repeated(row=[1])

    def test_the_signature_has_current_names_only(self):
        assert list(inspect.signature(repeated).parameters) == ["batch", "count"]
        assert list(inspect.signature(Box).parameters) == ["size"]
        assert repeated.__doc__ == "Return a list as often as asked for."

    def test_of_the_best_match(self):
        best_match: Any = studies.best_match
        assert best_match(found=[]) is None

    def test_of_a_transformer(self, capsys):
        transformer = Transformer(ModelConfig(n_layer=1, d_model=16, vocab_size=8, n_ctx=4))
        tokens, last = torch.tensor([[1, 2, 3]]), torch.tensor([1])
        block_inputs: list[torch.Tensor] = []
        logits = transformer(tokens, at=last, keep=block_inputs)
        assert torch.equal(logits, transformer(tokens, last_positions=last))
        assert len(block_inputs) == 1
        told = capsys.readouterr().err
        assert "the argument at of Transformer.forward is called last_positions now" in told


def test_examples_of_docstrings_hold():
    assert doctest.testmod(renamed_names).failed == 0
