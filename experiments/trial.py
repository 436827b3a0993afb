"""What runs in a slot: one cell, from its checkpoint or from the start, to the end of its record."""

import contextlib
import dataclasses
import re
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from analysis import schema
from dhm import checkpoint
from dhm.engine import fit
from dhm.processes import ReplicaLostError
from dhm.recipe import Recipe
from dhm.training import Callback, NotFiniteError, Runtime, Training
from experiments.pool import Send, Stopped
from experiments.recording.energy import EnergyMeter
from experiments.recording.patience import Patience, trouble_of
from experiments.recording.recorder import Recorder, RecordInfo

PART_EVERY = 5.0  # seconds after which a run tells of a part of an epoch
LOCK_PATIENCE = 20.0  # seconds for which a run waits for another process that trains its cell


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A cell as it is handed to a slot.

    Args:
        code: hash of the training code that it is to be trained by.
        lock: file that is held while the cell is trained, so that no two processes ever train it at once.
        callbacks: what else is done in training; this run's own.
        judged_by: the metric that is told as the cell's error.
        patience: seconds for which a store that does not answer is waited for at the end.
        shared: whether a record of another study will do.
    """

    cell_id: str
    code: str
    recipe: Recipe
    seed: int
    runtime: Runtime
    record: RecordInfo
    lock: Path
    callbacks: Sequence[Callback] = ()
    judged_by: str = schema.TEST_TOP1
    patience: float = 600
    shared: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """The cell has a record now."""

    run_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """An epoch is done (or, at the start, `epoch` of them were by earlier attempts), or a part of the next one is.

    Args:
        part: of the next epoch, below 1.
        saved: epochs that the checkpoint holds: another attempt goes on from there.
    """

    epoch: int
    epochs: int
    top1_error: float | None
    seconds: float
    part: float = 0.0
    saved: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """Something that whoever watches should know."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """The cell is recorded as finished."""

    top1_error: float
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """The cell cannot be trained.

    Args:
        failure: its class, of `schema.FAILURES`.
        message: the last line of the error.
        place: its type and where it was raised, the same for errors that are the same mistake.
    """

    failure: str
    message: str
    trace: str
    place: str


@dataclasses.dataclass(frozen=True, slots=True)
class Blocked:
    """The cell left because nothing can be recorded: no fault of its own; its checkpoint stands.

    Args:
        reason: what is wrong and what to do.
    """

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Busy:
    """Another study has to do with the cell.

    Args:
        recorded: whether it has recorded it, while this one waited; otherwise it was training it just now.
    """

    recorded: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Pruned:
    """The scheduler had the cell leave after this many epochs, for good: others do better."""

    epoch: int


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """A part of the run was killed from outside; to the scheduler that is the run itself."""

    how: str


class _StopRequestedError(Exception):
    pass


class _BusyError(Exception):
    """See `Busy`."""

    def __init__(self, *, recorded: bool) -> None:
        super().__init__()
        self.recorded = recorded


class _Reporter(Callback):
    """Tells the scheduler about every epoch, and leaves at a step when it is asked to."""

    def __init__(self, send: Send, stop_asked: Callable[[], bool], judged_by: str) -> None:
        self._send, self._stop_asked, self._judged_by = send, stop_asked, judged_by
        self._told = time.monotonic()
        self.notes: list[str] = []

    def on_start(self, training: Training) -> None:
        self.notes = training.notes
        for note in self.notes:
            self._send(Note(note))
        self._report(training)

    def on_step(self, training: Training) -> None:
        if self._stop_asked():
            raise _StopRequestedError
        if time.monotonic() > self._told + PART_EVERY and training.step < training.steps:
            self._report(training, training.step / training.steps)

    def on_epoch_end(self, training: Training) -> None:
        self._report(training)

    def _report(self, training: Training, part: float = 0.0) -> None:
        error = training.history[-1].metrics[self._judged_by] if training.history else None
        progress = Progress(training.epoch, training.recipe.epochs, error, training.seconds, part, training.saved)
        self._send(progress)
        self._told = time.monotonic()


def run_cell(job: Job, send: Send, stop_asked: Callable[[], bool]) -> Done | Failed | Stopped | Blocked | Busy | Lost:
    """Train a cell and record it. An error is an outcome, not an exception."""
    started = time.perf_counter()
    lock = FileLock(job.lock)
    try:
        _take(lock, stop_asked)
        top1_error = _train(job, send, stop_asked)
    except _BusyError as busy:
        return Busy(busy.recorded)
    except _StopRequestedError:
        return Stopped()
    except ReplicaLostError as error:
        with contextlib.suppress(OSError):  # a full disk takes no log either
            traceback.print_exc()
        return Lost(str(error))
    except Exception as error:
        with contextlib.suppress(OSError):  # a full disk takes no log either
            traceback.print_exc()
        trouble = trouble_of(error)
        if trouble is not None:
            return Blocked(trouble.words)
        return Failed(class_of(error), _last_line(error), traceback.format_exc(), _place(error))
    finally:
        lock.release(force=True)
    return Done(top1_error, time.perf_counter() - started)


def _train(job: Job, send: Send, stop_asked: Callable[[], bool]) -> float:
    """From the checkpoint or from the start to the end of the record; the error in percent."""
    recorder = Recorder(job.record, Patience(job.patience, lambda text: send(Note(text)), _raising(stop_asked)))
    if not recorder.open(shared=job.shared):
        raise _BusyError(recorded=True)
    send(Opened(recorder.run_id))
    error = recorder.complete(job.judged_by)
    if error is None:
        reporter = _Reporter(send, stop_asked, job.judged_by)
        try:
            result = fit(job.recipe, job.seed, job.runtime, (recorder, reporter, EnergyMeter(), *job.callbacks))
        except Exception:
            with contextlib.suppress(Exception):  # what ends the run is what is told
                recorder.leave()
            raise
        recorder.finish(result, reporter.notes)
        error = result.history[-1].metrics[job.judged_by]
    if job.runtime.checkpoint is not None:
        checkpoint.remove(job.runtime.checkpoint)
    return error


def _raising(stop_asked: Callable[[], bool]) -> Callable[[], bool]:
    """A wish to stop ends a wait for the store, too."""

    def check() -> bool:
        if stop_asked():
            raise _StopRequestedError
        return False

    return check


def _take(lock: FileLock, stop_asked: Callable[[], bool]) -> None:
    """Hold a cell's lock; a _BusyError if another process had it, when it lets go or after a while."""
    with contextlib.suppress(Timeout):
        lock.acquire(timeout=0)
        return
    until = time.monotonic() + LOCK_PATIENCE
    while time.monotonic() < until:
        if stop_asked():
            raise _StopRequestedError
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0.2)
            break
    raise _BusyError(recorded=False)


# The CPU's allocator and CUDA's libraries raise a plain RuntimeError. A library that has no room for its handle says
# that it is not initialised, and cuDNN, where none of its ways has room, that it finds no engine.
_NO_MEMORY = re.compile(
    r"can't allocate memory|[Oo]ut of memory|_STATUS_(INTERNAL_ERROR_DEVICE_)?ALLOC(ATION)?_FAILED"
    r"|(CUDNN|CUBLAS)_STATUS_NOT_INITIALIZED|unable to find an engine to execute this computation"
)


def class_of(error: Exception) -> str:
    """The class of a failure, of `schema.FAILURES`."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or _NO_MEMORY.search(str(error)):
        return schema.OUT_OF_MEMORY
    return schema.NOT_FINITE if isinstance(error, NotFiniteError) else schema.ERROR


def _place(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {frame.filename}:{frame.lineno}"


def _last_line(error: Exception) -> str:
    lines: list[Any] = traceback.format_exception_only(error)
    return str(lines[-1]).strip().splitlines()[0]
