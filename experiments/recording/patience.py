"""Trouble with what keeps the record: what passes is waited out, what lasts is told with its remedy.

A store that is away for a while (a server that restarts, a database that another program has locked) costs no run. A
full disk or a read-only one is no cell's failure either: it ends the study in order, and the same command goes on.
"""

import dataclasses
import errno
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between tries, doubled each time
SLICE = 0.1  # seconds between looks at whether to hurry
AGAIN = "then give the same command again: it goes on from the last checkpoints"
FULL = f"the disk is full: make room, {AGAIN}"
READ_ONLY = f"the disk is read-only: make it writable, {AGAIN}"
CLOSED = f"the database cannot be opened: see to its folder, {AGAIN}"
BROKEN = f"the disk reports errors: see to it, {AGAIN}"
AWAY = f"the tracking store does not answer: bring it back, {AGAIN}"

_BY_NUMBER = {errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EROFS: READ_ONLY}
_BY_WORDS = {
    "database or disk is full|No space left on device|Disk quota exceeded": FULL,
    "readonly database|Read-only file system": READ_ONLY,
    "unable to open database file": CLOSED,
    "disk I/O error": BROKEN,
}
# SQLite, the client of a server, PostgreSQL.
_PASSING = re.compile(
    "database is locked|database table is locked|API request to .* failed with (timeout )?exception"
    "|Max retries exceeded|Connection refused|Connection aborted|Connection reset|error code 50[234]"
    "|server closed the connection|could not connect to server|the database system is (starting|shutting)"
)


class StoreTroubleError(Exception):
    """Nothing can be recorded now; says why, and what to do. What was recorded is not lost."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a record from being written.

    Args:
        passing: whether it may go by itself.
        words: what it is and what to do.
    """

    passing: bool
    words: str


def trouble_of(error: BaseException) -> Trouble | None:
    """What an error says about the store or its disk; none if it is about something else."""
    if isinstance(error, StoreTroubleError):
        return Trouble(False, str(error))
    chain = list(_chain(error))
    for cause in chain:
        words = _BY_NUMBER.get(getattr(cause, "errno", None) or 0)
        if words is not None:
            return Trouble(False, f"{words} ({_line(str(cause))})")
        for pattern, words in _BY_WORDS.items():
            if re.search(pattern, str(cause)):
                return Trouble(False, f"{words} ({_line(str(cause), pattern)})")
    for cause in chain:
        if isinstance(cause, ConnectionError) or _PASSING.search(str(cause)):
            return Trouble(True, f"{AWAY} ({_line(str(cause), _PASSING.pattern)})")
    return None


class Patience:
    """Repeats what a store refused, for a while.

    Args:
        seconds: how long.
        say: tells whoever waits.
        hurried: whether there is no time to wait any more.
    """

    def __init__(
        self,
        seconds: float = 600,
        say: Callable[[str], None] = lambda text: None,
        hurried: Callable[[], bool] = lambda: False,
    ) -> None:
        self.seconds, self.say, self.hurried = seconds, say, hurried

    def __call__(self, call: Callable[[], T]) -> T:
        """The result of a call that may be repeated.

        Raises:
            StoreTroubleError: the trouble lasts, or lasted for too long.
        """
        pause, began, told = FIRST_PAUSE, time.monotonic(), False
        while True:
            try:
                result = call()
            except Exception as error:
                trouble = trouble_of(error)
                if trouble is None:
                    raise
                waited = time.monotonic() - began
                if not trouble.passing or waited >= self.seconds or self.hurried():
                    raise StoreTroubleError(trouble.words) from error
                if not told:
                    why = _line(str(error), _PASSING.pattern)
                    self.say(f"the tracking store does not answer, waiting up to {self.seconds:.0f} s ({why})")
                told = True
                self._sleep(min(pause, max(0.0, self.seconds - waited)))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if told:
                    self.say(f"the tracking store answers again, after {time.monotonic() - began:.0f} s")
                return result

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.hurried():
            time.sleep(SLICE)


class Patient:
    """Another object each of whose methods is called with patience."""

    def __init__(self, inner: Any, patience: Patience) -> None:
        self._inner, self._patience = inner, patience

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        return lambda *args, **kwargs: self._patience(lambda: method(*args, **kwargs))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(text: str, pattern: str = "") -> str:
    """The line of an error that says what it is, short enough for a line of a terminal."""
    line = next((line.strip() for line in text.splitlines() if re.search(pattern, line)), text.strip())
    return line if len(line) <= 160 else f"{line[:157]}..."
