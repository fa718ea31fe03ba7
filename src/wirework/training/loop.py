"""The training loop. Priors plug into it; a killed run resumes from its newest checkpoint.

Dense, activation-sparse and weight-sparse models differ in their settings only. Weights, optimizer,
random states, data position and log are a function of settings and data. A run that is killed and
resumed on the same CPU with the same number of threads ends with bitwise the same model.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import torch
from torch import Tensor

from wirework import fastest
from wirework.config import TrainConfig
from wirework.console import say, warn
from wirework.errors import InputError, number_of
from wirework.malloc import freed_memory_kept
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.device_reads import device_reads_deferred
from wirework.nn.kernels.products import forced_library
from wirework.nn.kernels.sparse_linear import highest_density
from wirework.nn.shapes import (
    LIVE_BYTES,
    LOADING_BYTES,
    TRAINING_BYTES,
    WEIGHT_BYTES,
    check_memory,
)
from wirework.signals import Interrupted, Stop, stopping
from wirework.training.batch_evaluation import evaluate_batches, to_device
from wirework.training.checkpoint import prune_checkpoints, save_checkpoint
from wirework.training.job import Job, any_on_tasks, begin
from wirework.training.nonfinite import locate_nonfinite, nonfinite_parameter
from wirework.training.optimizer import gradient_rms, scale_gradients_, set_learning_rate_
from wirework.training.precision import autocast
from wirework.training.prior import Prior
from wirework.training.progress import TrainingProgress
from wirework.training.run_folder import (
    Run,
    final_metrics,
    finished_run,
    locked_run_folder,
    settings_to_use,
)
from wirework.training.schedule import learning_rate
from wirework.training.step_numbers import EarlierNaNError, read_numbers
from wirework.training.track import check_trackers

_MOST_NEGLIGIBLE = 0.05
"""Share of negligible weights above which the end of training warns."""


def train(
    config: TrainConfig,
    resume: bool = False,
    progress: bool = True,
    *,
    priors: Sequence[Prior] = (),
) -> Run:
    """Train a model and save it to `runs/NAME/model`.

    Args:
        config: all settings.
        resume: continue the run of that name from its newest undamaged checkpoint; a run without a
            checkpoint starts at step 0.
        progress: show progress on standard error.
        priors: your own priors, which act after those of the settings. A resumed run needs the same
            ones.

    Returns:
        The finished run, with its model on the CPU.

    Raises:
        InputError: settings, data or folder cannot be used, the run exists (or differs, with
            `resume`), or a value became NaN or infinite.
        Interrupted: a signal came (see `signals.py`); the work so far is in a checkpoint.

    Source: Gao et al. 2025, App. A.2; Ferrao et al. 2025.
    """
    check_trackers(config.track)
    # Errors in the environment come before anything is written.
    highest_density()
    forced_library()
    check_memory(config.model, config.gating, "the settings", _bytes_for_each_weight(config))
    with stopping() as stop, locked_run_folder(config, resume) as folder, freed_memory_kept():
        config = settings_to_use(config, folder)
        existing_run = finished_run(folder)
        if existing_run is not None:
            message = f"{folder} is finished already ({number_of(config.steps, 'step')})"
            stop.leave_if_requested(message)
            say(message)
            return existing_run
        with _generators_restored(), fastest.collected_choices() as choices:
            with stop.at_once(f"stopped before training of {folder} began; nothing is lost"):
                job = begin(config, folder, resume, progress, priors)
            choices.update(job.state.choices)
            job.state.choices = choices
            with (
                closing(job.log),
                TrainingProgress(config.steps, job.state.step, progress) as progress_bar,
            ):
                _train(job, stop, progress_bar)
                return _finish(job, stop)


def _bytes_for_each_weight(config: TrainConfig) -> int:
    """Return the least memory of a run for each weight, before activations."""
    if torch.cuda.is_available():  # gradients and moments are in GPU memory
        return LOADING_BYTES
    if config.hard_concrete is not None:  # a gate for each weight is trained too
        return 2 * TRAINING_BYTES
    sparsity = config.weight_sparsity
    if sparsity is None or sparsity.gradient != "live":
        return TRAINING_BYTES
    if sparsity.start_fraction > sparsity.live_below:
        return TRAINING_BYTES
    trained = min(1.0, (1 + sparsity.candidates) * sparsity.start_fraction)
    return min(TRAINING_BYTES, WEIGHT_BYTES + math.ceil(LIVE_BYTES * trained))


def _train(job: Job, stop: Stop, progress_bar: TrainingProgress) -> None:
    """Run the steps, with evaluations and checkpoints between them."""
    config, state = job.config, job.state
    while True:
        if _evaluation_due(config, state.step) or stop.requested:
            _refuse_nan_of_last_step(job)
        if _evaluation_due(config, state.step) and state.evaluated != state.step:
            _evaluate(job, stop, progress_bar)
        if _checkpoint_due(config, state.step) or stop.requested:
            _save(job)
        if stop.number is not None:
            raise Interrupted(stop.number, _where_it_stopped(job))
        if state.step == config.steps:
            return
        started = time.perf_counter()
        tokens, targets = _batch(job, state.step)
        with _locating_nonfinite(job, tokens, targets):
            numbers = training_step(job, tokens, targets)
        state.step += 1
        _log(job, progress_bar, numbers, time.perf_counter() - started)


def training_step(job: Job, tokens: Tensor, targets: Tensor) -> dict[str, float]:
    """Train on one batch: forward, backward, update, and the priors after it.

    Args:
        job: the run; its step number is read and not changed.
        tokens: (B, T) int64 on the run's device.
        targets: (B, T) int64 next tokens.

    Returns:
        Numbers for the log.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    config, step = job.config, job.state.step
    if job.live is not None:
        job.live.plan(step)
    with autocast(config), device_reads_deferred() as nan_scalars:
        losses = job.losses(tokens, targets)
    job.optimizer.zero_grad(set_to_none=False)
    losses.pop("total").backward()  # type: ignore[no-untyped-call]
    grad_rms = scale_gradients_(job.scaled.values(), config.optimizer.grad_scale, job.live)
    gradients = {"grad_rms": grad_rms}
    if job.apart:
        gradients["grad_rms_apart"] = gradient_rms(job.apart.values())
    # Before the update, so that the weights are still the last good ones.
    numbers = read_numbers({**losses, **gradients}, job.priors, nan_scalars)
    base = learning_rate(step, config.steps, config.optimizer)
    numbers["lr"] = base * math.prod(prior.learning_rate_factor(step) for prior in job.priors)
    set_learning_rate_(job.optimizer, numbers["lr"], base / config.optimizer.lr)
    job.optimizer.step()
    for prior in job.priors:
        numbers |= prior.after_step(step)
    return numbers


def _batch(job: Job, step: int) -> tuple[Tensor, Tensor]:
    """Return tokens and targets of a step, (B, T) each, on the device."""
    tokens, targets = job.batches.at(step)
    if job.device.type != "cpu":  # there the forward pass checks them
        job.transformer.check_batch(torch.from_numpy(tokens), torch.from_numpy(targets))
    return to_device(tokens, job.device), to_device(targets, job.device)


def _evaluation_due(config: TrainConfig, step: int) -> bool:
    """Return whether to evaluate; also before each checkpoint, to know the best one."""
    return step > 0 and (step % config.eval_every == 0 or _checkpoint_due(config, step))


def _checkpoint_due(config: TrainConfig, step: int) -> bool:
    return step > 0 and (step % config.checkpoint_every == 0 or step == config.steps)


def _evaluate(job: Job, stop: Stop, progress_bar: TrainingProgress) -> None:
    """Evaluate and log; log nothing if a signal ends the evaluation."""
    state = job.state
    tokens, targets = (to_device(t, job.device) for t in job.held_out[0])
    with _locating_nonfinite(job, tokens, targets):
        with autocast(job.config), ExitStack() as stack:
            for prior in job.priors:
                stack.enter_context(prior.final_weights())
            values = evaluate_batches(
                job.transformer, job.held_out, job.device, lambda: stop.requested
            )
            if values is None:
                return
            for prior in job.priors:
                values |= prior.evaluate(job.held_out, job.device)
        read_numbers({"loss": values["val_loss"]})
    state.evaluated, state.last_eval = state.step, values
    job.log.write(state.step, "eval", values, {"seconds": job.seconds()})
    progress_bar.evaluated(state.step, values["val_loss"])


def _save(job: Job) -> None:
    """Write a checkpoint of this step, unless it has one; then delete old ones."""
    if job.state.step == 0:
        return
    # Also if the checkpoint exists: a signal may have ended the evaluation before it.
    _note_best(job)
    if job.saved != job.state.step:
        _write(job)
    prune_checkpoints(job.checkpoints, job.config.keep_checkpoints, job.state.best_step)


def _write(job: Job) -> None:
    """Write a checkpoint of this step.

    Raises:
        InputError: a parameter is not finite, or the disk is full.
    """
    if (name := nonfinite_parameter(job.trained)) is not None:
        raise InputError(_nonfinite_message(job, f"parameter {name}"))
    job.state.metrics_bytes, job.state.seconds = job.log.sync(), job.seconds()
    save_checkpoint(job.checkpoints, job.state, job.tensors())
    job.saved = job.state.step


def _note_best(job: Job) -> None:
    """Record this step as the best one if its held-out loss is the lowest."""
    state = job.state
    if state.evaluated != state.step:
        return
    if not all(prior.is_settled(state.step - 1) for prior in job.priors):
        return
    val_loss: float = state.last_eval["val_loss"]
    if state.best_loss is None or val_loss < state.best_loss:
        state.best_step, state.best_loss = state.step, val_loss


def _log(
    job: Job, progress_bar: TrainingProgress, numbers: dict[str, float], seconds: float
) -> None:
    state, config = job.state, job.config
    tokens = config.batch_size * config.model.n_ctx
    job.throughput.add(tokens, seconds)
    if state.step % config.log_every and state.step not in (1, config.steps):
        return
    rate = job.throughput.take()
    numbers = {"l0_fraction": 1.0, **numbers, "tokens": state.step * tokens}
    job.log.write(state.step, "train", numbers, {"seconds": job.seconds(), "tokens_per_s": rate})
    progress_bar.update(state.step, numbers["loss"], numbers["l0_fraction"], rate)


def _finish(job: Job, stop: Stop) -> Run:
    """Save the model, then write the last line of the log, which marks the run as finished."""
    job.optimizer.zero_grad()
    if job.live is not None:
        job.live.finish()
    for prior in job.priors:
        prior.finish()
    gates = next((prior.gates.cpu() for prior in job.priors if prior.gates is not None), None)
    model = Model(
        job.transformer.cpu().eval(),
        job.tokenizer,
        job.folder / "model",
        gates,
        trained_on_tasks(job),
    )
    model.save(job.folder / "model")
    for prior in job.priors:
        prior.save_beside(job.folder, model)
    state, config = job.state, job.config
    values = {
        **state.last_eval,
        "nonzero_fraction": measured_nonzero_fraction(job),
        "negligible_fraction": measured_negligible_fraction(job.transformer),
        "tokens": state.step * config.batch_size * config.model.n_ctx,
    }
    timing = {"seconds": job.seconds()}
    job.log.write(state.step, "final", values, timing)
    job.log.sync()
    stop.leave_if_requested(f"stopped after the end of training: {job.folder} is finished")
    return Run(job.folder, model, final_metrics({"step": state.step, **values, "timing": timing}))


def trained_on_tasks(job: Job) -> bool | None:
    """Return whether text came from the built-in tasks, in this run or a model that it used."""
    return any_on_tasks([job.config.data.draws_from_tasks, job.state.started_on_tasks])


def measured_nonzero_fraction(job: Job) -> float:
    """Return the fraction of nonzero entries over all matrices and biases."""
    n_entries, n_nonzero = job.transformer.weight_counts()
    return n_nonzero / n_entries


def measured_negligible_fraction(transformer: Transformer) -> float:
    """Return the share of the nonzero entries that are too small to do anything; warn of many.

    A floor keeps weights of silent neurons, which weight decay then shrinks.
    """
    share = transformer.n_negligible() / max(1, transformer.weight_counts()[1])
    if share > _MOST_NEGLIGIBLE:
        warn(
            f"{share:.0%} of the nonzero weights are below a millionth of the largest of their "
            "tensor: the model uses fewer weights than it counts. Silent neurons keep them: try a "
            "lower weight_sparsity.floor"
        )
    return share


@contextmanager
def _locating_nonfinite(job: Job, tokens: Tensor, targets: Tensor) -> Iterator[None]:
    """Turn a ValueError caused by NaN or infinity into an InputError that names the tensor."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        with autocast(job.config):
            where = locate_nonfinite(
                job.transformer, job.parameters(), lambda: job.losses(tokens, targets)
            )
        if where is None and "is nan" not in str(error) and "is inf" not in str(error):
            raise
        earlier = isinstance(error, EarlierNaNError)
        raise InputError(_nonfinite_message(job, where or str(error), earlier)) from error


def _refuse_nan_of_last_step(job: Job) -> None:
    """Raise an InputError if a prior met a NaN after the last step, before anything reads it."""
    try:
        read_numbers({}, job.priors)
    except EarlierNaNError as error:
        name = nonfinite_parameter(job.trained)
        where = str(error) if name is None else f"parameter {name}"
        raise InputError(_nonfinite_message(job, where, earlier=True)) from error


def _nonfinite_message(job: Job, where: str, earlier: bool = False) -> str:
    saved = job.checkpoints / f"step-{job.saved}" if job.saved else "none"
    return (
        f"NaN or infinity at step {job.state.step - earlier}, first in {where}; "
        f"last good checkpoint: {saved}; a lower optimizer.lr may help"
    )


def _where_it_stopped(job: Job) -> str:
    if job.state.step == 0:
        return f"stopped before the first step of {job.folder}; nothing is lost"
    return (
        f"stopped at step {job.state.step} of {job.config.steps}, saved: "
        f"--resume continues {job.folder}"
    )


@contextmanager
def _generators_restored() -> Iterator[None]:
    """Restore torch's random generators after the block, because training seeds them."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        yield
