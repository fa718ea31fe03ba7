"""Pages and pictures: circuits and explained neurons as HTML, circuits and studies as PNG.

Reads files only and needs no torch. Names load on first use, so that importing this package
imports neither matplotlib nor starlette.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wirework.view.figures.curves import write_curves
    from wirework.view.figures.figure import write_figure
    from wirework.view.figures.figure_ablations import write_ablations_figure
    from wirework.view.figures.figure_faithfulness import write_faithfulness_figure
    from wirework.view.figures.figure_measures import (
        write_measures_figure,
        write_self_ablation_figure,
    )
    from wirework.view.figures.figure_study import write_finders_figure, write_study_figures
    from wirework.view.figures.figure_validation import (
        write_binarise_figure,
        write_necessity_figure,
    )
    from wirework.view.neurons.neuron_page import write_neuron_page
    from wirework.view.page.page import render_page, write_page
    from wirework.view.page.page_data import load_page_data
    from wirework.view.page.server import serve

__all__ = [
    "load_page_data",
    "render_page",
    "serve",
    "write_ablations_figure",
    "write_binarise_figure",
    "write_curves",
    "write_faithfulness_figure",
    "write_figure",
    "write_finders_figure",
    "write_measures_figure",
    "write_necessity_figure",
    "write_neuron_page",
    "write_page",
    "write_self_ablation_figure",
    "write_study_figures",
]

_HOMES = {
    "load_page_data": "page.page_data",
    "render_page": "page.page",
    "serve": "page.server",
    "write_ablations_figure": "figures.figure_ablations",
    "write_binarise_figure": "figures.figure_validation",
    "write_curves": "figures.curves",
    "write_faithfulness_figure": "figures.figure_faithfulness",
    "write_figure": "figures.figure",
    "write_finders_figure": "figures.figure_study",
    "write_measures_figure": "figures.figure_measures",
    "write_necessity_figure": "figures.figure_validation",
    "write_neuron_page": "neurons.neuron_page",
    "write_page": "page.page",
    "write_self_ablation_figure": "figures.figure_measures",
    "write_study_figures": "figures.figure_study",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
