"""This machine: one process a run, forked from a server that has torch, torchvision and mlflow loaded.

CUDA starts in the run, after CUDA_VISIBLE_DEVICES is set. A run watches its pipe and ends with its scheduler.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any

from experiments.pool import Ended, Slot, Target, Word
from experiments.pools.parts import server
from experiments.pools.parts.arrangement import AUTO, Arrangement, Automatic, PoolConfig
from experiments.pools.parts.gpus import choose_gpus, slots
from experiments.pools.parts.process import STOP, serve

START_TRIES = 3  # for each of which a fork server that is gone is replaced
SERVER_GONE = 255  # the exit code that multiprocessing makes up for the runs of a fork server that is gone


@dataclasses.dataclass
class Config(PoolConfig):
    """This machine.

    Args:
        gpus: see `choose_gpus`.
        cpu_slots: runs at once without GPUs; 0 is as many as there are cores, `auto` measures.
    """

    gpus: Any = "auto"
    cpu_slots: Any = 0


def arrange(asked: Config, replicas: int) -> Arrangement:
    """See `experiments.pools.arrange`."""
    for name, least in (("slots_per_gpu", 1), ("cpu_slots", 0)):
        if getattr(asked, name) != AUTO:
            asked.count(name, least, "a whole number or auto")
    gpus, room = choose_gpus(asked.gpus), max(1, _cores() // (asked.threads * replicas))

    def arranged(count: int) -> Arrangement:
        places = slots(gpus, count, count, replicas)
        # Beside a GPU its share of the cores; on a CPU, which trains, none.
        workers = 0 if places[0].device == "cpu" else max(1, _cores() // len(places))
        workers = workers if asked.workers is None else asked.workers
        return Arrangement(places, workers, lambda store, target: LocalPool(places, target))

    name = "slots_per_gpu" if gpus else "cpu_slots"
    count = getattr(asked, name)
    if count != AUTO:
        return arranged(count or room)
    # A run on a GPU wants a core of its own, too.
    most = room if not gpus else max(1, _cores() * replicas // len(gpus))
    first = arranged(1 if gpus else room)
    return dataclasses.replace(first, automatic=Automatic(f"pool.{name}", most, arranged))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalPool:
    """Runs jobs in processes of this machine.

    Args:
        slots: room for runs.
        target: what runs in a process; importable by its module.
        preload: modules that the fork server loads.
    """

    def __init__(self, slots: Sequence[Slot], target: Target, preload: Sequence[str] = server.PRELOAD) -> None:
        self.slots = tuple(slots)
        self._target = target
        self._context = server.start(preload)
        self._runs: dict[int, tuple[Any, connection.Connection]] = {}
        self._outcomes: dict[int, Any] = {}
        self._unborn: list[Ended] = []

    @property
    def here(self) -> "LocalPool":
        """See `Pool.here`."""
        return self

    def begin(self, study: str, wanted: Callable[[Any], bool]) -> dict[int, Any]:
        """See `Pool.begin`. A run ends with its scheduler here."""
        return {}

    def start(self, slot: Slot, job: Any, log: str) -> None:
        """See `Pool.start`."""
        assert slot.index not in self._runs, "the slot is taken"
        for _ in range(START_TRIES):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=serve, args=(self._target, job, slot.visible, log, theirs), name=f"slot-{slot.index}"
            )
            try:
                with _no_main_module():
                    process.start()
            except (OSError, EOFError) as error:  # the fork server was killed; the next try starts another
                ours.close()
                how = f"its process could not be started: {error}"
            else:
                self._runs[slot.index] = process, ours
                return
            finally:
                theirs.close()
        self._unborn.append(Ended(slot, lost=how))

    def wait(self, timeout: float) -> Sequence[Word | Ended]:
        """See `Pool.wait`."""
        watched: list[Any] = [channel for _, channel in self._runs.values()]
        watched += [process.sentinel for process, _ in self._runs.values()]
        events: list[Word | Ended] = [*self._unborn]
        self._unborn.clear()
        ready = set(connection.wait(watched, 0 if events else timeout)) if watched else set()
        for index, (process, channel) in list(self._runs.items()):
            slot = self.slots[index]
            over = process.sentinel in ready
            if over or channel in ready:
                events += self._read(slot, channel)
            if over:
                process.join()
                channel.close()
                del self._runs[index]
                events.append(self._ended(slot, process.exitcode))
        return events

    def _read(self, slot: Slot, channel: connection.Connection) -> list[Word | Ended]:
        words: list[Word | Ended] = []
        with contextlib.suppress(EOFError, OSError):
            while channel.poll():
                kind, content = channel.recv()
                if kind == "outcome":
                    self._outcomes[slot.index] = content
                else:
                    words.append(Word(slot, content))
        return words

    def _ended(self, slot: Slot, code: int) -> Ended:
        if slot.index in self._outcomes:
            return Ended(slot, outcome=self._outcomes.pop(slot.index))
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        how = "its fork server was killed" if code == SERVER_GONE else how
        return Ended(slot, lost=how)

    def stop(self, slot: Slot | None = None) -> None:
        """See `Pool.stop`."""
        for index, (_, channel) in self._runs.items():
            if slot is not None and index != slot.index:
                continue
            with contextlib.suppress(OSError):
                channel.send(STOP)

    def close(self) -> None:
        """See `Pool.close`."""
        for process, channel in self._runs.values():
            process.kill()
            channel.close()
        for process, _ in self._runs.values():
            process.join(5)
        self._runs.clear()


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep a run from importing the caller's main module again, which takes time and, in a script, would run it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
