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
        print_paths(page, then=("export", circuit, "-o", out))
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
    attacks = circuit.with_name(f"{circuit.name}-attack")
    print_paths(*paths, then=("attack", circuit, "--out", attacks))
