"""Steps of a recipe in every slot of a pool at the same time: how many images a second they make together."""

import contextlib
import dataclasses
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from dhm.engine import fit
from dhm.recipe import Recipe
from dhm.training import Callback, NotFiniteError, Runtime, Training
from experiments.pool import Ended, Pool, Send, Word
from experiments.trial import class_of

SECONDS = 3.0  # for which all runs are watched at least
STEPS = 2  # of each of them, at least, after its first one, which warms up


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """Steps that are to be timed, until the pool says stop."""

    recipe: Recipe
    seed: int
    runtime: Runtime


@dataclasses.dataclass(frozen=True, slots=True)
class Timed:
    """The steps of a run: when each began and ended, on the machine's own clock, and its images.

    Args:
        memory: most of the host's that the run has taken, in bytes.
    """

    steps: Sequence[tuple[float, float, int]]
    memory: int


@dataclasses.dataclass(frozen=True, slots=True)
class Unfit:
    """A run that could not go on.

    Args:
        failure: of `schema.FAILURES`.
    """

    failure: str
    message: str


class _EnoughError(Exception):
    pass


class _Clock(Callback):
    """Notes every step after the first, tells of them, and leaves when it is asked to."""

    def __init__(self, send: Send, stop_asked: Callable[[], bool]) -> None:
        self._send, self._stop_asked = send, stop_asked
        self._last: float | None = None
        self.steps: list[tuple[float, float, int]] = []

    def on_step(self, training: Training) -> None:
        if training.device.type == "cuda":  # otherwise the clock would tell when the step was asked for
            torch.cuda.synchronize(training.device)
        now, size = time.monotonic(), training.recipe.optim.batch_size
        if self._last is not None:
            self.steps.append((self._last, now, min(size, training.batches.images - (training.step - 1) * size)))
        self._last = now
        self._send(now)
        if self._stop_asked():
            raise _EnoughError


def run_timing(job: Timing, send: Send, stop_asked: Callable[[], bool]) -> Timed | Unfit:
    """Make steps until the pool says stop. An error is an outcome, not an exception."""
    before, clock = high_water(), _Clock(send, stop_asked)
    try:
        while True:  # a recipe may be short; what becomes of its loss does not matter here
            with contextlib.suppress(NotFiniteError):
                fit(job.recipe, job.seed, job.runtime, [clock])
    except _EnoughError:
        return Timed(clock.steps, high_water() - before)
    except Exception as error:
        traceback.print_exc()
        return Unfit(class_of(error), f"{type(error).__name__}: {error}".splitlines()[0])


def watch(pool: Pool) -> tuple[list[Ended], tuple[float, float]]:
    """Let a run in every slot make steps, for long enough and all at the same time; how they ended, and from when to
    when that was."""
    warm: dict[int, float] = {}
    steps: dict[int, int] = {slot.index: 0 for slot in pool.slots}
    ended: list[Ended] = []
    until = None
    while len(ended) < len(pool.slots):
        for event in pool.wait(0.1):
            if isinstance(event, Ended):
                ended.append(event)
                until = until or time.monotonic()
                pool.stop()
            elif isinstance(event, Word):
                warm.setdefault(event.slot.index, event.content)
                since = max(warm.values()) if len(warm) == len(steps) else None
                steps[event.slot.index] += since is not None and event.content > since
                if until is None and since and event.content > since + SECONDS and min(steps.values()) >= STEPS:
                    until = time.monotonic()
                    pool.stop()
    return ended, (max(warm.values(), default=0.0), until or 0.0)


def rate(steps: Sequence[tuple[float, float, int]], since: float, until: float) -> float:
    """Images a second in a window of time; of a step that is partly in it, that part."""
    inside = (max(0.0, min(end, until) - max(begin, since)) * images / (end - begin) for begin, end, images in steps)
    return sum(inside) / (until - since)


def high_water() -> int:
    """The most memory that this process has had, in bytes; 0 where that is not told."""
    return _told("/proc/self/status", "VmHWM:") or 0


def free_memory() -> int | None:
    """Memory of this machine that a new process can have, in bytes; none where that is not told."""
    return _told("/proc/meminfo", "MemAvailable:")


def _told(file: str, name: str) -> int | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)
