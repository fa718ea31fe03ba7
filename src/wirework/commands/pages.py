"""Verbs for pages: as a file or from a local server."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wirework.commands.printing import print_next, print_paths
from wirework.errors import InputError


def view(
    circuit: Path, /, *, port: int = 0, browser: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Serve a circuit's page until Ctrl-C, then print the next command.

    Args:
        circuit: Circuit folder.
        port: Port to listen on; 0 takes a free one.
        browser: Open the page in the default browser.
    """
    from wirework.view import serve

    serve(circuit, port=port, open_browser=browser)
    print_next("export", circuit, "-o", f"{circuit}.html")


def export(
    circuit: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
    png: Path | None = None,
) -> None:
    """Write the page of a circuit or of explained neurons, a picture if asked; print their paths.

    Args:
        circuit: Circuit folder, or what `explain` wrote.
        out: The page.
        png: Also draw a picture of the circuit, a `.png` file.
    """
    from wirework.files import check_file, is_file
    from wirework.view import load_page_data, write_figure, write_neuron_page, write_page

    check_file(out)
    explained = (circuit / "neurons").is_dir() or is_file(circuit / "explain.json")
    if not explained and not is_file(circuit / "circuit.json"):
        raise InputError(
            f"neither circuit nor explained neurons at {circuit}: no circuit.json, no explain.json"
        )
    if explained:
        if png is not None:
            raise InputError(f"--png draws circuits: {circuit} holds explained neurons")
        page = write_neuron_page(circuit, out)
        print_paths(page, then=_after_neurons(circuit))
        return
    if png is not None:
        if png.suffix.lower() != ".png":
            raise InputError(f"--png {png}: the picture's name must end in .png")
        if png.resolve() == out.resolve():
            raise InputError(f"--out and --png are the same file, {png}")
        check_file(png)
    paths = [write_page(circuit, out)]
    if png is not None:
        paths.append(write_figure(load_page_data(circuit), png))
    print_paths(*paths, then=_after_circuit(circuit))


def _after_circuit(circuit: Path) -> list[str | Path]:
    """Return the command that goes on from a circuit's page: `attack` needs a circuit of nodes."""
    from wirework.circuit_format import read_circuit

    document = read_circuit(circuit).document
    if document.level == "head":
        if document.model.path is None:  # no model to find a circuit of nodes in
            return ["view", circuit]
        task = document.task.path or document.task.name
        nodes = circuit.with_name(f"{circuit.name}-nodes")
        return ["prune", document.model.path, task, "--out", nodes]
    return ["attack", circuit, "--out", circuit.with_name(f"{circuit.name}-attack")]


def _after_neurons(explained: Path) -> list[str | Path]:
    """Return the command that goes on from the page of explained neurons."""
    from wirework.view.neurons.neuron_file import read_model_name

    model = read_model_name(explained)
    return ["doctor"] if model is None else ["measure", model, "--out", "measures"]
