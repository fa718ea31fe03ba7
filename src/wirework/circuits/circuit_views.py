"""A circuit as a picture (`Circuit.show`) and as a table (`Circuit.to_dataframe`)."""

from typing import TYPE_CHECKING, Any, Literal

from wirework.circuit_format import CircuitFolder, Document
from wirework.errors import InputError, quoted, translated_errors

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

    from wirework.picture import Picture

Table = Literal["nodes", "edges", "io_edges", "embedding_edges", "path_edges"]
"""Part of a circuit that a table lists."""
TABLES: tuple[Table, ...] = ("nodes", "edges", "io_edges", "embedding_edges", "path_edges")


def picture(document: Document, activations: "Tensor") -> "Picture":
    """Draw a circuit as `wirework export --png` does.

    Args:
        document: the circuit.
        activations: (P, T, N) of its nodes in the example prompts.
    """
    from wirework.view.figures.figure import draw_figure
    from wirework.view.page.page_data import page_data

    folder = CircuitFolder(document, {}, activations.float().cpu().numpy())
    return draw_figure(page_data(folder))


def dataframe(document: Document, table: Table) -> "DataFrame":
    """Return one part of a circuit as a table, one row per entry (see `Circuit.to_dataframe`)."""
    if table not in TABLES:
        raise InputError(f"a circuit has the tables {', '.join(TABLES)}, got {quoted(table)}")
    rows = _rows(document, table)
    with translated_errors("to_dataframe needs pandas, run `pip install pandas`"):
        import pandas as pd
    return pd.DataFrame(rows, columns=_COLUMNS[table])


_COLUMNS: dict[Table, list[str]] = {
    "nodes": ["site", "index", "mean", "score", "share"],
    "edges": ["source_site", "source_index", "target_site", "target_index", "weight", "share"],
    "io_edges": ["token", "answer", "token_id", "site", "index", "weight"],
    "embedding_edges": ["group", "channel", "n_entries"],
    "path_edges": ["source", "target", "effect"],
}


def _rows(document: Document, table: Table) -> list[tuple[Any, ...]]:
    """Return the rows of a table, with the columns of `_COLUMNS`."""
    nodes = [(node.site, node.index) for node in document.nodes]
    if table == "nodes":
        return [(n.site, n.index, n.mean, n.score, n.share) for n in document.nodes]
    if table == "edges":
        return [(*nodes[e.source], *nodes[e.target], e.weight, e.share) for e in document.edges]
    if table == "path_edges":
        return [(e.source, e.target, e.effect) for e in document.path_edges]
    if table == "embedding_edges":
        if (part := document.embedding_edges) is None:
            return []
        return [(part.groups[e.group].name, e.channel, e.n_entries) for e in part.edges]
    rows = []
    for edge in document.io_edges:
        node = edge.target if edge.source is None else edge.source
        assert node is not None  # each has one end
        rows.append((edge.token, edge.answer, edge.token_id, *nodes[node], edge.weight))
    return rows
