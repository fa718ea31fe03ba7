"""`Circuit`: base of the two types of circuit, `NodeCircuit` and `PathCircuit`.

A circuit is a value: its document (circuit.json) and, by type, tensors. It is saved as a folder
(docs/architecture.md, Circuit folder).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from wirework import files
from wirework.circuit_format import (
    ACTIVATIONS,
    CIRCUIT_FILES,
    FORMAT,
    LENGTHS,
    CircuitFolder,
    Document,
    Level,
    Losses,
    read_circuit,
)
from wirework.circuits.circuit_views import Table, dataframe, picture
from wirework.config import LossReduction
from wirework.errors import InputError, quoted
from wirework.files import atomic_dir, save_tensors, write_json
from wirework.summaries import html_table, short, shown_as
from wirework.tasks import Task, TokenizedPairs, tokenizer_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from wirework.model import Model
    from wirework.picture import Picture


@dataclass(frozen=True, eq=False)
class Circuit(ABC):
    """The circuit of one task in one model: a `NodeCircuit` or a `PathCircuit`."""

    document: Document
    """Content of circuit.json."""

    level: ClassVar[Level]
    """`level` of the documents of this type."""
    contents: ClassVar[str]
    """Name of the parts that circuits of this type consist of, for messages."""
    main_table: ClassVar[Table]
    """Table that `to_dataframe` returns by default."""
    _types: ClassVar[dict[Level, type["Circuit"]]] = {}

    def __init_subclass__(cls) -> None:
        Circuit._types[cls.level] = cls

    @abstractmethod
    def sizes(self) -> dict[str, int | None]:
        """Return the number of parts of each kind, the entries `n_...` of `summary`.

        None: not recorded.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of circuit.safetensors by name."""

    @classmethod
    @abstractmethod
    def of_folder(cls, folder: CircuitFolder) -> Self:
        """Return the circuit of the content of its folder."""

    @abstractmethod
    def evaluate(self, model: "Model | str | Path", task: Task | str | Path) -> float:
        """Return the loss of the circuit alone on all pairs of a task; lower is better.

        Args:
            model: the circuit's model; a path is loaded.
            task: a task, or what `ww.task` takes.

        Returns:
            Of a `NodeCircuit` the task loss in nats, of a `PathCircuit` the metric of its finder.

        Raises:
            InputError: `model` is another model, or the task does not fit it.
        """

    def summary(self) -> dict[str, Any]:
        """Return its task, size and losses (nats), and how it was found.

        `trained_on_tasks` is an entry if the model was trained on text drawn from the tasks.
        """
        return {
            "task": self.document.task.name,
            **self.sizes(),
            "task_loss": self.task_loss,
            "target_loss": self.document.target_loss,
            "loss_reduction": self.loss_reduction,
            "reached": self.reached,
            "model_loss": self.losses.model,
            "without_circuit": self.losses.without_circuit,
            "finder": self.document.provenance.finder,
            **({"trained_on_tasks": True} if self.document.model.trained_on_tasks else {}),
        }

    def __repr__(self) -> str:
        about = self.summary()
        sizes = (_counted(name[2:].replace("_", " "), n) for name, n in self.sizes().items())
        unit = "nats" if self.loss_reduction == "mean" else "nats, sum over both prompts"
        losses = f"task loss {self.task_loss:.4g} {unit}{self._target_text()}"
        losses += f", whole model {self.losses.model:.4g}, found by {short(about['finder'])}"
        kind = type(self).__name__
        first = f"{quoted(about['task'])}: {', '.join(sizes)}"
        return shown_as(kind, first, losses, *self._more_text())

    def _more_text(self) -> tuple[str, ...]:
        """Return further lines of `repr`."""
        return ()

    def _target_text(self) -> str:
        """Return what `repr` says of the target loss."""
        return ""

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, self.summary())

    def show(self) -> "Picture":
        """Draw the circuit as `wirework view --png` does.

        Returns:
            A matplotlib figure: a notebook shows it, `savefig` writes it.

        Raises:
            InputError: the circuit is at odds with itself.
        """
        return picture(self.document, self.tensors()[ACTIVATIONS])

    def to_dataframe(self, table: Table | None = None) -> "DataFrame":
        """Return nodes or edges as a pandas table, a row for each, in the circuit's order.

        Args:
            table: `nodes` (site, index, mean, score, share), `edges` (site and index of source and
                target, weight, share), `io_edges` (token or answer, node, weight),
                `embedding_edges` (token group, channel, entries) or `path_edges` (source, target,
                effect); None for `edges`, of a `PathCircuit` `path_edges`.

        Raises:
            InputError: another table, or pandas is not installed.
        """
        return dataframe(self.document, table or self.main_table)

    @property
    def losses(self) -> Losses:
        """Task losses in nats: of the circuit, the model, the model without the circuit, ..."""
        return self.document.losses

    @property
    def loss_reduction(self) -> LossReduction:
        """Whether losses and target are means or sums over the two prompts of a pair."""
        return self.document.loss_reduction or "mean"

    @property
    def task_loss(self) -> float:
        """Task loss in nats with everything outside the circuit ablated, uncalibrated."""
        return self.losses.circuit

    @property
    def reached(self) -> bool:
        """Whether the target loss is met, with held-out ablation values too."""
        return self.document.reached

    def check_model(self, model: "Model | str | Path") -> None:
        """Check that a model (or the one at a path) is the model of this circuit.

        Raises:
            InputError: it is another model.
        """
        from wirework.model import load

        model = load(model)
        expected = self.document.model.fingerprint
        if model.fingerprint != expected:
            raise InputError(
                f"the circuit belongs to another model: fingerprint {expected[:12]}..., "
                f"this one has {model.fingerprint[:12]}..."
            )

    def save(self, folder: str | Path) -> Path:
        """Save the circuit to a folder atomically; a circuit already there is replaced.

        Raises:
            InputError: the folder cannot be written, or contains something else than a circuit.
        """
        folder = Path(folder)
        check_circuit_place(folder)
        lengths = [len(prompt) for prompt in self.document.examples.prompts]
        tensors = {name: tensor.float().contiguous() for name, tensor in self.tensors().items()}
        tensors[LENGTHS] = torch.tensor(lengths, dtype=torch.int32)
        with atomic_dir(folder) as partial:
            write_json(partial / "circuit.json", self.document.to_json())
            save_tensors(partial / "circuit.safetensors", tensors, {"format": FORMAT})
        return folder

    @classmethod
    def load(cls, folder: "str | Path | Circuit") -> Self:
        """Load a circuit from a folder; a circuit is returned unchanged.

        `Circuit.load` returns a `NodeCircuit` or a `PathCircuit`, by what the folder contains.

        Raises:
            InputError: the circuit is missing, damaged, of another format or of a newer version; or
                the method of one type, such as `NodeCircuit.load`, is given the other.
        """
        if isinstance(folder, Circuit):
            circuit = folder
        else:
            content = read_circuit(Path(folder))
            circuit = Circuit._types[content.document.level].of_folder(content)
        if not isinstance(circuit, cls):
            where = "" if isinstance(folder, Circuit) else f"{folder}: "
            raise InputError(f"{where}expected a circuit of {cls.contents}, got {circuit.contents}")
        return circuit


def _counted(parts: str, count: int | None) -> str:
    return f"{parts} not recorded" if count is None else f"{count} {parts}"


def check_circuit_place(folder: str | Path) -> None:
    """Check, before a search, that a circuit can be saved to a folder.

    Raises:
        InputError: the folder contains something else or cannot be written.
    """
    files.check_folder(Path(folder), "a circuit", CIRCUIT_FILES)


def tokenize_task(task: Task, model: "Model") -> TokenizedPairs:
    """Tokenise all pairs of a task with the model's tokeniser, on the model's device.

    Raises:
        InputError: a pair does not fit the model, or the model has no tokeniser.
    """
    batch = task.encode(tokenizer_of(model), model.config.n_ctx)
    return batch.to(model.transformer.embed.weight.device)
