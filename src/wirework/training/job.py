"""A run in progress: its parts, and how they are built for a new or a resumed run."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from wirework import fastest, files
from wirework.config import TrainConfig, changes
from wirework.console import say, warn
from wirework.data import (
    Batch,
    Batches,
    Prepared,
    Tokenizer,
    eval_batches,
    record_text,
    text_for_runs,
)
from wirework.errors import InputError, number_of
from wirework.model import Model, load
from wirework.nn import Transformer
from wirework.training.baseline import bigram_table
from wirework.training.checkpoint import (
    TrainState,
    drop_checkpoints_after,
    gather,
    newest_checkpoint,
    restore_,
)
from wirework.training.dense_model import (
    check_same_tokenizer,
    folders_with_text,
    load_dense,
    refuse_changed,
    with_dense_tokenizer,
)
from wirework.training.live_gradient import LiveGradient
from wirework.training.make_priors import make_priors
from wirework.training.metrics import MetricsLog, checked_log
from wirework.training.optimizer import make_optimizer
from wirework.training.precision import resolve, resolve_device
from wirework.training.prior import Prior, StepLosses, losses_of
from wirework.training.run_folder import refuse_differences, resumed_settings, write_settings
from wirework.training.track import open_trackers


class Throughput:
    """Tokens per second of the training steps since the last call of `take`."""

    def __init__(self) -> None:
        self._tokens = 0
        self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Add the tokens and seconds of a step."""
        self._tokens += tokens
        self._seconds += seconds

    def take(self) -> float:
        """Return tokens per second since the last call, and start counting again."""
        rate = self._tokens / self._seconds if self._seconds else 0.0
        self._tokens, self._seconds = 0, 0.0
        return rate


@dataclass
class Job:
    """A run in progress."""

    config: TrainConfig
    folder: Path
    device: torch.device
    tokenizer: Tokenizer
    transformer: Transformer
    priors: list[Prior]
    optimizer: torch.optim.AdamW
    scaled: dict[str, nn.Parameter]
    """Parameters of transformer and priors by name, their gradients scaled by `grad_scale`."""
    apart: dict[str, nn.Parameter]
    """Parameters of priors that are trained apart (`Prior.own_lr`), by name."""
    batches: Batches
    held_out: Sequence[Batch]
    log: MetricsLog
    state: TrainState
    saved: int
    """Step of the newest checkpoint; 0 for none."""
    throughput: Throughput
    started: float
    """Start on the monotonic clock in seconds, moved back by the time spent before a resume."""

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.folder / "checkpoints"

    def seconds(self) -> float:
        """Return the time spent on the run so far, over all resumes."""
        return time.monotonic() - self.started

    @property
    def live(self) -> LiveGradient | None:
        """The matrices of which only live weights are trained, if a prior has some."""
        return next((prior.live for prior in self.priors if prior.live is not None), None)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters of the transformer and of the priors, by name."""
        return {**self.scaled, **self.apart}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what the optimizer updates, by name: entries in place of a live matrix."""
        return {**self.trained, **(self.live.parameters() if self.live else {})}

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of a checkpoint."""
        entries = self.live.tensors() if self.live else {}
        dense = {n: p for n, p in self.trained.items() if f"live/places/{n}" not in entries}
        return {**gather(dense, self.optimizer), **entries}

    def losses(self, tokens: Tensor, targets: Tensor) -> StepLosses:
        """Return the losses of a step."""
        return losses_of(self.transformer, self.priors, tokens, targets)


def begin(
    config: TrainConfig,
    folder: Path,
    resume: bool,
    progress: bool,
    extra_priors: Sequence[Prior] = (),
) -> Job:
    """Prepare data and model, and restore the newest checkpoint if there is one.

    Args:
        config: settings; `device` and `precision` may be `auto`.
        folder: folder of the run, locked by the caller.
        resume: whether the user asked to resume; only changes the messages.
        progress: show progress on standard error.
        extra_priors: priors that act after those of the settings.

    Raises:
        InputError: data, device or checkpoint cannot be used, or settings or data differ from those
            of the checkpoint.
    """
    checkpoint = newest_checkpoint(folder / "checkpoints")
    state, tensors = checkpoint or (TrainState(), None)
    checked_log(folder / "metrics.jsonl", state.metrics_bytes)  # an error before the work
    if checkpoint is not None:
        # config.yaml was compared before, but it is a text file that anyone may have edited.
        config = resumed_settings(config, TrainConfig.of(state.settings, "the checkpoint"), folder)
    resolve_device(config.device)
    start = None if config.start_from is None or checkpoint is not None else load(config.start_from)
    dense = load_dense(config)
    if dense is not None:
        refuse_changed(dense, state)
        config = with_dense_tokenizer(config, dense)
    runs = [folder, *folders_with_text(config)]
    data = text_for_runs(runs, config.data, progress, trained_on=state.data)
    if dense is not None:
        check_same_tokenizer(dense, data.tokenizer, str(data.path))
    config = with_vocabulary(config, data.tokenizer)
    _check_same_data(folder, state, data, resumed=checkpoint is not None)
    if start is not None:
        _check_start(config, start, data.tokenizer)
    if checkpoint is None:
        used = [model.trained_on_tasks for model in (start, dense) if model is not None]
        state.started_on_tasks = any_on_tasks(used)
    config = resolve(config)  # times matrix products, so it comes after all checks
    state.settings = config.model_dump(mode="json")
    batches = Batches(data.train, config.model.n_ctx, config.batch_size, config.seed)
    held_out = eval_batches(data.val, config.model.n_ctx, config.batch_size, config.eval_batches)
    device = torch.device(config.device)
    torch.manual_seed(config.seed)
    priors = [*make_priors(config, dense), *extra_priors]
    transformer = Transformer(config.model, seed=config.seed)
    if start is not None:
        transformer.load_state_dict(start.transformer.state_dict())
    transformer = transformer.to(device)
    for prior in priors:
        transformer = prior.wrap_model(transformer)
    with_model: dict[str, nn.Parameter] = {}
    apart: dict[str, nn.Parameter] = {}
    groups_apart: list[tuple[float, Iterable[nn.Parameter]]] = []
    for prior in priors:
        parameters = prior.parameters()
        if prior.own_lr is None:
            with_model |= parameters
        else:
            apart |= parameters
            groups_apart.append((prior.own_lr, parameters.values()))
    optimizer = make_optimizer(transformer, config.optimizer, with_model, groups_apart)
    scaled = {**dict(transformer.named_parameters()), **with_model}
    trained = {**scaled, **apart}
    for prior in priors:
        prior.prepare(transformer, optimizer)
        if tensors is None:
            prior.before_first_step()
        elif prior.live is not None:
            prior.live.restore(tensors)
    for parameter in trained.values():
        # Gradients are allocated once, and a resumed run starts from the same zeros.
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    if tensors is not None:
        whole = {n: p for n, p in trained.items() if f"live/places/{n}" not in tensors}
        restore_(whole, optimizer, tensors)
        drop_checkpoints_after(folder / "checkpoints", state.step)
        say(f"resuming {folder} at step {state.step} of {config.steps}")
    else:
        if start is None:
            start_bigram_(transformer, config, data)
        if resume:
            say(f"{folder} has no checkpoint yet: starting at step 0")
    record_text(folder, data, config.data)  # before config.yaml, which alone marks an older version
    write_settings(folder, config)
    data.tokenizer.save(folder / "tokenizer.json")
    files.write_sums(folder, ["tokenizer.json"])
    trackers = open_trackers(config, folder, state.step)
    return Job(
        config=config,
        folder=folder,
        device=device,
        tokenizer=data.tokenizer,
        transformer=transformer,
        priors=priors,
        optimizer=optimizer,
        scaled=scaled,
        apart=apart,
        batches=batches,
        held_out=held_out,
        log=MetricsLog(folder / "metrics.jsonl", state.metrics_bytes, trackers),
        state=state,
        saved=state.step,
        throughput=Throughput(),
        started=time.monotonic() - state.seconds,
    )


def any_on_tasks(models: Iterable[bool | None]) -> bool | None:
    """Return whether one of some models or texts is from the built-in tasks; None: unknown."""
    either = set(models)
    return True if True in either else None if None in either else False


@torch.no_grad()
def start_bigram_(transformer: Transformer, config: TrainConfig, data: Prepared) -> None:
    """Initialise the bigram table, if there is one, as `bigram_start` says."""
    if config.bigram_start == "counts" and transformer.bigram is not None:
        table = bigram_table(data.train, config.model.vocab_size)
        transformer.bigram.copy_(torch.from_numpy(table))


def with_vocabulary(config: TrainConfig, tokenizer: Tokenizer) -> TrainConfig:
    """Return the settings with a vocabulary size of `auto` replaced by the tokeniser's.

    Raises:
        InputError: the tokeniser has more tokens than `model.vocab_size`.
    """
    size = tokenizer.vocab_size
    if config.model.vocab_size == 0:
        model = config.model.model_copy(update={"vocab_size": size})
        data = config.data
        if data.tokenizer is None:
            data = data.model_copy(update={"vocab_size": size})
        return config.model_copy(update={"model": model, "data": data})
    if size > config.model.vocab_size:
        raise InputError(
            f"the tokeniser has {number_of(size, 'token')}, model.vocab_size is only "
            f"{config.model.vocab_size}"
        )
    return config


def _check_start(config: TrainConfig, start: Model, tokenizer: Tokenizer) -> None:
    """Make sure that a run can start from the weights of a model.

    Raises:
        InputError: model or tokeniser differ from that of the settings, or the model has gates.
    """
    if start.gates is not None:
        raise InputError(
            f"start_from {config.start_from} is a self-ablating model: its gates would be lost, "
            "so give a model without gates"
        )
    ours, theirs = (c.model_dump(mode="json") for c in (config.model, start.config))
    if listed := [str(change) for change in changes(theirs, ours, "model.")]:
        raise InputError(f"start_from {config.start_from}: other settings: {'; '.join(listed)}")
    if start.tokenizer is None or start.tokenizer.fingerprint != tokenizer.fingerprint:
        raise InputError(
            f"start_from {config.start_from} has another tokeniser than the text: "
            f"give data.tokenizer {Path(str(config.start_from)) / 'tokenizer.json'}"
        )


def _check_same_data(folder: Path, state: TrainState, data: Prepared, resumed: bool) -> None:
    """Record data, tokeniser and machine of the run; refuse to resume with other data."""
    now = {"data": data.fingerprint, "tokenizer": data.tokenizer.fingerprint}
    if resumed:
        before = {"data": state.data, "tokenizer": state.tokenizer}
        refuse_differences(
            folder,
            [f"{k}: {before[k][:12]} -> {now[k][:12]}" for k in now if before[k] != now[k]],
        )
        if state.threads != torch.get_num_threads():
            warn(
                f"resuming with {torch.get_num_threads()} threads a run of {state.threads} "
                "threads: the last bits of the weights may differ"
            )
        elif state.machine and not fastest.adopt(state.machine, state.choices):
            warn(
                f"resuming on {fastest.machine(state.threads)} a run of {state.machine}: "
                "the last bits of the weights may differ"
            )
    state.machine = fastest.machine(torch.get_num_threads())
    state.data, state.tokenizer = now["data"], now["tokenizer"]
    state.threads = torch.get_num_threads()
