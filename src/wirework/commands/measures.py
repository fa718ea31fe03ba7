"""Verbs that measure models."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from wirework.commands.arguments import Json, Settings, not_resumable, prepared, resumable
from wirework.commands.meanings import meaning, score_meaning
from wirework.commands.printing import (
    cell,
    changed_flags,
    print_next,
    print_paragraph,
    print_table,
    print_verdict,
    print_wrote,
    show,
    show_rows,
)
from wirework.config import ExplainConfig, Instrument, MeasureConfig, SaeConfig
from wirework.console import warn
from wirework.errors import InputError, number_of
from wirework.files import check_place

if TYPE_CHECKING:
    from wirework.bridges import BridgeQuality


def sae(
    model: Path,
    /,
    *,
    out: Path,
    settings: Annotated[SaeConfig, Settings] = SaeConfig(),
    corpus: str | None = None,
    json: Json = False,
) -> None:
    """Train a sparse autoencoder, save it and print its quality on held-out text.

    Args:
        model: Model or run folder.
        out: Folder to write it to, in sae-lens' format; an autoencoder there is replaced.
        corpus: Text, as `--data.corpus` of train; needed for a model outside a run folder.
    """
    from dataclasses import asdict

    from wirework.measures import check_out, measure_sae, outlier_warning, save_sae
    from wirework.model import load

    check_out(out)
    loaded = load(model)
    with not_resumable():
        data = None if corpus is None else prepared(loaded, corpus)
        trained, quality = measure_sae(loaded, settings, data)
        save_sae(trained, out, quality, settings)
    if (quality.explained_variance or 0.0) < 0:
        worse = "the site's mean alone comes closer to it than the autoencoder"
        print(f"warning: explained variance is below 0: {worse}", file=sys.stderr)
    if (said := outlier_warning(asdict(quality))) is not None:
        warn(said)
    if not json:
        score = "none" if quality.ce_score is None else f"{quality.ce_score:.2f}"
        print_verdict(
            f"{quality.sae_l0:.1f} of {quality.d_sae} features on per token (fewer is sparser), CE "
            f"score {score} (1.00 = nothing is lost, 0 = no better than zeroing the site)"
        )
    where = {"sae": str(out)} if json else {}
    show("sparse autoencoder", {**where, **asdict(quality)}, json)
    if not json:
        print_wrote(out)
        print_next("measure", model, "--out", "measures")


def explain(
    model: Path,
    /,
    *,
    out: Path | None = None,
    estimate_only: Annotated[bool, Parameter(negative="")] = False,
    settings: Annotated[ExplainConfig, Settings] = ExplainConfig(),
    corpus: str | None = None,
    json: Json = False,
) -> None:
    """Explain neurons, write a file for each and print the scores.

    Args:
        model: Model or run folder.
        out: Folder of the results; the same command resumes a stopped run.
        estimate_only: Print the number and price of the requests to the language model; send none.
        corpus: Text to use instead of the training text of the run, as `--data.corpus` of train;
            needed for a model outside a run folder.
    """
    from wirework.measures import explain_neurons
    from wirework.measures.explain import estimate_cost
    from wirework.model import load

    if (out is None) != estimate_only:
        raise InputError("explain takes either --out or --estimate-only")
    if out is not None:
        check_place(out)
    loaded = load(model)
    text = None if corpus is None else prepared(loaded, corpus)
    if out is None:
        cost = estimate_cost(loaded, settings, text=text)
        if not json:
            print_verdict(
                f"{number_of(cost.requests, 'request')} to {settings.server.model} for a first run "
                "without failures"
            )
        show("estimate", cost.to_dict(), json)
        if not json:
            print_next("explain", model, "--out", Path("explained") / model.name, *_asked(settings))
        return
    with resumable(out):
        explanations = explain_neurons(loaded, settings, text=text, out=out)
    for failure in explanations.failed:
        print(f"warning: {failure['neuron']}: {failure['reason']}", file=sys.stderr)
    result = explanations.summary()
    if json:
        show("explain", {"result": str(out), **result}, json)
    else:
        scores = result.pop("scores")
        main = scores.get("top_and_random", {}).get("mean")
        score = "none" if main is None else f"{main:.2f}"
        print_verdict(
            f"{result['explained']} of {number_of(result['neurons'], 'neuron')} explained, mean "
            f"explanation score {score} (1.00 is best, 0 is chance)"
        )
        show("explain", result, json)
        rows = [
            {"score": name, **values, "what is good": score_meaning(name)}
            for name, values in scores.items()
        ]
        show_rows("scores", rows, json)
        print_wrote(out)
        print_next("export", out, "-o", f"{out}.html")


def measure(
    *models: Path,
    settings: Annotated[MeasureConfig, Settings] = MeasureConfig(),
    out: Path | None = None,
    corpus: str | None = None,
    json: Json = False,
) -> None:
    """Measure models and print their numbers, a column for each; of a bridged run its bridges too.

    Args:
        models: Model or run folders.
        out: Folder for measures.json, measures.csv and measures.png, which are replaced; for a
            bridged run also NAME-bridges.json and NAME-bridges.png.
        corpus: Text, as `--data.corpus` of train; needed for a model outside a run folder.
    """
    from wirework.bridges import is_bridged_run
    from wirework.measures import COLUMNS, outlier_warning, reasons
    from wirework.measures import measure as measure_one
    from wirework.measures.report_files import check_report_place, write_reports
    from wirework.model import load
    from wirework.tasks import accuracy_warning
    from wirework.view import write_measures_figure

    if not models:
        raise InputError("measure takes at least one MODEL")
    names = [path.resolve().name for path in models if is_bridged_run(path)]
    if out is not None and len(set(names)) < len(names):
        raise InputError("two bridged runs have the same name, and so would their files in --out")
    if out is not None:
        check_report_place(out)
    loaded = {str(path): load(path) for path in models}
    reports, measured = {}, False
    not_yet_said: list[str] = []  # if nothing is measured, the error lists them
    first_said: dict[str, str] = {}
    with not_resumable(out):
        for name, model in loaded.items():
            data = None if corpus is None else prepared(model, corpus)
            reports[name] = measure_one(model, config=settings, data=data)
            missing = reasons(reports[name])
            measured = measured or len(missing) < len(settings.instruments)
            not_yet_said += _in_lines(name, missing, first_said)
            while measured and not_yet_said:
                warn(not_yet_said.pop(0))
            accuracy = reports[name].headline.task_accuracy
            if (warning := accuracy_warning(settings.task, accuracy)) is not None:
                print(f"warning: {name}: acdc: {warning}", file=sys.stderr)
            n_read = reports[name].get("language", {}).get("n_tokens", settings.n_tokens)
            if (warning := outlier_warning(reports[name].get("sae", {}))) is not None:
                option = "--max-norm-multiple"
                warn(f"{name}: sae: {warning.replace(option, '--sae.max-norm-multiple')}")
            if n_read + model.config.n_ctx < settings.n_tokens:
                short = f"{n_read:,} held-out tokens are all there are"
                print(f"warning: {name}: language: {short}", file=sys.stderr)
            if out is not None and measured:  # after each, so that a stop loses none
                write_reports(reports, out)
        qualities = {}
        for path in models:
            if is_bridged_run(path):
                try:
                    qualities[path] = _bridges(path, corpus, out)
                except InputError as error:  # the other measures are not lost
                    warn(f"{path}: bridges: {error}")
    if not measured:
        raise InputError(f"nothing was measured: {'; '.join(first_said)}")
    if out is not None:
        write_measures_figure(out)
    if json:
        values = {name: report.to_dict() for name, report in reports.items()}
        for path, quality in qualities.items():
            values[str(path)]["bridges"] = quality.to_dict()
        show("measure", values, json)
    else:
        rows = [
            [
                number.replace("_", " "),
                *(cell(getattr(report.headline, number)) for report in reports.values()),
                meaning(number),
            ]
            for number in COLUMNS
            if any(getattr(report.headline, number) is not None for report in reports.values())
        ]
        print_verdict(_best(reports))
        print_table("measures", ["", *reports, "what is good"], rows)
        for path, quality in qualities.items():
            _print_bridges(path, quality)
        if out is None:
            print_next("measure", *models, "--out", "measures")
        else:
            print_wrote(out)
            print_next("explain", models[0], "--out", Path("explained") / models[0].name)


def _bridges(path: Path, corpus: str | None, out: Path | None) -> "BridgeQuality":
    """Measure the bridges of a run; write the numbers and their figure, if there is a folder."""
    from wirework.bridges import bridge_quality, load_bridged
    from wirework.files import write_json
    from wirework.measures.report_files import BRIDGES
    from wirework.view.figures.figure_bridges import draw_bridge_quality
    from wirework.view.figures.figure_canvas import write_png

    bridged = load_bridged(path)
    data = None if corpus is None else prepared(bridged.sparse, corpus)
    quality = bridge_quality(bridged, data=data)
    if out is not None:
        numbers, picture = (out / f"{path.resolve().name}{end}" for end in BRIDGES)
        write_json(numbers, quality.to_dict())
        write_png(draw_bridge_quality(quality.to_dict()), picture)
    return quality


def _print_bridges(path: Path, quality: "BridgeQuality") -> None:
    """Print the trained bridges by location, and the means of all maps."""
    trained, *_ = quality.maps
    rows = [
        {
            "location": location.location,
            "encoder NMSE": location.encoder_nmse,
            "decoder NMSE": location.decoder_nmse,
            "KL to sparse": location.kl_dense_to_sparse,
            "KL to dense": location.kl_sparse_to_dense,
            "loss to sparse": location.loss_dense_to_sparse,
            "loss to dense": location.loss_sparse_to_dense,
        }
        for location in trained.locations
    ]
    show_rows(f"bridges of {path}", rows, as_json=False)
    means = [
        {
            "maps": maps.maps,
            "encoder NMSE": maps.mean("encoder_nmse"),
            "decoder NMSE": maps.mean("decoder_nmse"),
            "KL to sparse": maps.mean("kl_dense_to_sparse"),
            "KL to dense": maps.mean("kl_sparse_to_dense"),
            "KL twice, sparse between": maps.kl_twice_through_sparse,
            "KL twice, dense between": maps.kl_twice_through_dense,
        }
        for maps in quality.maps
    ]
    show_rows("means over the locations, beside controls", means, as_json=False)
    print_paragraph(
        f"Next-token loss of the dense model {quality.loss_dense:.3f} nats, of the sparse model "
        f"{quality.loss_sparse:.3f}; KL between them {quality.kl_sparse:.3f} "
        f"({quality.n_tokens:,} held-out tokens). NMSE: 1 minus the share of variance explained."
    )


def _best(reports: Mapping[str, Any]) -> str:
    """Return a sentence that names the model with the lowest loss."""
    losses = {name: report.headline.perplexity for name, report in reports.items()}
    perplexities = {name: value for name, value in losses.items() if value is not None}
    if not perplexities:
        return f"{number_of(len(reports), 'model')} measured; perplexity was not"
    best = min(perplexities, key=perplexities.__getitem__)
    of = f", the lowest of {len(perplexities)}" if len(perplexities) > 1 else ""
    return f"{best} has perplexity {perplexities[best]:.4g} on held-out text{of} (lower is better)"


def _asked(settings: ExplainConfig) -> list[str]:
    """Return the flags that name the explainer."""
    explainer = {"explainer": settings.explainer, "server.model": settings.server.model}
    return changed_flags(explainer, {"explainer": "patterns", "server.model": ""})


def _in_lines(
    name: str, missing: Mapping[Instrument, str], first_said: dict[str, str]
) -> list[str]:
    """Return why instruments have no numbers, a line for each reason.

    Args:
        name: name of the model.
        missing: instrument to reason.
        first_said: reason to the first model with that reason; new reasons are added.
    """
    lines = []
    for reason in dict.fromkeys(missing.values()):
        instruments = ", ".join(instrument for instrument, why in missing.items() if why == reason)
        first = first_said.setdefault(reason, name)
        lines.append(f"{name}: {instruments}: {reason if first == name else f'as {first}'}")
    return lines
