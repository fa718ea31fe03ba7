"""Explained neurons as one HTML file, without scripts and with every text escaped.

A token's background shows the neuron's activation, the line under it the predicted one, both in
ten steps of the neuron's peak.
"""

import html
from collections.abc import Sequence
from pathlib import Path

from wirework.files import write_text
from wirework.view.neurons.neuron_file import (
    ExcerptPart,
    NeuronFile,
    RunOutcome,
    read_model_name,
    read_neurons,
    read_outcome,
)
from wirework.view.page.page import asset, hash_of
from wirework.view.visible_text import label, number, plain, shown_lines

_STEPS = 10
_SHOWN = 5
"""Excerpts shown of each kind."""
_BLUE, _ORANGE = (104, 172, 220), (217, 95, 2)


def write_neuron_page(explained_dir: str | Path, out: str | Path) -> Path:
    """Write the page of a folder of explained neurons to `out`, whole or not at all.

    Args:
        explained_dir: folder that `wirework explain` wrote.
        out: the page; the same folder gives the same bytes.

    Raises:
        InputError: the folder has no neurons that we can read, or `out` cannot be written.
    """
    explained_dir, out = Path(explained_dir), Path(out)
    neurons, outcome = read_neurons(explained_dir), read_outcome(explained_dir)
    write_text(out, render_neurons(neurons, outcome, read_model_name(explained_dir)))
    return out


def render_neurons(
    neurons: Sequence[NeuronFile], outcome: RunOutcome | None, model: str | None = None
) -> str:
    """Return the page as HTML.

    Args:
        neurons: those that have a file, in the order of the page.
        outcome: how the run ended; None if it has not.
        model: path of the model, if it is known.
    """
    live = [neuron for neuron in neurons if not neuron.dead]
    scores = [neuron.score for neuron in live if neuron.score is not None]
    mean = sum(scores) / len(scores) if scores else None
    style = asset("neurons/neurons.css") + _shades()
    policy = f"default-src 'none'; style-src '{hash_of(style)}'; img-src data:; base-uri 'none'"
    rows = "\n".join(_neuron(neuron) for neuron in live)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>explained neurons · wirework</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<h1>Explained neurons: {len(live):,}</h1>
{_of_model(model)}<p>Mean score <b>{number(mean)}</b>: correlation of predicted and
true activations in held-out text. {len(neurons) - len(live):,} more are dead.
Highest score first; click a neuron for its excerpts.
<span class="token a7">Blue</span>: the neuron's activation;
<span class="token s9">orange line</span>: the predicted activation. Hover for values.</p>
{_outcome(outcome)}{rows}
</body>
</html>
"""


def _of_model(model: str | None) -> str:
    return "" if model is None else f"<p>Model <code>{html.escape(plain(model))}</code></p>\n"


def _shades() -> str:
    """Return a class for each step of activation (a1..a10) and of prediction (s1..s10)."""
    rules = []
    for step in range(1, _STEPS + 1):
        blue, orange = (
            ", ".join(str(round(255 + (c - 255) * step / _STEPS)) for c in colour)
            for colour in (_BLUE, _ORANGE)
        )
        rules.append(f".a{step} {{ background: rgb({blue}); }}")
        rules.append(f".s{step} {{ border-bottom-color: rgb({orange}); }}")
    return "\n".join(rules)


def _neuron(neuron: NeuronFile) -> str:
    groups = (
        ("Held-out text, most activating", neuron.held_out_top),
        ("Held-out text, random", neuron.held_out_random),
        ("Explained from", neuron.top),
    )
    excerpts = "\n".join(
        f"<h3>{title}</h3>\n"
        + "\n".join(_excerpt(excerpt, neuron.peak) for excerpt in group[:_SHOWN])
        for title, group in groups
        if group
    )
    explanation = html.escape(plain(neuron.explanation))
    name = html.escape(plain(neuron.name))
    score = f'<b class="score">{number(neuron.score)}</b>'
    summary = f'<span class="said">{explanation}</span>'
    return f"""<details>
<summary>{score} <code>{name}</code> {summary}</summary>
<p class="soft">{_statistics(neuron)}</p>
{excerpts}
</details>"""


def _outcome(outcome: RunOutcome | None) -> str:
    """Return why neurons are missing as HTML; empty if none is."""
    if outcome is None:
        return "<p>The run has not ended: these are the neurons finished so far.</p>\n"
    notes = ""
    if outcome.stopped is not None:
        missing = "" if outcome.left is None else f" {outcome.left:,} left."
        notes = f"<p>Stopped early: {html.escape(plain(outcome.stopped))}.{missing}</p>\n"
    if outcome.failures:
        failures = (
            [html.escape(plain(text)) for text in (f.neuron, f.reason)] for f in outcome.failures
        )
        lines = "\n".join(f"<li><code>{name}</code> {reason}</li>" for name, reason in failures)
        notes += f"<details>\n<summary>Failed: {len(outcome.failures):,}</summary>\n"
        notes += f"<ul>\n{lines}\n</ul>\n</details>\n"
    return notes


def _statistics(neuron: NeuronFile) -> str:
    statistics = ["all values with the sign turned"] if neuron.negated else []
    statistics += [
        f"peak {number(neuron.peak)}",
        f"above 0 at {100 * neuron.live_fraction:.3g}% of tokens",
    ]
    if neuron.scores is not None:
        top, random = neuron.scores.correlation.top, neuron.scores.correlation.random
        statistics += [f"score in top excerpts {number(top)}, in random ones {number(random)}"]
        if neuron.scores.constant:
            statistics.append("the predictions are constant")
        if (detection := neuron.scores.detection) is not None:
            statistics.append(f"detection AUROC {number(detection.auroc)}")
    return " · ".join(statistics)


def _excerpt(excerpt: ExcerptPart, peak: float) -> str:
    simulated = excerpt.simulated or (None,) * len(excerpt.tokens)
    tokens = zip(excerpt.tokens, excerpt.activations, simulated, strict=True)
    return f'<p class="tokens">{"".join(_token(*token, peak) for token in tokens)}</p>'


def _token(text: str, activation: float, simulated: float | None, peak: float) -> str:
    steps = [f"a{_step(activation, peak)}", f"s{_step(simulated or 0.0, _STEPS)}"]
    classes = " ".join(["token", *(name for name in steps if name[1:] != "0")])
    values = number(activation)
    if simulated is not None:
        values += f", predicted {number(simulated * peak / _STEPS)}"
    visible = html.escape(shown_lines(text))
    title = html.escape(f"{label(text)}: {values}")
    return f'<span class="{classes}" title="{title}">{visible}</span>'


def _step(value: float, most: float) -> int:
    """Return the colour step of a value, 0 to 10; any value above 0 has at least step 1."""

    if value <= 0 or most <= 0:
        return 0
    return max(1, min(_STEPS, round(_STEPS * value / most)))
