"""Figures of the studies, drawn from their JSON files.

Figure numbers are those of Gao et al. 2025. Each figure is one function of the content of
`results.json`, `token_losses.json` or `finders.json`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from wirework.view.checked_file import read_checked
from wirework.view.figures import figure_pen as pen
from wirework.view.figures.figure_canvas import panels, write_png
from wirework.view.figures.study_file import FinderResults, FrontierResults, TokenLosses
from wirework.view.visible_text import number

SPARSE, DENSE = "#1f6fb4", "#c2571a"
_HUES = ("#1f6fb4", "#2a9d6f", "#7b4fa3", "#b8902a", "#c23b6a", "#4c5b6b")
_MARKERS = ("o", "^", "D", "v", "P", "X")
_SIZE = (6.4, 4.8)  # inches of a panel

_KURTOSES = {
    "log_kurtosis": (
        "log(mean kurtosis of channels), final residual stream",
        "1.10: normally distributed channels",
        "linear",
    ),
    "kurtosis": (
        "pooled kurtosis of the final residual stream",
        "pooled over channels, as in versions up to 0.2; 3: normal distribution",
        "log",
    ),
}
"""Label of the axis, note and scale of each kind of kurtosis, the one to prefer first."""

JsonRow = Mapping[str, Any]

Count = Literal["edges", "kept_edges"]
_WORDS: Mapping[Count, str] = {"edges": "edges", "kept_edges": "kept edges"}
_PAPER = ", bisection alone (the paper's)"


def write_study_figures(folder: str | Path) -> list[Path]:
    """Draw the figures of a frontier study, and return their paths.

    Args:
        folder: the study's folder, with `results.json` and, if models were matched,
            `token_losses.json`. `fig02.png`, `fig03.png`, `fig10.png` and `fig33.png` are written
            there; a figure without numbers is removed.

    Raises:
        InputError: a file is missing or damaged, or the folder cannot be written to.
    """
    folder = Path(folder)
    results = read_checked(folder / "results.json", FrontierResults).model_dump()
    tokens: dict[str, Any] = {"joints": []}
    if results["pair"] is not None:
        tokens = read_checked(folder / "token_losses.json", TokenLosses).model_dump()
    drawn: dict[str, tuple[Callable[[Any], Figure], Any, bool]] = {
        "fig02.png": (draw_targets, results, any(map(_compared, results.get("targets", [])))),
        "fig03.png": (draw_frontier, results, _count_of(results["cells"]) is not None),
        "fig10.png": (draw_kurtosis, results, _kurtosis_name(results["cells"]) is not None),
        "fig33.png": (draw_token_losses, tokens, bool(tokens["joints"])),
    }
    written = []
    for name, (draw, data, possible) in drawn.items():
        path = folder / name
        if possible:
            written.append(write_png(draw(data), path))
        else:
            path.unlink(missing_ok=True)
    return written


def write_finders_figure(folder: str | Path) -> Path:
    """Draw `finders.json` of a study's folder as `finders.png` beside it.

    Raises:
        InputError: the file is missing or damaged, or the folder cannot be written to.
    """
    folder = Path(folder)
    results = read_checked(folder / "finders.json", FinderResults).model_dump()
    return write_png(draw_finders(results), folder / "finders.png")


def draw_finders(results: Mapping[str, Any]) -> Figure:
    """Draw Fig. 31: edges against target loss, a line for each finder.

    Each point is a geometric mean over the tasks for which every finder has a circuit. Learned
    masks have a second line, from the bisection of the same masks alone: that of the paper.
    """
    figure, (axes,) = panels(1, size=_SIZE)
    count = _count_of(results["rows"]) or "edges"
    rows = [row for row in results["rows"] if row[count] is not None]
    names = list(dict.fromkeys(row["finder"] for row in rows))
    kinds = list(dict.fromkeys(name.split(" ")[0] for name in names))
    for name in names:
        kind, *cleaned = name.split(" ")
        style = {"color": _HUES[kinds.index(kind) % len(_HUES)], "marker": "o", "markersize": 5}
        if not cleaned and kind != "learned":
            style |= {"linestyle": "--", "markerfacecolor": "white"}
        some = [row for row in rows if row["finder"] == name]
        _plot(axes, some, "target_loss", count, label=name, **style)
        bisected = [row for row in some if row.get("paper_edges") is not None]
        if name == "learned" and bisected:
            style |= {"linestyle": "--", "markerfacecolor": "white"}
            _plot(axes, bisected, "target_loss", "paper_edges", label=f"{name}{_PAPER}", **style)
    words = f"{_WORDS[count]}, geometric mean over tasks"
    _scales(axes, "target task loss, nats", words, x="log", y="log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({row["target_loss"] for row in rows})))
    axes.invert_xaxis()
    n_tasks = sorted({row["n_tasks"] for row in rows})
    tasks = (
        f"{n_tasks[0]}"
        if len(n_tasks) == 1
        else f"{n_tasks[0]} to {n_tasks[-1]}"
        if n_tasks
        else "0"
    )
    _title(axes, "Finders", f"dashed, hollow: bisection alone; tasks: {tasks}")
    axes.legend(frameon=False, fontsize=7, handlelength=5)  # dashes show on both sides of a point
    return figure


def draw_targets(results: Mapping[str, Any]) -> Figure:
    """Draw Fig. 2: edges against target loss, for a sparse and a dense model of equal loss.

    Each point is a geometric mean over the tasks for which both have a circuit; their number stands
    above the dense point. Dashed lines are those of the paper: circuits of the same masks at plain
    bisection.
    """
    pair = results["pair"]
    is_old = all(row["ratio"] is None for row in results["targets"])
    by_target = {row["target_loss"]: _compared(row) for row in results["targets"]}
    rows = [(target, sizes) for target, sizes in by_target.items() if sizes is not None]
    bisected = [(row["target_loss"], row.get("paper") or {}) for row in results["targets"]]
    papers = [(target, sizes) for target, sizes in bisected if sizes.get("ratio") is not None]
    figure, (axes,) = panels(1, size=_SIZE)
    losses = [target for target, _ in rows]
    for kind, colour in (("dense", DENSE), ("sparse", SPARSE)):
        label = f"{pair[kind]}, held-out loss {number(pair[f'{kind}_loss'])}"
        edges = [sizes[f"{kind}_edges"] for _, sizes in rows]
        ours = ", our circuits" if papers else ""
        axes.plot(losses, edges, marker="o", color=colour, label=f"{label}{ours}")
    for kind, colour in (("dense", DENSE), ("sparse", SPARSE)) if papers else ():
        axes.plot(
            [target for target, _ in papers],
            [sizes[f"{kind}_edges"] for _, sizes in papers],
            label=f"{pair[kind]}{_PAPER}",
            color=colour,
            marker="o",
            linestyle="--",
            markerfacecolor="white",
        )
    for target, sizes in rows:
        _note(axes, (target, sizes["dense_edges"]), f"n={len(sizes['tasks'])}")
    words = f"{_WORDS['kept_edges' if is_old else 'edges']}, geometric mean over n tasks"
    _scales(axes, "target task loss, nats", words, x="log", y="log")
    axes.xaxis.set_major_locator(FixedLocator(losses))
    axes.invert_xaxis()
    in_short = "; ".join(results["verdict"].split("; ")[:2])  # all of it is wider than the figure
    _title(axes, "Circuit size against target loss", in_short)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8)  # over no point
    return figure


def draw_frontier(results: Mapping[str, Any]) -> Figure:
    """Draw Fig. 3: held-out loss against circuit size.

    Solid lines connect models of equal L0, dashed lines models of equal size. The label of a point
    has the number of tasks of its geometric mean. Hollow points on dotted lines are those of the
    paper: the same models, with circuits of the same masks at plain bisection. A horizontal line is
    the held-out loss of the bigram table alone, where it is recorded.
    """
    count = _count_of(results["cells"]) or "edges"
    cells = [cell for cell in results["cells"] if cell[count] is not None]
    bisected = [cell for cell in cells if cell.get("paper_edges") is not None]
    sparse = [cell for cell in cells if cell["kind"] == "sparse"]
    figure, (axes,) = panels(1, size=_SIZE)
    hues, marks = _styles(sparse)
    for (l0, share), line in _lines(sparse, ("l0_count", "act_fraction"), "width").items():
        style = {"color": hues[l0], "marker": marks[share], "zorder": 3}
        _plot(axes, line, count, "val_loss", label=_l0(l0, share), **style)
    for line in _lines(sparse, ("width", "act_fraction"), "l0_count").values():
        _plot(axes, line, count, "val_loss", color=pen.SOFT, linestyle="--", linewidth=1)
    dense = [cell for cell in cells if cell["kind"] == "dense"]
    if dense:
        _plot(axes, dense, count, "val_loss", label="dense", color=DENSE, marker="s", linestyle="")
    _plot_bisected(axes, bisected, hues, marks)
    if (bigram := results.get("bigram_loss")) is not None:
        label = f"bigram table alone, {number(bigram)}"
        axes.axhline(bigram, color=pen.INK, linestyle="-.", linewidth=1, label=label)
    for cell in cells:
        text = f"w{cell['width']} n={cell['n_circuits']}"
        _note(axes, (cell[count], cell["val_loss"]), text)
    target = f"at target {results['target_loss']:g} nats, geometric mean over n tasks"
    _scales(axes, f"{_WORDS[count]} {target}", "held-out loss, nats per token", x="log")
    _title(
        axes,
        "Capability and circuit size",
        "solid: equal L0; dashed: equal size; w: width, n: tasks with a circuit",
    )
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)  # over no point
    return figure


def draw_kurtosis(results: Mapping[str, Any]) -> Figure:
    """Draw Fig. 10: kurtosis of the final residual stream against L0 (left) and width (right).

    The axis is log(mean over channels of the kurtosis). Results of earlier versions have only the
    kurtosis pooled over channels; it is drawn, on a logarithmic axis, if no model has the former.
    """
    figure, (left, right) = panels(2, size=_SIZE)
    name = _kurtosis_name(results["cells"]) or "log_kurtosis"
    cells = [cell for cell in results["cells"] if cell.get(name) is not None]
    sparse = [cell for cell in cells if cell["kind"] == "sparse"]
    dense = [cell for cell in cells if cell["kind"] == "dense"]
    hues, marks = _styles(sparse)
    widths = sorted({cell["width"] for cell in sparse})
    for (width, share), line in _lines(sparse, ("width", "act_fraction"), "n_nonzero").items():
        style = {"color": _HUES[widths.index(width) % len(_HUES)], "marker": marks[share]}
        label = f"width {width}{_kept(share)}"
        _plot(left, line, "n_nonzero", name, label=label, **style)
    for (count, share), line in _lines(sparse, ("l0_count", "act_fraction"), "width").items():
        style = {"color": hues[count], "marker": marks[share]}
        _plot(right, line, "width", name, label=_l0(count, share), **style)
    if dense:
        style = {"color": DENSE, "marker": "s", "linestyle": "", "label": "dense"}
        _plot(left, dense, "n_nonzero", name, **style)
        _plot(right, dense, "width", name, **style)
    label, note, scale = _KURTOSES[name]
    _scales(left, "nonzero weights (L0)", label, x="log", y=scale)
    _scales(right, "width", "", x="log", y=scale)
    for axes, column in ((left, "l0_count"), (right, "width")):
        values = sorted({cell[column] for cell in sparse})
        if values:
            axes.xaxis.set_major_locator(FixedLocator(values))
    _title(left, "Kurtosis against L0", note)
    _title(right, "Kurtosis against width", "")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=7)
    return figure


def _kurtosis_name(cells: Iterable[JsonRow]) -> str | None:
    """Return which kurtosis the models have; None if they have none."""
    cells = list(cells)
    measured = (name for name in _KURTOSES if any(cell.get(name) is not None for cell in cells))
    return next(measured, None)


def draw_token_losses(tokens: Mapping[str, Any]) -> Figure:
    """Draw Fig. 33: losses of held-out tokens under two models, a panel for each pair."""
    joints = tokens["joints"]
    figure, each = panels(len(joints), columns=len(joints), size=_SIZE)
    for axes, joint in zip(each, joints, strict=True):
        top, counts = joint["top"], joint["counts"]
        step = top / len(counts)
        edges = [i * step for i in range(len(counts) + 1)]
        across = [list(row) for row in zip(*counts, strict=True)]  # first model's loss along x
        largest_count = max(2, max(max(row) for row in across))
        mesh = axes.pcolormesh(edges, edges, across, norm=LogNorm(1, largest_count), cmap="Blues")
        axes.plot([0, top], [0, top], color=pen.SOFT, linewidth=0.8, linestyle="--")
        figure.colorbar(mesh, ax=axes, label="tokens")
        _scales(axes, f"{joint['first']}, nats", f"{joint['second']}, nats")
        subtitle = f"correlation {number(joint['correlation'])} over {joint['n_tokens']:,} tokens"
        kinds = "Dense and sparse" if joint["kind"] == "sparse" else "Two dense seeds"
        _title(axes, f"Token losses: {kinds.lower()}", subtitle)
        axes.set_aspect("equal")
    return figure


def _plot_bisected(
    axes: Axes, cells: Sequence[JsonRow], hues: Mapping[int, str], marks: Mapping[float, str]
) -> None:
    """Draw the models again, with the sizes of their circuits at plain bisection."""
    sparse = [cell for cell in cells if cell["kind"] == "sparse"]
    lines = _lines(sparse, ("l0_count", "act_fraction"), "width")
    styles = [
        (line, {"color": hues[l0], "marker": marks[share]}) for (l0, share), line in lines.items()
    ]
    if dense := [cell for cell in cells if cell["kind"] == "dense"]:
        styles.append((dense, {"color": DENSE, "marker": "s"}))
    for number_of_line, (line, style) in enumerate(styles):
        joined = ":" if line[0]["kind"] == "sparse" else ""
        label = None if number_of_line else f"hollow, dotted{_PAPER}"
        style |= {"linestyle": joined, "markerfacecolor": "white"}
        _plot(axes, line, "paper_edges", "val_loss", label=label, **style)


def _count_of(rows: Iterable[JsonRow]) -> Count | None:
    """Return the number of edges to draw: kept edges if only these are recorded."""
    rows = list(rows)
    names: tuple[Count, Count] = ("edges", "kept_edges")
    recorded = (name for name in names if any(row.get(name) is not None for row in rows))
    return next(recorded, None)


def _compared(row: JsonRow) -> JsonRow | None:
    """Return the sizes of both models at a target: by kept edges if only these are recorded."""
    for sizes in (row, row.get("kept") or {}):
        if sizes.get("ratio") is not None:
            return sizes
    return None


def _styles(cells: Sequence[JsonRow]) -> tuple[dict[int, str], dict[float, str]]:
    """Return a colour for each L0 and a marker for each activation fraction."""
    counts = sorted({cell["l0_count"] for cell in cells})
    shares = sorted({cell["act_fraction"] for cell in cells})
    hues = {count: _HUES[i % len(_HUES)] for i, count in enumerate(counts)}
    return hues, {share: _MARKERS[i % len(_MARKERS)] for i, share in enumerate(shares)}


def _lines(
    cells: Iterable[JsonRow], equal: tuple[str, str], along: str
) -> dict[tuple[Any, Any], list[JsonRow]]:
    """Return groups of cells with equal values of `equal`, each ordered by `along`."""
    lines: dict[tuple[Any, Any], list[JsonRow]] = {}
    for cell in sorted(cells, key=lambda cell: cell[along]):
        lines.setdefault((cell[equal[0]], cell[equal[1]]), []).append(cell)
    return dict(sorted(lines.items()))


def _plot(axes: Axes, cells: Sequence[JsonRow], x: str, y: str, **style: Any) -> None:
    axes.plot([cell[x] for cell in cells], [cell[y] for cell in cells], **style)


def _l0(count: int, share: float) -> str:
    return f"L0 {count:,}{_kept(share)}"


def _kept(share: float) -> str:
    return f", {share:.0%} of activations"


def _note(axes: Axes, place: tuple[float, float], text: str) -> None:
    axes.annotate(text, place, (4, 5), textcoords="offset points", fontsize=7, color=pen.SOFT)


def _scales(axes: Axes, x_label: str, y_label: str, x: str = "linear", y: str = "linear") -> None:
    axes.set_xlabel(x_label, color=pen.INK)
    axes.set_ylabel(y_label, color=pen.INK)
    axes.set_xscale(x)
    axes.set_yscale(y)
    for axis, scale in ((axes.xaxis, x), (axes.yaxis, y)):
        if scale == "log":
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axes.spines[["top", "right"]].set_visible(False)


def _title(axes: Axes, title: str, under: str) -> None:
    axes.set_title(f"{title}\n", loc="left", fontsize=11, fontweight="bold", color=pen.INK)
    axes.text(
        0, 1.02, under, transform=axes.transAxes, fontsize=8, color=pen.SOFT, parse_math=False
    )
