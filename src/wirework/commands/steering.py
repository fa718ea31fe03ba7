"""The verb that steers a model by nodes of a circuit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from wirework.commands.arguments import Json, not_resumable, prepared, task_of
from wirework.commands.printing import (
    print_paragraph,
    print_verdict,
    print_wrote,
    show,
    show_rows,
)
from wirework.errors import number_of

if TYPE_CHECKING:
    from wirework.bridges import SteeringReport

_SHOWN = 8
"""Nodes in the printed table."""


def steer(
    bridged: Path,
    circuit: Path,
    /,
    *,
    out: Path,
    node: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)] = (),
    target: Literal["dense", "sparse"] = "dense",
    strength: Annotated[tuple[float, ...], Parameter(negative="", consume_multiple=True)] = (),
    task: str | None = None,
    dense: Path | None = None,
    corpus: str | None = None,
    pairs: int = 64,
    draws: int = 16,
    seed: int = 0,
    json: Json = False,
) -> None:
    """Print what steering does to the answers; write the numbers, the directions and a figure.

    Args:
        bridged: Run folder of `wirework bridge`.
        circuit: Circuit folder; a circuit of the sparse model of the run.
        out: Folder of the result: `steering.json`, `steering.safetensors`, `steering.png`.
        node: Nodes that steer together, as 3.attn.act_in.17; default: the one with the largest
            effect on pairs that the search has seen.
        target: Model to steer.
        strength: Factors of the difference between the contexts; default: 0 to 2.
        task: Behaviour of the circuit; needed if it is a function, because code that only a file
            names is not run.
        dense: The dense model, if it has moved since the training.
        corpus: Text, as `--data.corpus` of train; default: that of the run.
        pairs: Most held-out pairs, and most pairs that choose the node.
        draws: Random draws of each control.
        seed: Seed of the draws.
    """
    from wirework.bridges import load_bridged
    from wirework.bridges import steer as run_steering
    from wirework.bridges.steering import STRENGTHS
    from wirework.bridges.steering_files import (
        JSON,
        PICTURE,
        TENSORS,
        check_steering_folder,
        save_steering,
    )

    check_steering_folder(out)
    with not_resumable():
        loaded = load_bridged(bridged, dense)
        text = None if corpus is None else prepared(loaded.sparse, corpus)
        report = run_steering(
            loaded,
            circuit,
            node or None,
            target=target,
            strengths=strength or STRENGTHS,
            task=None if task is None else task_of(task),
            pairs=pairs,
            draws=draws,
            seed=seed,
            data=text,
        )
        save_steering(report, loaded, out)
    if json:
        values = report.to_dict()
        del values["directions"]
        show("steering", values, json)
        return
    _print(report)
    print_wrote(out / JSON, out / TENSORS, out / PICTURE)


def _print(report: "SteeringReport") -> None:
    """Print the report as a verdict, two tables and what it does to other text."""
    before, after = report.at(0), report.at(1)
    print_verdict(
        f"steering the {report.target} model by {', '.join(report.nodes)} takes the probability of "
        f"the other answer, of the two, from {before.other_of_two:.2f} to {after.other_of_two:.2f} "
        f"at strength 1 ({number_of(report.n_pairs, 'held-out pair')})"
    )
    random, channel = report.controls
    rows = [
        {
            "strength": point.strength,
            "other of the two": f"{point.other_of_two:.3f} ± {point.other_of_two_se:.3f}",
            "random directions": f"{random.mean_of_two[i]:.3f}, {random.largest_of_two[i]:.3f}",
            "other channels": f"{channel.mean_of_two[i]:.3f}, {channel.largest_of_two[i]:.3f}",
            "other of all": f"{point.other:.3f} ± {point.other_se:.3f}",
            "right of all": f"{point.right:.3f} ± {point.right_se:.3f}",
        }
        for i, point in enumerate(report.curve)
    ]
    show_rows(
        "probability of the answers, of the two and of all tokens; controls: mean, largest",
        rows,
        as_json=False,
    )
    nodes = [
        {
            "node": effect.node,
            "other answer, seen pairs": effect.other_on_seen,
            "held-out pairs": effect.other,
            "right answer without it": effect.right_without,
            "without another channel": effect.right_without_other,
            "loss on text without it": effect.text_loss_without,
        }
        for effect in report.effects[:_SHOWN]
    ]
    more = len(report.effects) - len(nodes)
    show_rows(f"nodes alone{f', {more} more in the file' if more else ''}", nodes, as_json=False)
    text = report.text
    print_paragraph(
        f"The same change at every token of {text.n_tokens:,} tokens of held-out text takes the "
        f"loss from {text.loss:.3f} to {text.loss_steered:.3f} nats (KL {text.kl_steered:.3f}), a "
        f"random direction to {text.loss_random:.3f} (KL {text.kl_random:.3f})."
    )
