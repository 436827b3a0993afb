"""Training: one recipe, one seed, from the first weights (or a checkpoint) to the last epoch's figures."""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dhm.data import DataSet, HeldOut, load
from dhm.losses import objective
from dhm.metrics import TermMeans, top_k_wrong, with_ensembles
from dhm.optim import learning_rate, set_learning_rate
from dhm.processes import replicated
from dhm.recipe import Recipe
from dhm.replicas import Replica
from dhm.steps import Step, steps_of_epoch
from dhm.streams import own_stream, stream_seed
from dhm.training import Callback, EpochRecord, NotFiniteError, Result, Runtime, Training

EVAL_BATCH = 500


def fit(
    recipe: Recipe,
    seed: int,
    runtime: Runtime | None = None,
    callbacks: Sequence[Callback] = (),
    data: DataSet | None = None,
) -> Result:
    """Train a recipe at a seed, from its checkpoint if there is one.

    Args:
        data: the data set, if the caller has loaded it already.

    Raises:
        ValueError: a recipe that cannot be built, or data that is not there.
        NotFiniteError: the loss is no number any more.
        ReplicaError, ReplicaLostError: another replica failed, or was killed.
    """
    runtime = runtime or Runtime()
    # Read before the other replicas do, who then find what was downloaded or decoded.
    images = data or load(recipe.data, runtime.data_root, runtime.cache)
    follower = functools.partial(_follow, recipe=recipe, seed=seed, runtime=runtime, data=data)
    with torch_settings(recipe, runtime), replicated(recipe.replicas, runtime.device, follower) as replica:
        training = Training(recipe, seed, runtime, images, replica)
        for callback in callbacks:
            callback.on_start(training)
        while training.epoch < recipe.epochs:
            started = time.perf_counter()
            metrics = train_one_epoch(training, callbacks)
            training.step_seconds.append((time.perf_counter() - started) / training.steps)
            metrics |= evaluate(training)
            replica.require_all()
            _require_finite(training, metrics)
            training.seconds += time.perf_counter() - started
            for callback in callbacks:
                metrics |= callback.measure(training)
            training.history.append(EpochRecord(training.epoch, time.time(), metrics))
            training.save()
            for callback in callbacks:
                callback.on_epoch_end(training)
        return training.result()


def _follow(replica: Replica, *, recipe: Recipe, seed: int, runtime: Runtime, data: DataSet | None) -> None:
    """What the other replicas of a run do: train along with the first, and nothing else."""
    runtime = dataclasses.replace(runtime, parts=())
    with torch_settings(recipe, runtime):
        training = Training(recipe, seed, runtime, data, replica)
        while training.epoch < recipe.epochs:
            train_one_epoch(training)
            training.history.append(EpochRecord(training.epoch, time.time(), {}))


def train_one_epoch(training: Training, callbacks: Sequence[Callback] = ()) -> dict[str, float]:
    """One pass over the training images; the means of its terms, its error and its last learning rate."""
    recipe, epoch, replica = training.recipe, training.epoch, training.replica
    training.network.train()
    training.step = 0
    training.network.seed_dropout(training.seed, epoch, training.device, replica.index)
    # Nothing of ours draws from torch's global stream; a registered part that does is repeatable all the same.
    torch.manual_seed(stream_seed(training.seed, "global", epoch, *own_stream(replica.index)))
    measured = TermMeans()
    lr = 0.0
    steps = steps_of_epoch(recipe, training.seed, epoch, training.steps)
    batches = training.batches.epoch(training.seed, epoch)
    for step, (images, labels) in zip(steps, batches, strict=True):
        lr = learning_rate(recipe.optim, epochs=recipe.epochs, moment=step.moment)
        set_learning_rate(training.optimiser, lr)
        names, figures = _step(training, step, images, labels)
        measured.add(names, figures, len(labels))
        training.step += 1
        for callback in callbacks:
            callback.on_step(training)
    measured.add_up(replica.total)
    means = measured.read()
    found = {"train/loss": means.pop("total"), "train/top1_error": 100 * means.pop("wrong"), "train/lr": lr}
    return {**found, **{f"loss/{name}": value for name, value in means.items()}}


def _step(
    training: Training, step: Step, images: torch.Tensor, labels: torch.Tensor
) -> tuple[tuple[str, ...], torch.Tensor]:
    """One step of the optimiser; names and values (n,) of what the batch measured, on the device.

    A function of its own, which ends with the gradients: what is left of a step while the next one goes forward lies
    among its maps and keeps the allocator from using their memory again.
    """
    with training.autocast():
        heads = training.model(images, step.heads)
    loss = objective(heads, labels, training.recipe, step)
    weight = training.replica.weight(len(labels), training.batch_size)
    (loss.total if weight == 1 else weight * loss.total).backward()
    training.optimiser.step()
    training.optimiser.zero_grad(set_to_none=True)
    wrong = top_k_wrong(heads.main.detach(), labels, 1).double().mean()
    return (*loss.terms.names, "total", "wrong"), torch.cat((loss.terms.values, loss.total.detach()[None], wrong[None]))


def evaluate(training: Training) -> dict[str, float]:
    """Errors in percent and cross-entropy of every head, and of their ensembles where the runtime asks for them, on the
    test images and on those held out for validation; on those of them that the runtime's `parts` name."""
    metrics: dict[str, float] = {}
    for name, images in training.held_out.items():
        if len(images) == 0:
            continue
        top1, top5, loss = _wrong(training, images)
        for index, head in enumerate(training.evaluated):
            suffix = "" if head == "main" else f"/{head}"
            metrics[f"{name}/top1_error{suffix}"] = 100 * float(top1[index].double().mean())
            if training.data.num_classes > 5:
                metrics[f"{name}/top5_error{suffix}"] = 100 * float(top5[index].double().mean())
            metrics[f"{name}/loss{suffix}"] = float(loss[index])
        if name == "test":
            training.class_errors = _class_errors(training, top1)
    return metrics


@torch.inference_mode()
def _wrong(training: Training, images: HeldOut) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which images are wrong by top-1 and by top-5, (H, N) each, and the mean cross-entropy (H,), on the host."""
    training.network.eval()
    top1, top5, losses = [], [], []
    for batch, labels in images.batches(EVAL_BATCH):
        with training.autocast():
            logits = training.network(batch).stacked()
        logits = with_ensembles(logits) if training.runtime.ensembles else logits
        top1.append(top_k_wrong(logits, labels, 1))
        top5.append(top_k_wrong(logits, labels, 5))
        logs = torch.log_softmax(logits, -1)
        losses.append(-logs[:, torch.arange(len(labels), device=logs.device), labels].double().sum(1))
    mean_loss = torch.stack(losses).sum(0) / len(images)
    return torch.cat(top1, 1).cpu(), torch.cat(top5, 1).cpu(), mean_loss.cpu()


def _class_errors(training: Training, wrong: torch.Tensor) -> dict[str, dict[str, float]]:
    labels = training.held_out["test"].labels.cpu()
    return {
        head: {
            name: 100 * float(wrong[index][labels == number].double().mean())
            for number, name in enumerate(training.data.classes)
        }
        for index, head in enumerate(training.evaluated)
    }


def _require_finite(training: Training, metrics: dict[str, float]) -> None:
    """The weights may blow up at an epoch's last step: its training loss is a number then, its test loss is none."""
    if all(map(math.isfinite, metrics.values())):
        return
    first, last = training.epoch * training.steps, (training.epoch + 1) * training.steps - 1
    terms = {name.removeprefix("loss/"): value for name, value in metrics.items() if name.startswith("loss/")}
    terms |= {name: metrics[name] for name in ("val/loss", "test/loss") if name in metrics}
    listed = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
    raise NotFiniteError(f"the loss is not finite in epoch {training.epoch} (steps {first} to {last}): {listed}")


@contextmanager
def torch_settings(recipe: Recipe, runtime: Runtime) -> Iterator[None]:
    """The settings that torch keeps for the whole process, put back afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    on_gpu = torch.device(runtime.device).type == "cuda"
    try:
        torch.set_num_threads(runtime.threads)
        torch.use_deterministic_algorithms(on_gpu and runtime.deterministic)
        # Deterministic algorithms would otherwise fill every new tensor, a kernel each; none is read before written.
        memory.fill_uninitialized_memory = False
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = recipe.tf32
        torch.backends.cudnn.benchmark = on_gpu and not runtime.deterministic
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = benchmark
        memory.fill_uninitialized_memory = filled
