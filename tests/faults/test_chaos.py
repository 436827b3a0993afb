"""Runs, the scheduler and the fork server killed at random until a study is done; it ends as if nothing had happened.

The seed and every kill are printed: DHM_CHAOS_SEED=7 replays one.
"""

import collections
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Started, Study, until
from tests.faults.sabotage import SLOW

SEEDS = [int(seed) for seed in os.environ.get("DHM_CHAOS_SEED", "1 2 3").split()]
WORDS = ("seeds=8", "epochs=12")
CELLS = 24
GREAT = ("scheduler", "server")
STEADY = 6.0  # seconds for which runs have been at work before the scheduler or the fork server is killed
COMMANDS = 40
RETRIES = 2  # of the command, by default


class Chaos:
    """Kills something every second or two.

    A run that is killed again and again before its first epoch fails in the end, as it should. So each checkpoint of a
    cell is worth as many kills as there are retries, however slow the machine is.

    Args:
        seed: decides when, and what.
    """

    def __init__(self, study: Study, seed: int) -> None:
        self._study, self._random, self._begun = study, random.Random(seed), time.monotonic()
        self._spent: collections.Counter[tuple[str, int]] = collections.Counter()
        self._owed = self._random.sample(GREAT, len(GREAT))
        self.kills: list[str] = []

    def disturb(self, started: Started) -> None:
        """Until the command has ended, by itself or by being killed."""
        at_work: float | None = None
        while started.process.poll() is None:
            pause = time.monotonic() + self._random.uniform(1, 2)
            while time.monotonic() < pause and started.process.poll() is None:
                time.sleep(0.02)
            if "slots (cpu)" not in started.shown:
                continue  # nothing is trained yet: the command is still being set up
            at_work = at_work or time.monotonic()
            role = "run"
            if time.monotonic() - at_work > STEADY and (self._owed or self._random.random() < 0.1):
                role = self._owed[-1] if self._owed else self._random.choice(GREAT)
            if self._killed(started, role) and role != "run":
                self._owed = [other for other in self._owed if other != role]
                at_work = None  # its successor needs seconds to be up

    def _killed(self, started: Started, role: str) -> bool:
        found = started.members()
        runs = {pid: self._checkpoint_of(pid) for pid, its in found.items() if its == "run"}
        ready = [pid for pid, point in runs.items() if point is not None and self._spent[point] < RETRIES]
        chosen = sorted(ready if role == "run" else [pid for pid, its in found.items() if its == role])
        if not chosen or (role == "server" and len(ready) < len(runs)):
            return False
        pid = self._random.choice(chosen)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self._spent.update(
            point for run, point in runs.items() if point is not None and (run == pid or role == "server")
        )
        self.kills.append(f"{time.monotonic() - self._begun:6.2f} s {role} {pid}")
        return True

    def _checkpoint_of(self, pid: int) -> tuple[str, int] | None:
        """A run's cell, and which of its checkpoints it goes on from; none for a run that has no log yet."""
        try:
            log = Path(f"/proc/{pid}/fd/1").readlink()
            if log.parent.name != "logs":
                return None
            own = [path for path in self._study.checkpoints() if path.name.startswith(f"{log.stem}.")]
            return log.stem, max((path.stat().st_mtime_ns for path in own), default=0)
        except OSError:  # it has ended meanwhile, or its checkpoint gives way to the next
            return None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_study_ends_as_if_nothing_had_happened(study: Study, seed: int) -> None:
    chaos = Chaos(study, seed)
    codes: list[int] = []
    try:
        while not codes or codes[-1] != 0:
            assert len(codes) < COMMANDS, "it makes no progress"
            started = study.start(*WORDS, fault=SLOW)
            chaos.disturb(started)
            codes.append(started.process.wait())
            assert codes[-1] in (0, -signal.SIGKILL), started.shown
            until(lambda started=started: not started.members(), "no process is left", 60)  # type: ignore[misc]
    finally:
        print(
            f"\nDHM_CHAOS_SEED={seed}: commands ended with {codes}; {len(chaos.kills)} kills:", *chaos.kills, sep="\n"
        )
    assert {kill.split()[2] for kill in chaos.kills} == {"run", *GREAT}
    study.assert_as_if_undisturbed(CELLS)
