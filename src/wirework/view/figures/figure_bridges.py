"""Figure of the quality of bridges: normalised MSE and KL at each residual location, both ways."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from wirework.view.figures import figure_pen as pen
from wirework.view.figures.figure_canvas import panels

_HUES = ("#1f6fb4", "#7b7b7b", "#b8902a", "#2a9d6f", "#c23b6a")
_PANELS = {
    "encoder_nmse": "dense to sparse: normalised MSE",
    "decoder_nmse": "sparse to dense: normalised MSE",
    "kl_dense_to_sparse": "dense to sparse: KL, nats per token",
    "kl_sparse_to_dense": "sparse to dense: KL, nats per token",
}


def draw_bridge_quality(quality: Mapping[str, Any]) -> Figure:
    """Draw a line for the trained bridges and for each control; the scale is logarithmic.

    Args:
        quality: the JSON of a `BridgeQuality`.
    """
    figure, axes = panels(len(_PANELS), columns=2, size=(4.6, 3.0))
    for panel, (number, title) in zip(axes, _PANELS.items(), strict=True):
        for hue, maps in zip(_HUES, quality["maps"], strict=False):
            locations = [location["location"] for location in maps["locations"]]
            panel.plot(
                range(len(locations)),
                [location[number] for location in maps["locations"]],
                color=hue,
                linestyle="-" if maps["maps"] == "trained" else "--",
                marker="o",
                markersize=3.5,
                label=maps["maps"],
            )
            panel.set_xticks(range(len(locations)), locations, rotation=60, fontsize=7)
        panel.set_yscale("log")
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_title(title, loc="left", fontsize=9, color=pen.INK)
    axes[0].legend(frameon=False, fontsize=7)
    return figure
