"""Explain neurons of a model and score the explanations; what is done survives a stop.

Training text is what explanations are made from, held-out text what they are scored on.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from wirework.config import ExplainConfig
from wirework.console import Progress, counted, say
from wirework.errors import InputError, number_of
from wirework.files import is_file, locked, write_record
from wirework.measures.explain import files
from wirework.measures.explain.estimate import estimate
from wirework.measures.explain.explainers import Explainer, LanguageModelExplainer, token_text
from wirework.measures.explain.job import HARMLESS, ExplainJob, collect
from wirework.measures.explain.record import Neuron, NeuronRecord
from wirework.measures.explain.score import averages, correlations, detection
from wirework.measures.explain.server import NeuronError, ServerError
from wirework.summaries import html_table, shown_as

if TYPE_CHECKING:
    from wirework.data import Prepared
    from wirework.model import Model


_NOBODY = "http://localhost"
"""Instead of OpenAI's server, which needs a key, where none is asked."""


@dataclass(frozen=True)
class Explanations:
    """What was found of the neurons of one model."""

    neurons: tuple[dict[str, Any], ...]
    """Of each that was explained or is dead, what its file holds."""
    failed: tuple[dict[str, str], ...]
    """`neuron` and `reason` of each other one."""

    def __repr__(self) -> str:
        about = self.summary()
        counts = (f"{name} {about[name]}" for name in ("neurons", "explained", "dead", "failed"))
        return shown_as("Explanations", ", ".join(counts))

    def _repr_html_(self) -> str:
        return html_table("Explanations", self.summary())

    def summary(self) -> dict[str, Any]:
        """Return counts, and mean, standard error and count of each score over live neurons.

        `constant`: how many explanations predict the same everywhere, which scores 0;
        `undefined`: how many neurons do the same everywhere in held-out text, which has no score.
        """
        live = [one for one in self.neurons if not one["dead"]]
        scores = [one["scores"] for one in live]
        return {
            "neurons": len(self.neurons) + len(self.failed),
            "explained": len(live),
            "dead": len(self.neurons) - len(live),
            "failed": len(self.failed),
            "constant": sum(one["constant"] for one in scores),
            "undefined": sum(one["correlation"]["top_and_random"] is None for one in scores),
            "scores": averages(scores),
        }


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
        model: any of ours; a path is loaded.
        config: None for the defaults: patterns, 200 neurons.
        text: prepared with the model's tokeniser; None: what its run was trained on.
        out: folder that gets a file per neuron and `explain.json`; the same call goes on with what
            is there. Needed for a language model.
        progress: show a bar on standard error, and before a language model is asked what it will
            cost.

    Raises:
        InputError: a setting, site or neuron that does not fit the model, no text or too little,
            `out` was made with something else, no openai package or key, the server is down, over
            quota or refuses, `max_requests` is reached, or no neuron could be explained. What was
            done before is kept in `out`.
    """
    from wirework.model import load

    model, config = load(model), config or ExplainConfig()
    out = None if out is None else Path(out)
    if out is not None:
        files.check(out)
    job = ExplainJob.of(model, config, text, out)
    with closing(job.explainer()) as explainer:
        if out is None:
            return _explained(job, explainer, progress)
        with locked(out / "lock", str(out)):
            files.claim(out, job.about(), HARMLESS)
            return _explained(job, explainer, progress)


def estimate_cost(
    model: "Model | str | Path",
    config: ExplainConfig,
    *,
    text: "Prepared | None" = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Return what a language model would be asked: requests, tokens in and out, price.

    Raises:
        InputError: as `explain_neurons`, but no server is asked; patterns cost nothing.
    """
    from wirework.model import load

    model = load(model)
    if config.explainer != "language_model":
        raise InputError("patterns ask no server: an estimate is for explainer language_model")
    server = config.server.model_copy(update={"base_url": config.server.base_url or _NOBODY})
    job = ExplainJob.of(model, config.model_copy(update={"server": server}), text, Path())
    with closing(job.explainer()) as explainer:
        assert isinstance(explainer, LanguageModelExplainer)
        records = _records(job, progress)
        return estimate([one for one in records if not one.dead], explainer, config)


def _records(job: ExplainJob, progress: bool) -> list[NeuronRecord]:
    total = job.config.explain_excerpts + job.config.score_excerpts
    with Progress("excerpts", total, shown=progress, count=counted) as bar:
        return collect(job, bar.advance)


def _explained(job: ExplainJob, explainer: Explainer, progress: bool) -> Explanations:
    documents = _kept(job)
    failed: list[dict[str, str]] = []
    stopped: str | None = None
    missing = [neuron for neuron in job.neurons if neuron not in documents]
    if missing:
        if job.out is not None:
            files.forget(job.out)
        records = [one for one in _records(job, progress) if one.neuron in missing]
        for record in records:
            if record.dead:
                documents[record.neuron] = _written(job, record.neuron, files.dead_document(record))
        live = [one for one in records if not one.dead]
        if isinstance(explainer, LanguageModelExplainer) and progress:
            say(_cost(estimate(live, explainer, job.config)))
        with Progress("neurons", len(live), shown=progress, count=counted) as bar:
            stopped = _each(job, explainer, live, documents, failed, bar.advance)
    explanations = Explanations(
        tuple(documents[n] for n in job.neurons if n in documents), tuple(failed)
    )
    n_left = len(job.neurons) - len(explanations.neurons) - len(failed)
    if job.out is not None:
        about = {"format": "wirework-explain", "version": files.VERSION, **job.about()}
        write_record(
            job.out / files.SUMMARY,
            about
            | explanations.summary()
            | {"stopped": stopped, "left": n_left, "failures": failed},
        )
    if stopped is not None:
        kept_in = (
            ""
            if job.out is None
            else f", kept in {job.out}; the same command goes on with the rest"
        )
        explained, dead = (explanations.summary()[name] for name in ("explained", "dead"))
        told = (
            f"{number_of(explained, 'neuron')} explained, {dead} dead, {len(failed)} "
            f"failed, {n_left} left"
        )
        raise ServerError(f"{stopped}: {told}{kept_in}")
    if failed and explanations.summary()["explained"] == 0:
        raise InputError(f"no neuron of {len(failed)} was explained: {failed[0]['reason']}")
    return explanations


def _kept(job: ExplainJob) -> dict[Neuron, dict[str, Any]]:
    """Return what an earlier run finished."""
    if job.out is None:
        return {}
    paths = {neuron: files.neuron_path(job.out, neuron) for neuron in job.neurons}
    return {n: files.read_neuron(path) for n, path in paths.items() if is_file(path)}


def _written(job: ExplainJob, neuron: Neuron, document: dict[str, Any]) -> dict[str, Any]:
    if job.out is not None:
        write_record(files.neuron_path(job.out, neuron), document)
    return document


def _each(
    job: ExplainJob,
    explainer: Explainer,
    records: Sequence[NeuronRecord],
    documents: dict[Neuron, dict[str, Any]],
    failed: list[dict[str, str]],
    advance: Callable[[], None],
) -> str | None:
    """Explain neurons, each apart from the others; return why it stopped early, if it did."""
    in_a_row = 0
    work = partial(_one, job, explainer)
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
            documents[record.neuron] = _written(job, record.neuron, outcome)
    return None


_Outcome = dict[str, Any] | NeuronError | ServerError


def _outcomes(
    work: Callable[[NeuronRecord], dict[str, Any]], records: Sequence[NeuronRecord], at_once: int
) -> Iterator[tuple[NeuronRecord, _Outcome]]:
    """Yield what comes of each neuron, as it comes; leaving the loop begins no more of them."""
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
        # Daemons: an answer that does not come must not keep the process from ending.
        Thread(target=until_none, daemon=True).start()
    try:
        for _ in records:
            record, result = finished.get()
            if isinstance(result, Exception) and not isinstance(result, NeuronError | ServerError):
                raise result
            yield record, result
    finally:
        pending.clear()


def _one(job: ExplainJob, explainer: Explainer, record: NeuronRecord) -> dict[str, Any]:
    """Return what the file of one neuron holds."""
    explanation = explainer.explain(record)
    simulated = explainer.simulate(record, explanation, record.held_out)
    detected = explainer.detect(record, explanation, record.held_out, simulated)
    true = [one.activations for one in record.held_out]
    active = [one.peak >= job.config.active_share * record.peak for one in record.held_out]
    scores = {
        "correlation": correlations(true, simulated, len(record.held_out_top)),
        "constant": len({value for values in simulated for value in values}) == 1,
        "detection": None
        if detected is None
        else detection(active, detected.scores, detected.threshold),
    }
    return files.document(
        record,
        job.config.explainer,
        explanation,
        simulated,
        detected,
        scores,
        token_text(job.model),
    )


def _cost(costs: dict[str, Any]) -> str:
    price = f", price {costs['price']:.2f}" if "price" in costs else ""
    return (
        f"about {number_of(costs['requests'], 'request')}, "
        f"{number_of(costs['tokens_in'], 'token')} in, "
        f"{costs['tokens_out']} out{price}; answers in the cache are not asked for again"
    )
