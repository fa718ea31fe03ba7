"""Explain neurons of a model and score the explanations; finished neurons survive a stop.

Explanations are made from training text and scored on held-out text.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from wirework.config import ExplainConfig
from wirework.console import Progress, counted, say
from wirework.errors import InputError, number_of
from wirework.files import is_file, locked, write_record
from wirework.measures.explain import explanation_folder
from wirework.measures.explain.estimate import CostEstimate, estimate
from wirework.measures.explain.explain_job import HARMLESS, ExplainJob, collect
from wirework.measures.explain.explainers import Explainer, LanguageModelExplainer, token_text
from wirework.measures.explain.explanations import Explanations
from wirework.measures.explain.openai_client import NeuronError, ServerError
from wirework.measures.explain.record import Neuron, NeuronRecord
from wirework.measures.explain.score import correlations, detection

if TYPE_CHECKING:
    from wirework.data import Prepared
    from wirework.model import Model


_UNUSED_ADDRESS = "http://localhost"
"""Address for an estimate, which sends no request: OpenAI's own would need a key."""


def explain_neurons(
    model: "Model | str | Path",
    config: ExplainConfig | None = None,
    *,
    text: "Prepared | None" = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Explanations:
    """Explain neurons and score the explanations.

    Args:
        model: the model; a path is loaded.
        config: settings; None: the defaults (patterns, 200 neurons).
        text: text prepared with the model's tokeniser; None: the text of the model's run.
        out: folder for a file per neuron and `explain.json`; the same call resumes there. Needed
            for a language model.
        progress: show a bar on standard error and, before a language model is asked, the estimated
            cost.

    Raises:
        InputError: a setting, site or neuron does not fit the model; there is no text or too
            little; `out` was made with another model, text or settings; the openai package or a
            key is missing; the server is down, over quota or refuses; `max_requests` is reached;
            no neuron could be explained. Finished neurons stay in `out`.
    """
    from wirework.model import load

    model, config = load(model), config or ExplainConfig()
    out = None if out is None else Path(out)
    if out is not None:
        explanation_folder.check(out)
    job = ExplainJob.of(model, config, text, out)
    with closing(job.explainer()) as explainer:
        if out is None:
            return _explain_all(job, explainer, progress)
        with locked(out / "lock", str(out)):
            explanation_folder.claim(out, job.about(), HARMLESS)
            return _explain_all(job, explainer, progress)


def estimate_cost(
    model: "Model | str | Path",
    config: ExplainConfig,
    *,
    text: "Prepared | None" = None,
    progress: bool = True,
) -> CostEstimate:
    """Estimate the requests to a language model, their tokens and price, without sending any.

    Args:
        model: the model; a path is loaded.
        config: settings, with explainer `language_model`.
        text: text prepared with the model's tokeniser; None: the text of the model's run.
        progress: show a bar on standard error.

    Raises:
        InputError: as for `explain_neurons`, or the explainer is `patterns`.
    """
    from wirework.model import load

    model = load(model)
    if config.explainer != "language_model":
        raise InputError("patterns send no requests: an estimate is for explainer language_model")
    server = config.server.model_copy(
        update={"base_url": config.server.base_url or _UNUSED_ADDRESS}
    )
    job = ExplainJob.of(model, config.model_copy(update={"server": server}), text, Path())
    with closing(job.explainer()) as explainer:
        assert isinstance(explainer, LanguageModelExplainer)
        records = _records(job, progress)
        return estimate([record for record in records if not record.dead], explainer, config)


def _records(job: ExplainJob, progress: bool) -> list[NeuronRecord]:
    total = job.config.explain_excerpts + job.config.score_excerpts
    with Progress("excerpts", total, shown=progress, count=counted) as bar:
        return collect(job, bar.advance)


def _explain_all(job: ExplainJob, explainer: Explainer, progress: bool) -> Explanations:
    documents = _finished(job)
    failed: list[dict[str, str]] = []
    stopped: str | None = None
    missing = [neuron for neuron in job.neurons if neuron not in documents]
    if missing:
        if job.out is not None:
            explanation_folder.forget(job.out)
        records = [record for record in _records(job, progress) if record.neuron in missing]
        for record in records:
            if record.dead:
                documents[record.neuron] = _write_document(
                    job, record.neuron, explanation_folder.dead_document(record)
                )
        live = [record for record in records if not record.dead]
        if isinstance(explainer, LanguageModelExplainer) and progress:
            say(_cost_line(estimate(live, explainer, job.config)))
        with Progress("neurons", len(live), shown=progress, count=counted) as bar:
            stopped = _explain_each(job, explainer, live, documents, failed, bar.advance)
    explanations = Explanations(
        tuple(documents[n] for n in job.neurons if n in documents), tuple(failed)
    )
    report = explanations.report
    n_left = len(job.neurons) - len(explanations.neurons) - len(failed)
    if job.out is not None:
        about = {"format": "wirework-explain", "version": explanation_folder.VERSION, **job.about()}
        write_record(
            job.out / explanation_folder.SUMMARY,
            about | report.to_dict() | {"stopped": stopped, "left": n_left, "failures": failed},
        )
    if stopped is not None:
        kept_in = (
            ""
            if job.out is None
            else f", kept in {job.out}; the same command goes on with the rest"
        )
        counts = (
            f"{number_of(report.explained, 'neuron')} explained, {report.dead} dead, {len(failed)} "
            f"failed, {n_left} left"
        )
        raise ServerError(f"{stopped}: {counts}{kept_in}")
    if failed and report.explained == 0:
        raise InputError(f"no neuron of {len(failed)} was explained: {failed[0]['reason']}")
    return explanations


def _finished(job: ExplainJob) -> dict[Neuron, dict[str, Any]]:
    """Return the files of neurons that an earlier run finished."""
    if job.out is None:
        return {}
    paths = {neuron: explanation_folder.neuron_path(job.out, neuron) for neuron in job.neurons}
    return {n: explanation_folder.read_neuron(path) for n, path in paths.items() if is_file(path)}


def _write_document(job: ExplainJob, neuron: Neuron, document: dict[str, Any]) -> dict[str, Any]:
    if job.out is not None:
        write_record(explanation_folder.neuron_path(job.out, neuron), document)
    return document


def _explain_each(
    job: ExplainJob,
    explainer: Explainer,
    records: Sequence[NeuronRecord],
    documents: dict[Neuron, dict[str, Any]],
    failed: list[dict[str, str]],
    advance: Callable[[], None],
) -> str | None:
    """Explain neurons; return the reason if it stopped early, else None."""
    in_a_row = 0
    work = partial(_explain_neuron, job, explainer)
    for record, outcome in _outcomes(work, records, explainer.at_once):
        advance()
        if isinstance(outcome, ServerError):
            return str(outcome)
        if isinstance(outcome, NeuronError):
            failed.append({"neuron": record.neuron.name, "reason": str(outcome)})
            in_a_row += 1
            if in_a_row >= job.config.server.give_up_after:
                return f"{number_of(in_a_row, 'neuron')} in a row failed, the last one: {outcome}"
        else:
            in_a_row = 0
            documents[record.neuron] = _write_document(job, record.neuron, outcome)
    return None


_Outcome = dict[str, Any] | NeuronError | ServerError


def _outcomes(
    work: Callable[[NeuronRecord], dict[str, Any]], records: Sequence[NeuronRecord], at_once: int
) -> Iterator[tuple[NeuronRecord, _Outcome]]:
    """Yield each neuron with its result as it is done; leaving the loop starts no further ones."""
    if at_once == 1:
        for record in records:
            try:
                outcome: _Outcome = work(record)
            except (NeuronError, ServerError) as problem:
                outcome = problem
            yield record, outcome
        return
    pending, finished = deque(records), SimpleQueue[tuple[NeuronRecord, _Outcome | Exception]]()

    def until_none() -> None:
        while pending:
            try:
                record = pending.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                finished.put((record, work(record)))
            except Exception as problem:
                finished.put((record, problem))

    for _ in range(min(at_once, len(records))):
        # Daemons: a missing answer must not keep the process from ending.
        Thread(target=until_none, daemon=True).start()
    try:
        for _ in records:
            record, result = finished.get()
            if isinstance(result, Exception) and not isinstance(result, NeuronError | ServerError):
                raise result
            yield record, result
    finally:
        pending.clear()


def _explain_neuron(job: ExplainJob, explainer: Explainer, record: NeuronRecord) -> dict[str, Any]:
    """Return the content of the file of one neuron."""
    explanation = explainer.explain(record)
    simulated = explainer.simulate(record, explanation, record.held_out)
    detected = explainer.detect(record, explanation, record.held_out, simulated)
    true = [excerpt.activations for excerpt in record.held_out]
    active = [excerpt.peak >= job.config.active_share * record.peak for excerpt in record.held_out]
    scores = {
        "correlation": correlations(true, simulated, len(record.held_out_top)),
        "constant": len({value for values in simulated for value in values}) == 1,
        "detection": None
        if detected is None
        else detection(active, detected.scores, detected.threshold),
    }
    return explanation_folder.document(
        record,
        job.config.explainer,
        explanation,
        simulated,
        detected,
        scores,
        token_text(job.model),
    )


def _cost_line(costs: CostEstimate) -> str:
    price = "" if costs.price is None else f", price {costs.price:.2f}"
    return (
        f"about {number_of(costs.requests, 'request')}, {number_of(costs.tokens_in, 'token')} in, "
        f"{costs.tokens_out} out{price}; answers in the cache are not asked for again"
    )
