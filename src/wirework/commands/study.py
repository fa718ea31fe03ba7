"""`study`: whole experiments."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators

from wirework.commands.arguments import (
    Json,
    Settings,
    once_there_is_room,
    resumable,
    task_of,
    tokens_of,
)
from wirework.commands.circuit_tables import loss_unit
from wirework.commands.printing import (
    print_next,
    print_paragraph,
    print_verdict,
    print_wrote,
    show,
    show_rows,
    without_pooled_kurtosis,
)
from wirework.config import AblationsConfig, FrontierConfig, PruneConfig, SelfAblationConfig
from wirework.errors import number_of
from wirework.files import check_place


def binarise(
    circuits: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)],
    /,
    *,
    out: Path,
    json: Json = False,
) -> None:
    """Run or resume the study, draw its figure and print a line per model.

    Args:
        circuits: Circuit folders, or folders with circuits at any depth, of one or more models.
        out: Folder of the study; the same command resumes it.
    """
    from wirework.studies import binarise as run_study

    check_place(out)
    with resumable(out):
        study = run_study(circuits, out)
    result = study.to_dict()
    if json:
        show("binarise", result, json)
        return
    rows = result["models"]
    # Models are compared on the tasks that all of them have, if there are any.
    name = "loss" if any(row["shared_loss"] is None for row in rows) else "shared_loss"
    best = min(rows, key=lambda row: row[name])
    reduction = best["loss_reduction"]
    print_verdict(
        f"{best['model']} has the most binarisable circuits of {number_of(len(rows), 'model')}: "
        f"mean task loss {best[name]:.3g} {loss_unit(reduction)} with two values per node "
        f"(lower is better, chance {'0.693' if reduction == 'mean' else '1.386'})"
    )
    show_rows("models (mean held-out task loss in nats; lower is better)", rows, json)
    print_wrote(study.results, study.figure)
    print_next("tasks", best["model"])


def finders(
    model: Path,
    /,
    *,
    out: Path,
    task: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    finders: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    target: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = (),
    settings: Annotated[PruneConfig, Settings] = PruneConfig(),
    corpus: str | None = None,
    json: Json = False,
) -> None:
    """Run or resume the study, draw its figure and print a line per finder and target.

    Args:
        model: Model or run folder.
        out: Folder of the study; the same command resumes it.
        task: Names, JSONL files or functions; none: all built-in behaviours.
        finders: Names of finders; none: all.
        target: Target losses in nats; none: 0.5, 0.3, 0.15 and 0.05.
        corpus: Training text, as `--data.corpus` of train, for a model outside a run folder.
    """
    from wirework.model import load
    from wirework.studies import finders as run_study
    from wirework.studies.finders import FINDERS, TARGETS
    from wirework.tasks import PYTHON_TASKS

    check_place(out)
    loaded = load(model)
    with resumable(out):
        study = run_study(
            loaded,
            [task_of(name) for name in task or tuple(PYTHON_TASKS)],
            out,
            settings,
            finders=finders or FINDERS,
            targets=target or TARGETS,
            data=None if corpus is None else tokens_of(loaded, corpus),
        )
    result = study.to_dict()
    if json:
        show("finders", result, json)
    else:
        print_verdict(_smallest(result["rows"]))
        title = (
            "finders (mean held-out task loss in nats; fewer edges and nodes, higher cpr and lower "
            "cmd are better)"
        )
        show_rows(title, result["rows"], json)
        paths = (study.results, study.figure, study.curves_figure)
        print_wrote(*(path for path in paths if path is not None))
        print_next("prune", model, "--all", "--out", out.with_name(f"{out.name}-circuits"))


def _smallest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence that names the finder of the smallest circuits at the lowest target."""
    rows = [row for row in rows if row["edges"] is not None]
    if not rows:
        return "no finder reaches a target"
    target = min(row["target_loss"] for row in rows)
    best = min((row for row in rows if row["target_loss"] == target), key=lambda row: row["edges"])
    return (
        f"{best['finder']} finds the smallest circuits at target loss {target:g} nats: "
        f"{best['edges']:.4g} edges, geometric mean over {number_of(best['n_tasks'], 'task')} "
        "(fewer is better)"
    )


def frontier(
    *,
    out: Path,
    settings: Annotated[
        FrontierConfig, Parameter(name="*", consume_multiple=True)
    ] = FrontierConfig(),
    json: Json = False,
) -> None:
    """Run or resume the study, draw its figures and print a line per model.

    Args:
        out: Folder of the study; the same command resumes it.
    """
    from wirework.studies import frontier as run_study

    with once_there_is_room("the same command goes on from what was saved"):
        result = run_study(settings, out).to_dict()
    if json:
        show("frontier", result, json)
    else:
        print_verdict(result["verdict"])
        for claim in result["claims"]:
            print_paragraph(f"claim: {claim['words']}")
        title = (
            "models (held-out and bigram loss in nats, lower is better; l0_count asked, n_nonzero "
            "measured; fewer edges are better; verdicts of the short report)"
        )
        show_rows(title, [without_pooled_kurtosis(row) for row in result["cells"]], json)
        if result["pair"] is not None:
            show("pair that is compared", result["pair"], json)
        if result["seeds"]:
            show_rows(
                "the pair with each seed (ratio: dense edges / sparse)", result["seeds"], json
            )
        if result["budgets"]:
            title = "its sparse model and a dense one of its width, given equal tokens or compute"
            show_rows(title, result["budgets"], json)
        print_wrote(result["results"], *result["figures"])
        models = [row["name"] for row in result["cells"] if not row.get("error")]
        print_next(*(("tasks", out / "cells" / models[0] / "run") if models else ("doctor",)))


def self_ablation(
    *,
    out: Path,
    jobs: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    settings: Annotated[
        SelfAblationConfig, Parameter(name="*", consume_multiple=True)
    ] = SelfAblationConfig(),
    json: Json = False,
) -> None:
    """Run or resume the study, draw its figure and print its table and its claims.

    Args:
        out: Folder of the study; the same command resumes it.
        jobs: Number of models at once, on a CPU, each with its share of the threads.
    """
    from wirework.studies import self_ablation as run_study
    from wirework.studies.ablation_table import MEASURES

    with resumable(out):
        study = run_study(settings, out, jobs=jobs)
    result = study.to_dict()
    if json:
        show("self-ablation", result, json)
    else:
        rows = [
            {"model": "plain" if row.level is None else f"{row.level}, k {row.k}"}
            | {title: str(row.measures[name]) for name, title in MEASURES.items()}
            for row in study.rows
        ]
        claims = [
            {
                name: f"{value:.1%}" if name == "largest_change" and value is not None else value
                for name, value in verdict.to_dict().items()
            }
            for verdict in study.claims
        ]
        verdicts = [str(row["verdict"]) for row in claims]
        n_open = sum(words.startswith(("cannot tell", "not measured")) for words in verdicts)
        print_verdict(
            f"{verdicts.count('held')} of {number_of(len(claims), 'claim')} of the paper held; "
            f"{n_open} could not be judged"
        )
        title = (
            "mean ± standard error over seeds (the paper's); lower is better for edges, SAE L0 and "
            "perplexity, higher for accuracy and scores"
        )
        show_rows(title, rows, json)
        show_rows("claims", claims, json)
        print_wrote(study.results, study.figure)
        print_next("tasks", out / "runs" / f"plain-seed{settings.seeds[0]}")


def ablations(
    *,
    out: Path,
    settings: Annotated[
        AblationsConfig, Parameter(name="*", consume_multiple=True)
    ] = AblationsConfig(),
    json: Json = False,
) -> None:
    """Run or resume the study, draw its figure and print a line per training choice.

    Args:
        out: Folder of the study; the same command resumes it, and may add choices.
    """
    from wirework.studies import ablations as run_study

    with resumable(out):
        study = run_study(settings, out)
    result = study.to_dict()
    if json:
        show("ablations", result, json)
        return
    compared = [row for row in study.rows if row.loss_verdict]
    worse = sum(row.loss_verdict == "worse" for row in compared)
    better = sum(row.loss_verdict == "better" for row in compared)
    print_verdict(
        f"of {number_of(len(compared), 'choice')}, {worse} raise and {better} lower the held-out "
        "loss by more than the spread over seeds explains"
        if compared
        else "no choice has two seeds, so that none is told apart from the base model"
    )
    title = "choices (held-out loss in nats and edges: mean and range over seeds; lower is better)"
    show_rows(title, _choice_rows(study.rows), json)
    print_wrote(study.results, study.figure)
    print_next("tasks", out / "cells" / f"base-seed{settings.seeds[0]}" / "run")


def _choice_rows(rows: Sequence[Any]) -> list[dict[str, Any]]:
    from wirework.studies.ablation_rows import TITLES, shown

    named = [dict(zip(TITLES, shown(row), strict=True)) for row in rows]
    # Names say what changes; the settings are in table.md.
    return [{name: text for name, text in row.items() if name != "changes"} for row in named]
