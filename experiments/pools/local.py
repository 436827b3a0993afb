"""This machine: one process a run, forked from a server that has torch, torchvision and mlflow loaded.

A fresh interpreter takes seconds to load them; a process from the server starts in hundredths of one. The server only
imports: CUDA starts in the run, after CUDA_VISIBLE_DEVICES is set. A run watches its pipe and ends with its scheduler.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

import torch

from experiments.pool import Ended, Slot, Target, Word

# What a run would import later stands here too: torch._dynamo comes with the first optimiser, the store with its first
# write; each takes a second or more.
PRELOAD = [
    "torch",
    "torchvision",
    "torch._dynamo",
    "sklearn.datasets",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.artifact.local_artifact_repo",
    "experiments.preflight",
]
STOP = "stop"
START_TRIES = 3  # for each of which a fork server that is gone is replaced
SERVER_GONE = 255  # the exit code that multiprocessing makes up for the runs of a fork server that is gone


def slots(gpus: Sequence[str], slots_per_gpu: int, cpu_slots: int, gpus_per_run: int = 1) -> list[Slot]:
    """The slots of some GPUs, interleaved so that runs spread over them first; without GPUs those of the CPU.

    Raises:
        ValueError: the GPUs do not divide into slots of `gpus_per_run`.
    """
    if len(gpus) % gpus_per_run:
        raise ValueError(
            f"pool.gpus_per_run={gpus_per_run} does not divide the {len(gpus)} GPU(s) of pool.gpus: give pool.gpus "
            f"a multiple of it, or another pool.gpus_per_run"
        )
    groups = [",".join(gpus[first : first + gpus_per_run]) for first in range(0, len(gpus), gpus_per_run)]
    on_gpus = [("cuda", group) for _ in range(slots_per_gpu) for group in groups]
    places = on_gpus or [("cpu", "")] * cpu_slots
    return [Slot(index=index, device=device, visible=visible) for index, (device, visible) in enumerate(places)]


def choose_gpus(asked: str | int | Sequence[int | str]) -> list[str]:
    """The GPUs that `pool.gpus` asks for: `auto` (all there are), `all`, `none`, how many, or a list of their numbers.

    Raises:
        ValueError: it asks for what this machine does not have.
    """
    there = _visible_gpus()
    if asked == "auto":
        return there
    if asked in ("none", 0):
        return []
    if isinstance(asked, str) and asked != "all":
        raise ValueError(f"pool.gpus={asked}: give auto, all, none, how many, or a list such as [0,2]")
    if not there:
        raise ValueError(
            f"pool.gpus={asked} asks for a GPU, and torch sees none on this machine: leave pool.gpus out to use the CPU"
        )
    if asked == "all":
        return there
    if isinstance(asked, int):
        if not 0 < asked <= len(there):
            raise ValueError(f"pool.gpus={asked}: this machine has {len(there)}")
        return there[:asked]
    wanted = [str(gpu) for gpu in asked]
    missing = [gpu for gpu in wanted if gpu not in there]
    if missing or not wanted:
        raise ValueError(f"pool.gpus={wanted}: this machine has {', '.join(there)}")
    return wanted


def _visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES: those that it holds now, else the numbers. Counting does not start CUDA."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    named = [name.strip() for name in given.split(",")] if given else []
    return named[:count] if named else [str(index) for index in range(count)]


class LocalPool:
    """Runs jobs in processes of this machine.

    Args:
        slots: room for runs.
        target: what runs in a process; importable by its module.
    """

    def __init__(self, slots: Sequence[Slot], target: Target) -> None:
        self.slots = tuple(slots)
        self._target = target
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        self._runs: dict[int, tuple[Any, connection.Connection]] = {}
        self._outcomes: dict[int, Any] = {}
        self._unborn: list[Ended] = []
        forkserver.ensure_running()

    def begin(self, study: str, wanted: Callable[[Any], bool]) -> dict[int, Any]:
        """See `Pool.begin`. A run ends with its scheduler here."""
        return {}

    def start(self, slot: Slot, job: Any, log: str) -> None:
        """See `Pool.start`."""
        assert slot.index not in self._runs, "the slot is taken"
        for _ in range(START_TRIES):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=_serve, args=(self._target, job, slot.visible, log, theirs), name=f"slot-{slot.index}"
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


def _serve(target: Target, job: Any, visible: str, log: str, channel: connection.Connection) -> None:
    """What a run's process does: take its device, its log and its pipe, and run the target."""
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    # Ctrl-C in a terminal, or its end, reaches every process of it; the scheduler alone decides, and says so through
    # the pipe.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _redirect(log)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    threading.Thread(target=_watch, args=(channel, asked), daemon=True).start()
    outcome = target(job, lambda content: channel.send(("word", content)), asked.is_set)
    channel.send(("outcome", outcome))
    channel.close()


def _watch(channel: connection.Connection, asked: threading.Event) -> None:
    """Hear the scheduler's wish to stop; when it is gone, so is this run, whose checkpoint stands."""
    with contextlib.suppress(EOFError, OSError):
        while channel.recv() == STOP:
            asked.set()
    if not channel.closed:
        os._exit(1)


def _redirect(log: str) -> None:
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # a full disk: what keeps the record will say so, in words
        file = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep a run from importing the caller's main module again, which takes time and, in a script, would run it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
