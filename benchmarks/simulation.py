"""A pool whose runs are made up: they take a drawn time of a clock that jumps, and leave a real record behind."""

import contextlib
import dataclasses
import functools
import heapq
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric
from sqlalchemy import event
from sqlalchemy.engine import Engine

from analysis import schema
from experiments.pool import Ended, Slot, Word
from experiments.recording.recorder import Recorder
from experiments.trial import Done, Failed, Job, Opened, Progress

START_S = 5.0  # from a slot's being given a cell to its first step, about


class Clock:
    """Simulated seconds. The processor time that the scheduler really takes passes on it too, without what else the
    machine does; what happens `apart` does not."""

    def __init__(self) -> None:
        self._began = time.process_time(), time.perf_counter()
        self._cpu_apart = self._wall_apart = self._jumped = 0.0
        self.is_apart = False

    @property
    def own(self) -> tuple[float, float]:
        """Processor and wall seconds that the scheduler took since the clock was made."""
        cpu, wall = self._began
        return time.process_time() - cpu - self._cpu_apart, time.perf_counter() - wall - self._wall_apart

    @property
    def now(self) -> float:
        """Simulated seconds since the clock was made."""
        return self.own[0] + self._jumped

    def jump_to(self, when: float) -> None:
        """Nothing happens until then."""
        self._jumped += max(0.0, when - self.now)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """What is done meanwhile would be done by others at the same time."""
        wall, cpu, self.is_apart = time.perf_counter(), time.process_time(), True
        try:
            yield
        finally:
            self._wall_apart += time.perf_counter() - wall
            self._cpu_apart += time.process_time() - cpu
            self.is_apart = False


class Meter:
    """Processor seconds, by what they are spent on; and what a database is asked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.cpu: dict[str, float] = defaultdict(float)
        self.asked = Counter[str]()

    def timed(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time is counted. Functions that are timed must not call each other."""

        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.cpu[what] += time.thread_time() - began

        return measured

    @contextlib.contextmanager
    def methods(self, what: str, *named: tuple[type, str]) -> Iterator[None]:
        """Time some methods, by class and name, meanwhile."""
        originals = [(cls, name, getattr(cls, name)) for cls, name in named]
        for cls, name, original in originals:
            setattr(cls, name, self.timed(what, original))
        try:
            yield
        finally:
            for cls, name, original in originals:
                setattr(cls, name, original)

    @contextlib.contextmanager
    def database(self) -> Iterator[None]:
        """Count statements and transactions meanwhile, those of the scheduler and those of runs."""

        def count(what: str) -> None:
            self.asked[f"{'run' if self._clock.is_apart else 'scheduler'} {what}"] += 1

        def statement(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
            count("reads" if text.lstrip().upper().startswith("SELECT") else "writes")

        def commit(_connection: Any) -> None:
            count("transactions")

        event.listen(Engine, "before_cursor_execute", statement)
        event.listen(Engine, "commit", commit)
        try:
            yield
        finally:
            event.remove(Engine, "before_cursor_execute", statement)
            event.remove(Engine, "commit", commit)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Weather:
    """What runs are like.

    Args:
        seconds: a run takes, on average; each cell between half and one and a half times as many.
        epochs: of which a run tells.
        lost: share of attempts that are preempted half-way, and started again.
        failed: share of attempts that fail for good.
        seed: of all that is drawn.
    """

    seconds: float = 600.0
    epochs: int = 20
    lost: float = 0.02
    failed: float = 0.005
    seed: int = 0


class SimulatedPool:
    """Slots with made-up runs; a pool as `experiments.pool.Pool` has it.

    Attributes:
        busy: slot-seconds in which runs ran.
        waited: slot-seconds in which a slot was free and a cell could have run in it.
        writing_cpu: processor seconds for what runs wrote.
        makespan: when the last run ended.
    """

    def __init__(self, slots: int, clock: Clock, weather: Weather, client: MlflowClient) -> None:
        self.slots = tuple(Slot(index=index, device="cpu", visible="") for index in range(slots))
        self.busy = self.waited = self.writing_cpu = self.makespan = 0.0
        self._clock, self._weather, self._client = clock, weather, client
        self._events: list[tuple[float, int, Word | Ended, Job]] = []
        self._free_since = dict.fromkeys(range(slots), 0.0)
        self._ready_since: dict[str, float] = {}
        self._attempts = Counter[str]()
        self._run_ids: dict[str, str] = {}
        self._count = 0

    @property
    def here(self) -> "SimulatedPool":
        """See `Pool.here`."""
        return self

    def begin(self, study: str, wanted: Callable[[Any], bool]) -> dict[int, Any]:
        """See `Pool.begin`."""
        return {}

    def start(self, slot: Slot, job: Job, log: str) -> None:
        """See `Pool.start`: what is to happen in the run is drawn now."""
        with self._clock.apart():
            now, weather = self._clock.now, self._weather
            self.waited += now - max(self._free_since.pop(slot.index), self._ready_since.get(job.cell_id, 0.0))
            draw = random.Random(f"{weather.seed} {job.cell_id} {self._attempts[job.cell_id]}")
            self._attempts[job.cell_id] += 1
            seconds, chance = weather.seconds * draw.uniform(0.5, 1.5), draw.random()
            error = draw.uniform(5.0, 15.0)
            end: Ended = Ended(slot, outcome=Done(error, seconds))
            epochs = weather.epochs
            if chance < weather.lost + weather.failed:
                epochs //= 2
                place = f"ValueError at {job.cell_id}"
                failed = chance < weather.failed
                outcome = Failed(schema.ERROR, "drawn by lot", "Traceback", place) if failed else None
                end = Ended(slot, outcome=outcome, lost=None if failed else "its node was preempted")
            self.busy += START_S + seconds * epochs / weather.epochs
            self._open(slot, job, now + START_S)
            when = now
            for epoch in range(epochs + 1):
                when = now + START_S + seconds * epoch / weather.epochs
                progress = Progress(epoch, weather.epochs, error, seconds, saved=epoch)
                self._expect(when, Word(slot, progress), job)
            self._expect(when, end, job)

    def _expect(self, when: float, what: Word | Ended, job: Job) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what, job))

    def wait(self, timeout: float) -> list[Word | Ended]:
        """See `Pool.wait`; all that has happened while the scheduler was busy, or else the next thing."""
        with self._clock.apart():
            happened: list[Word | Ended] = []
            if self._events:
                self._clock.jump_to(self._events[0][0])
            now = self._clock.now
            while self._events and self._events[0][0] <= now:
                when, _, what, job = heapq.heappop(self._events)
                if isinstance(what, Ended):
                    self._free_since[what.slot.index] = self._ready_since[job.cell_id] = self.makespan = when
                    if isinstance(what.outcome, Done):
                        self._record(job, what.outcome)
                happened.append(what)
            return happened

    def _open(self, slot: Slot, job: Job, when: float) -> None:
        """The beginning of a record, as a run makes it."""
        began = time.process_time()
        recorder = Recorder(job.record)
        recorder.open(shared=job.shared)
        self._run_ids[job.cell_id] = recorder.run_id
        self.writing_cpu += time.process_time() - began
        self._expect(when, Word(slot, Opened(recorder.run_id)), job)

    def _record(self, job: Job, done: Done) -> None:
        """The end of a record, as `Recorder.finish` writes it; without artifacts and the epochs before."""
        stamp = int(time.time() * 1000)
        values = {schema.FINAL_TOP1: done.top1_error, schema.BEST_TOP1: done.top1_error, schema.SECONDS: done.seconds}
        metrics = [Metric(name, value, stamp, 0) for name, value in values.items()]
        began = time.process_time()
        self._client.log_batch(self._run_ids[job.cell_id], metrics=metrics)
        self._client.set_terminated(self._run_ids[job.cell_id])
        self.writing_cpu += time.process_time() - began

    def stop(self, slot: Slot | None = None) -> None:
        """See `Pool.stop`. Nobody asks."""

    def close(self) -> None:
        """See `Pool.close`."""
