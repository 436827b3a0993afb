"""A pool whose slots are an engine's: it starts programs, each of which runs some jobs; word goes through a mailbox.

Runs live on where the scheduler dies, and the next one finds them.
"""

import contextlib
import dataclasses
import math
import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.pool import Ended, Placed, Slot, Target, Word
from experiments.pools.local import LocalPool
from experiments.pools.parts.agent import Agent
from experiments.pools.parts.arrangement import Arrangement, PoolConfig
from experiments.pools.parts.engine import Engine, EngineAwayError
from experiments.pools.parts.mailbox import Began, Mailbox, Over, Ticket
from experiments.pools.parts.server import PRELOAD

SLICE = 0.05  # seconds between looks at the mailbox
LOOK = 2.0  # seconds between questions to the engine
GRACE = 30.0  # seconds for which word of a program that is gone may still be under way
WORKERS = 4  # processes that decode images beside a GPU of an engine, whose cores are not known here


@dataclasses.dataclass(slots=True)
class _Run:
    """What a slot is busy with."""

    slot: Slot
    ticket: Ticket
    number: str | None = None
    begun: bool = False
    queued: bool = False
    gone_since: float = math.inf


class EnginePool:
    """Runs jobs on an engine.

    Args:
        slots: how many jobs are with the engine at once, waiting or running.
        folder: of mailboxes; every machine sees it under this name.
        target: what runs in a slot.
        connect: gives the engine for a study, by its name and the folder of its logs.
        jobs_per_program: how many jobs one program runs.
        at_once: how many of them at a time.
        preload: what a program loads once for all of its jobs, see `LocalPool`.
        look, grace: seconds, see LOOK and GRACE.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        folder: Path,
        target: Target,
        connect: Callable[[str, Path], Engine],
        *,
        jobs_per_program: int = 1,
        at_once: int = 1,
        preload: Sequence[str] = (),
        look: float = LOOK,
        grace: float = GRACE,
    ) -> None:
        self.slots = tuple(slots)
        self._folder, self._target, self._connect = folder.resolve(), target, connect
        self._per_program, self._at_once, self._look, self._grace = jobs_per_program, at_once, look, grace
        self._preload = preload
        self._here: LocalPool | None = None
        self._runs: dict[str, _Run] = {}
        self._over: list[str] = []
        self._pending: list[Placed | Ended] = []
        self._next_look = self._next_submission = 0.0
        self._engine: Engine | None = None

    @property
    def here(self) -> LocalPool:
        """See `Pool.here`."""
        if self._here is None:
            self._here = LocalPool([Slot(index=0, device="cpu", visible="")], self._target, ())
        return self._here

    def begin(self, study: str, wanted: Callable[[Any], bool]) -> dict[int, Any]:
        """See `Pool.begin`."""
        self._box = Mailbox(self._folder / study)
        self._box.prepare()
        engine = self._engine = self._connect(study, self._box.folder / "programs")
        numbers = {ticket.name: self._box.engine_id(ticket.name) for ticket in self._box.tickets()}
        alive = engine.look([number for number in numbers.values() if number is not None])
        free, kept = list(self.slots), dict[int, Any]()
        for ticket in self._box.tickets():
            number = numbers[ticket.name]
            living = number in alive or self._box.is_over(ticket.name)
            if living and free and wanted(ticket.job):
                slot = free.pop(0)
                self._runs[ticket.name] = _Run(slot, ticket, number)
                kept[slot.index] = ticket.job
            else:
                self._box.forget(ticket.name)
        needed = {run.number for run in self._runs.values()}
        engine.cancel([number for number in engine.strays() if number not in needed])
        return kept

    def start(self, slot: Slot, job: Any, log: str) -> None:
        """See `Pool.start`. Jobs are handed to the engine together, at the next `wait`."""
        ticket = Ticket(uuid.uuid4().hex, job, str(Path(log).resolve()))
        self._runs[ticket.name] = _Run(slot, ticket)

    def wait(self, timeout: float) -> list[Word | Placed | Ended]:
        """See `Pool.wait`."""
        until = time.monotonic() + timeout
        with contextlib.suppress(OSError):  # the folder is away; what it holds keeps
            while self._over:
                self._box.forget(self._over[-1])
                self._over.pop()
            self._submit()
        while True:
            events: list[Word | Placed | Ended] = [*self._pending]
            self._pending.clear()
            with contextlib.suppress(OSError):
                for name, word in self._box.take():
                    events += self._read(name, word)
                if time.monotonic() >= self._next_look:
                    self._next_look = time.monotonic() + self._look
                    events += self._ask_engine()
            if events or time.monotonic() >= until:
                return events
            time.sleep(SLICE)

    def _submit(self) -> None:
        unsent = [name for name, run in self._runs.items() if run.number is None and not self._box.is_over(name)]
        if not unsent or time.monotonic() < self._next_submission:
            return
        assert self._engine is not None
        groups = [unsent[first : first + self._per_program] for first in range(0, len(unsent), self._per_program)]
        for name in unsent:
            self._box.put(self._runs[name].ticket)
        programs = [
            Agent(
                folder=self._box.folder,
                names=names,
                target=self._target,
                device=self.slots[0].device,
                at_once=self._at_once,
                preload=self._preload,
                work_dir=str(Path.cwd()),
                requeue=self._engine.requeue,
            )
            for names in groups
        ]
        try:
            numbers = self._engine.submit(programs)
        except EngineAwayError:
            self._next_submission = time.monotonic() + self._look
            return
        for names, number in zip(groups, numbers, strict=True):
            self._box.note_engine(names, number)
            for name in names:
                self._runs[name].number = number
        self._next_look = 0.0

    def _read(self, name: str, word: Any) -> list[Word | Placed | Ended]:
        run = self._runs.get(name)
        if run is None:  # of a run that was given up
            self._over.append(name)
            return []
        if isinstance(word, Began):
            run.begun = True
            run.queued = False
            return [Placed(run.slot, f"{self._title(run)} on {word.host}", queued=False)]
        if isinstance(word, Over):
            return [self._end(run, word.outcome, word.lost)]
        return [Word(run.slot, word)]

    def _ask_engine(self) -> list[Word | Placed | Ended]:
        assert self._engine is not None
        asked = [run for run in self._runs.values() if run.number is not None]
        try:
            there = self._engine.look({run.number for run in asked if run.number is not None}) if asked else {}
        except EngineAwayError:
            return []
        now, events = time.monotonic(), list[Word | Placed | Ended]()
        for run in asked:
            found = there.get(str(run.number))
            if found is None:
                run.gone_since = min(run.gone_since, now)
                if now - run.gone_since >= self._grace and not self._box.is_over(run.ticket.name):
                    events.append(self._end(run, None, self._engine.ending(str(run.number))))
                continue
            run.gone_since = math.inf
            if not run.queued and (found or not run.begun):  # not yet begun, or put back by the engine
                run.queued, run.begun = True, False
                events.append(Placed(run.slot, self._title(run), queued=True))
        return events

    def _title(self, run: _Run) -> str:
        assert self._engine is not None
        return "" if run.number is None else self._engine.title(run.number)

    def _end(self, run: _Run, outcome: Any, lost: str | None) -> Ended:
        del self._runs[run.ticket.name]
        # What is cleared away now could be lost before the scheduler has recorded it.
        self._over.append(run.ticket.name)
        return Ended(run.slot, outcome=outcome, lost=lost)

    def stop(self, slot: Slot | None = None) -> None:
        """See `Pool.stop`. What waits in the engine's queue is taken out of it."""
        asked = [run for run in self._runs.values() if slot is None or run.slot.index == slot.index]
        for run in asked:
            with contextlib.suppress(OSError):
                self._box.ask_stop(run.ticket.name)
        waiting = [run for run in asked if not run.begun]
        in_use = {run.number for run in self._runs.values() if run not in waiting}
        idle = {run.number for run in waiting if run.number is not None} - in_use
        if self._engine is not None and idle:
            self._engine.cancel([number for number in idle if number is not None])
        for run in waiting:
            if run.number is None or run.number in idle:
                self._pending.append(self._end(run, None, "taken out of the queue"))

    def close(self) -> None:
        """See `Pool.close`."""
        if self._here is not None:
            self._here.close()
        if self._engine is None:
            return
        with contextlib.suppress(OSError, EngineAwayError):
            self._engine.cancel({run.number for run in self._runs.values() if run.number is not None})
            for name in [*self._over, *self._runs]:
                self._box.forget(name)
        self._runs.clear()
        self._over.clear()
        self._engine.close()
        self._engine = None


def arrangement(
    asked: PoolConfig,
    count: int,
    connect: Callable[[str, Path], Engine],
    *,
    on_gpu: bool,
    jobs_per_program: int,
    at_once: int = 1,
) -> Arrangement:
    """The slots of an engine, see `EnginePool`.

    Args:
        count: how many.
        on_gpu: whether runs have GPUs; which ones, the engine says.
    """
    device = "cuda" if on_gpu else "cpu"
    places = [Slot(index=index, device=device, visible="", engine=asked.kind) for index in range(count)]
    preload = PRELOAD if jobs_per_program > 1 else ()

    def opened(store: Path, target: Target) -> EnginePool:
        folder, settings = user_folder(store), {"jobs_per_program": jobs_per_program, "at_once": at_once}
        return EnginePool(places, folder, target, connect, preload=preload, **settings)

    return Arrangement(places, workers(asked, on_gpu=on_gpu), opened)


def workers(asked: PoolConfig, *, on_gpu: bool) -> int:
    """Processes of a run on an engine that decode images."""
    if asked.workers is not None:
        return asked.workers
    return WORKERS if on_gpu else 0


def user_folder(root: Path) -> Path:
    """Where mailboxes are: one's own, since what lies in them is run."""
    return root / "engine" / str(os.getuid() if hasattr(os, "getuid") else "user")
