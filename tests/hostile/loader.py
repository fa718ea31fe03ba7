"""What reads files that may come from a stranger: how its input is made, read and sealed."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVERYTHING = "*"


class Nonsense(Exception):  # noqa: N818
    """Something was loaded without a word that cannot be right, such as weights that are NaN."""


@dataclass(frozen=True)
class Loader:
    """Something that reads files."""

    name: str
    build: Callable[[Path], None]
    """Writes a good input to an empty folder."""
    load: Callable[[Path], Any]
    """Reads the folder as a user's call does, and returns what `digest` can compare."""
    files: tuple[str, ...]
    """Which files are mutated, as patterns below the folder."""
    protected: bool = False
    """Whether checksums of ours cover the files: no change at all may pass without a word."""
    seal: Callable[[Path], None] | None = None
    """Recomputes the checksums, as whoever made the folder could."""
    held_out: tuple[str, ...] = ()
    """Mutations, by name or beginning, that nobody can tell from a good file of the format, such as
    a text that is cut short; `*`: any."""

    def may_miss(self, mutation: str) -> bool:
        """Say whether a mutation cannot be told from a good file of this format."""
        return any(name == EVERYTHING or mutation.startswith(name) for name in self.held_out)


def digest(value: Any) -> str:
    """Return a hash of a value: of tensors, arrays, dataclasses, models, plain values."""
    return hashlib.sha256(repr(_plain(value)).encode("utf-8", "backslashreplace")).hexdigest()


def _plain(value: Any) -> Any:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().to_dense()
        raw = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return str(value.dtype), tuple(value.shape), hashlib.sha256(raw).hexdigest()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, _plain(getattr(value, f.name))) for f in dataclasses.fields(value)]
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump())
    if isinstance(value, Mapping):
        return sorted((str(name), repr(_plain(held))) for name, held in value.items())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return "path"
    return value


def check_finite(tensors: Mapping[str, Any]) -> None:
    """Make sure that no tensor holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise Nonsense(f"{name} is not finite")


def of_model(model: Any) -> Any:
    """Return what makes a model what it is, after it has been used once."""
    import torch

    check_finite(model.transformer.state_dict())
    tokens = torch.arange(min(8, model.config.n_ctx))[None] % model.config.vocab_size
    model(tokens)
    gates = None if model.gates is None else model.gates.state_dict()
    if gates is not None:
        check_finite(gates)
        model.streams(tokens)
    tokenizer = model.tokenizer
    if tokenizer is not None:
        tokenizer.decode(tokenizer.encode("def f(x):\n    return 'a'\n"))
    return [model.fingerprint, gates, tokenizer and tokenizer.fingerprint]


def seal_folder(folder: Path) -> None:
    """Recompute `checksums.json` over all other files."""
    sums = {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "checksums.json"
    }
    (folder / "checksums.json").write_text(json.dumps(sums))


def seal_record(path: Path) -> None:
    """Recompute the checksum that a JSON record has in itself."""
    try:
        record = json.loads(path.read_text())
        record.pop("sha256", None)
    except (ValueError, AttributeError):
        return
    text = json.dumps(record, sort_keys=True)
    path.write_text(json.dumps(record | {"sha256": hashlib.sha256(text.encode()).hexdigest()}))
