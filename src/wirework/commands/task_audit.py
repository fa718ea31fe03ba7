"""Terminal tables that say whether the prompts of behaviours measure what they should."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from wirework.commands.printing import (
    cell,
    print_next,
    print_paragraph,
    print_table,
    print_verdict,
    show_all,
)
from wirework.config import DataConfig
from wirework.console import Progress, warn
from wirework.errors import number_of
from wirework.files import is_file
from wirework.user_code import refuse_saved_function


def print_contamination(
    corpus: str, names: Sequence[str], max_bytes: int | None, *, as_json: bool
) -> None:
    """Print which share of each behaviour's prompts occurs in a corpus.

    Args:
        corpus: name of a corpus, or a run folder, whose text is read.
        names: behaviours; none: the twenty on Python.
        max_bytes: bytes of the text to read; None for the default.
        as_json: print one JSON object.

    Raises:
        InputError: the corpus, the run or a behaviour cannot be read.
    """
    from wirework.tasks.contamination import WINDOW, contamination

    text = _text_of(corpus)
    total = max_bytes or (text.max_bytes if isinstance(text, DataConfig) else None)
    with Progress("contamination", total) as bar:
        report = contamination(text, names or None, max_bytes=max_bytes, on_progress=bar.update)
    for task, share in report.contained.items():
        warn(
            f"{corpus} contains {share:.1%} of the prompts of {task} up to names and numbers: "
            "a model trained on it has seen what the task measures"
        )
    rows = [asdict(row) for row in report.tasks]
    if as_json:
        about = {"corpus": corpus, "bytes": report.n_bytes, "documents": report.n_documents}
        show_all("contamination", {**about, "tasks": rows}, as_json=True)
        return
    contained = len(report.contained)
    windows, last_lines = (max(row[name] for row in rows) for name in ("window", "last_line"))
    print_verdict(
        f"{contained} of {number_of(len(rows), 'behaviour')} have whole prompts in {corpus}, the "
        f"last {WINDOW} tokens occur of up to {windows:.0%} of a behaviour's prompts, the last "
        f"line of up to {last_lines:.0%} ({report.n_bytes:,} bytes in "
        f"{number_of(report.n_documents, 'document')} read)"
    )
    title = (
        "share of distinct prompts that occur: exact = whole prompt; up to names = with any names, "
        "numbers and strings; window = last 8 words and signs; last line = at the start of a line"
    )
    columns = ["task", "n_prompts", "exact", "up_to_names", "window", "last_line"]
    print_table(title, columns, [[cell(row[name]) for name in columns] for row in rows])
    print_next("tasks", "--show", rows[0]["task"])


def print_shortcuts(names: Sequence[str], model: Path | None, *, as_json: bool) -> None:
    """Print what length and last token tell of the answer of each behaviour.

    Args:
        names: behaviours; none: the twenty on Python.
        model: model whose tokeniser is used; None: words and signs.
        as_json: print one JSON object.

    Raises:
        InputError: a behaviour cannot be read or does not fit the model.
    """
    from wirework.model import load
    from wirework.tasks.shortcuts import SUSPICIOUS, all_shortcuts

    with Progress("shortcuts", None):
        found = all_shortcuts(names or None, None if model is None else load(model))
    rows = [asdict(row) for row in found]
    if as_json:
        show_all("shortcuts", {"tasks": rows}, as_json=True)
        return
    suspicious = [row.task for row in found if row.suspicious]
    print_verdict(
        f"{len(suspicious)} of {number_of(len(rows), 'behaviour')} have a shortcut"
        + (f": {', '.join(suspicious)}" if suspicious else "")
    )
    columns = ["task", "n_pairs", "length", "lines", "last_token", "longer_first"]
    title = (
        "held-out accuracy of a linear probe on the number of tokens, on that of lines and on the "
        "last token of a prompt (0.5 = chance); longer first = share of unequal pairs whose first "
        "prompt is longer"
    )
    print_table(title, columns, [[cell(row[name]) for name in columns] for row in rows])
    print_paragraph(f"A probe above {SUSPICIOUS} counts as a shortcut.")
    print_next("tasks", "--contamination", "programs")


def _text_of(corpus: str) -> str | DataConfig:
    """Return the settings of a run's text if the corpus is a run folder, else the corpus.

    Raises:
        InputError: the settings of the run are damaged, or name a user's function.
    """
    path = Path(corpus) / "config.yaml"
    if not is_file(path):
        return corpus
    from wirework.training.run_folder import read_settings

    settings = read_settings(Path(corpus)).data
    for name in (settings.corpus, settings.mix):
        refuse_saved_function(name, f"{path} names as text", "--contamination")
    return settings
