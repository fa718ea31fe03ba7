"""Explained neurons as one HTML file: no script at all, every text escaped.

Each token's background is what the neuron did there, the line under it what the explanation
predicts; both in ten steps of the neuron's peak.
"""

import html
from collections.abc import Sequence
from pathlib import Path

from wirework.files import write_text
from wirework.view.neurons.neuron_file import (
    Excerpt,
    NeuronFile,
    Rest,
    read_model_name,
    read_neurons,
    read_rest,
)
from wirework.view.page.page import asset, hash_of
from wirework.view.text import label, number, plain, shown_lines

_STEPS = 10
_SHOWN = 5
"""Excerpts of each kind."""
_BLUE, _ORANGE = (104, 172, 220), (217, 95, 2)


def write_neuron_page(explained_dir: str | Path, out: str | Path) -> Path:
    """Write the page of a folder of explained neurons to `out`, whole or not at all.

    Args:
        explained_dir: what `wirework explain` wrote.
        out: the page; the same folder gives the same bytes.

    Raises:
        InputError: the folder has no neurons that we can read, or `out` cannot be written.
    """
    explained_dir, out = Path(explained_dir), Path(out)
    neurons, rest = read_neurons(explained_dir), read_rest(explained_dir)
    write_text(out, render_neurons(neurons, rest, read_model_name(explained_dir)))
    return out


def render_neurons(
    neurons: Sequence[NeuronFile], rest: Rest | None, model: str | None = None
) -> str:
    """Return the page as HTML, the neurons in the order in which they come.

    Args:
        neurons: those that have a file.
        rest: what became of the others; None if that is not known.
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
{_of_model(model)}<p>Mean score <b>{number(mean)}</b>: correlation of what each explanation
predicts with what the neuron does in held-out text. {len(neurons) - len(live):,} more are dead.
Best first; click one for its excerpts. <span class="token a7">Blue</span>: the neuron's activation;
<span class="token s9">orange line</span>: the prediction. Hover for values.</p>
{_others(rest)}{rows}
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
        f"<h3>{title}</h3>\n" + "\n".join(_excerpt(one, neuron.peak) for one in all_[:_SHOWN])
        for title, all_ in groups
        if all_
    )
    explanation = html.escape(plain(neuron.explanation))
    name = html.escape(plain(f"{neuron.site}.{neuron.index}"))
    score = f'<b class="score">{number(neuron.score)}</b>'
    said = f'<span class="said">{explanation}</span>'
    return f"""<details>
<summary>{score} <code>{name}</code> {said}</summary>
<p class="soft">{_facts(neuron)}</p>
{excerpts}
</details>"""


def _others(rest: Rest | None) -> str:
    """Return what to say of neurons without a file; nothing if all have one."""
    if rest is None:
        return "<p>The run has not ended: these are the neurons that it has come to.</p>\n"
    said = ""
    if rest.stopped is not None:
        left = "" if rest.left is None else f" {rest.left:,} left."
        said = f"<p>Stopped early: {html.escape(plain(rest.stopped))}.{left}</p>\n"
    if rest.failures:
        told = ([html.escape(plain(text)) for text in (f.neuron, f.reason)] for f in rest.failures)
        lines = "\n".join(f"<li><code>{name}</code> {reason}</li>" for name, reason in told)
        said += f"<details>\n<summary>Failed: {len(rest.failures):,}</summary>\n"
        said += f"<ul>\n{lines}\n</ul>\n</details>\n"
    return said


def _facts(neuron: NeuronFile) -> str:
    facts = [
        f"peak {number(neuron.peak)}",
        f"above 0 at {100 * neuron.live_fraction:.3g}% of tokens",
    ]
    if neuron.scores is not None:
        of = neuron.scores.correlation
        facts += [f"score in top excerpts {number(of.top)}, in random ones {number(of.random)}"]
        if neuron.scores.constant:
            facts.append("it predicts the same everywhere")
        if (detection := neuron.scores.detection) is not None:
            facts.append(f"detection AUROC {number(detection.auroc)}")
    return " · ".join(facts)


def _excerpt(excerpt: Excerpt, peak: float) -> str:
    simulated = excerpt.simulated or (None,) * len(excerpt.tokens)
    tokens = zip(excerpt.tokens, excerpt.activations, simulated, strict=True)
    return f'<p class="tokens">{"".join(_token(*token, peak) for token in tokens)}</p>'


def _token(text: str, activation: float, simulated: float | None, peak: float) -> str:
    classes = [f"a{_step(activation, peak)}", f"s{_step(simulated or 0.0, _STEPS)}"]
    drawn = " ".join(["token", *(name for name in classes if name[1:] != "0")])
    said = number(activation)
    if simulated is not None:
        said += f", predicted {number(simulated * peak / _STEPS)}"
    seen = html.escape(shown_lines(text))
    title = html.escape(f"{label(text)}: {said}")
    return f'<span class="{drawn}" title="{title}">{seen}</span>'


def _step(value: float, most: float) -> int:
    """Return how strong a value is drawn, 0 to 10; what is not 0 at all is seen."""
    if value <= 0 or most <= 0:
        return 0
    return max(1, min(_STEPS, round(_STEPS * value / most)))
