"""What an engine starts on one of its machines: runs a few jobs, each as this machine's own pool would, and passes word
on through the mailbox."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.pool import Ended, Slot, Stopped, Target, Word
from experiments.pools.local import LocalPool
from experiments.pools.parts.mailbox import Began, Mailbox, Over

TICK = 0.2  # seconds between looks at the mailbox
PART_EVERY = 30.0  # seconds between words on parts of an epoch: each is a file, and a thousand runs share the folder
PATIENCE = 600.0  # seconds for which the last word waits for a folder that is away


@dataclasses.dataclass(kw_only=True)
class Agent:
    """Runs jobs to their ends.

    Args:
        folder: of the mailbox.
        names: of the jobs, in their order.
        target: what runs in a process, importable by its module.
        device: as torch names it inside a run.
        at_once: how many run at once, on the same GPUs.
        preload: see `LocalPool`.
        work_dir: from which modules are imported.
        requeue: command that has the engine start this program again, from its beginning.
    """

    folder: Path
    names: Sequence[str]
    target: Target
    device: str
    at_once: int = 1
    preload: Sequence[str] = ()
    work_dir: str = ""
    requeue: Sequence[str] = ()

    def __call__(self) -> None:
        """Run the jobs whose ends are not known; one that left before its end is left to whoever starts it again."""
        if self.work_dir:
            os.chdir(self.work_dir)
        _Session(self).run()


class _Session:
    def __init__(self, agent: Agent) -> None:
        self._agent, self._box = agent, Mailbox(agent.folder)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") if agent.device == "cuda" else ""
        places = [Slot(index=index, device=agent.device, visible=visible) for index in range(agent.at_once)]
        _ignore_signals()
        self._pool = LocalPool(places, agent.target, agent.preload)
        self._running: dict[int, str] = {}
        self._asked: set[str] = set()
        self._epochs: dict[str, set[int]] = {}
        self._told: dict[str, float] = {}
        self._unsent: list[tuple[str, Any]] = []
        self._leaving = self._again = False
        with contextlib.suppress(ValueError):  # not in the main thread: an engine without signals
            signal.signal(signal.SIGUSR2, lambda *_: self.leave(again=True))
            signal.signal(signal.SIGTERM, lambda *_: self.leave(again=False))

    def leave(self, *, again: bool) -> None:
        """Have every run leave at its next step. Safe in a signal handler."""
        self._leaving, self._again = True, self._again or again

    def run(self) -> None:
        waiting = list(self._agent.names)
        free = list(self._pool.slots)
        try:
            while self._running or (waiting and not self._leaving):
                while free and waiting and not self._leaving:
                    if self._start(waiting[0], free[0]):
                        free.pop(0)
                    waiting.pop(0)
                self._pass_stops_on()
                for event in self._pool.wait(TICK):
                    if isinstance(event, Ended):
                        self._end(event)
                        free.append(event.slot)
                    elif isinstance(event, Word):
                        self._hear(event)
                self._send()
        finally:
            self._pool.close()
        if self._again:
            self._go_on_later()
        self._send(until=time.monotonic() + PATIENCE)

    def _start(self, name: str, slot: Slot) -> bool:
        ticket = self._patiently(self._box.get, name)
        if ticket is None:
            return False
        if self._patiently(self._box.stop_asked, name):
            self._unsent.append((name, Over(lost="taken out of the queue")))
            return False
        self._unsent.append((name, Began(socket.gethostname())))
        self._send()
        self._pool.start(slot, ticket.job, ticket.log)
        self._running[slot.index] = name
        return True

    def _pass_stops_on(self) -> None:
        for index, name in self._running.items():
            with contextlib.suppress(OSError):
                if name not in self._asked and (self._leaving or self._box.stop_asked(name)):
                    self._asked.add(name)
                    self._pool.stop(self._pool.slots[index])

    def _hear(self, event: Word) -> None:
        name = self._running[event.slot.index]
        epoch = getattr(event.content, "epoch", None)
        if epoch is not None:  # other words do not say how far it got
            self._epochs.setdefault(name, set()).add(epoch)
            if getattr(event.content, "part", 0) and time.monotonic() < self._told.get(name, 0.0) + PART_EVERY:
                return
            self._told[name] = time.monotonic()
        self._unsent.append((name, event.content))

    def _end(self, event: Ended) -> None:
        name = self._running.pop(event.slot.index)
        wished = self._patiently(self._box.stop_asked, name)
        if self._leaving and isinstance(event.outcome, Stopped) and not wished:
            return  # the engine's wish, not the scheduler's: it goes on when this program is started again
        self._unsent.append((name, Over(event.outcome, event.lost)))

    def _go_on_later(self) -> None:
        """Have the engine start this program again, unless it got nowhere: then the scheduler is told."""
        if self._agent.requeue and any(len(epochs) > 1 for epochs in self._epochs.values()):
            subprocess.run(self._agent.requeue, check=False)
            return
        said = {name for name, word in self._unsent if isinstance(word, Over)}
        for name in self._agent.names:
            if name not in said and self._patiently(self._box.get, name) is not None:
                self._unsent.append((name, Over(lost="the time limit was reached before an epoch was done")))

    def _send(self, until: float = 0.0) -> None:
        """Send what is to be sent; what the folder does not take now is kept for the next time."""
        while self._unsent:
            try:
                self._box.post(*self._unsent[0])
            except OSError:
                if time.monotonic() > until:
                    return
                time.sleep(1)
            else:
                self._unsent.pop(0)

    def _patiently(self, ask: Callable[[str], Any], name: str) -> Any:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return ask(name)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(1)


def _ignore_signals() -> None:
    """An engine's signals reach every process of a program; those that it starts leave them to the first."""
    with contextlib.suppress(ValueError):  # not in the main thread: an engine without signals
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
