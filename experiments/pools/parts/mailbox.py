"""Word between a scheduler and runs on other machines, through a folder that both see.

A message is a file that is written whole or not at all, and read once. A job's file stays until its end is known, so
that a scheduler that starts again finds what its predecessor started.
"""

import contextlib
import dataclasses
import itertools
import os
import pickle
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

JOBS, WORDS, STOPS = "jobs", "words", "stops"


@dataclasses.dataclass(frozen=True, slots=True)
class Began:
    """A run's process is about to start on a machine."""

    host: str


@dataclasses.dataclass(frozen=True, slots=True)
class Over:
    """A run's process is over, see `experiments.pool.Ended`."""

    outcome: Any = None
    lost: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Ticket:
    """A job, as it lies in the folder.

    Args:
        name: one for every start.
    """

    name: str
    job: Any
    log: str


class Mailbox:
    """A folder with jobs, words and wishes to stop. Jobs and words are pickled: the folder is its owner's alone.

    Raises:
        OSError: by every method, where the folder is away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Names sort in the order of writing: a program that is started anew goes on behind its predecessor.
        self._count = itertools.count(time.time_ns())
        self._last_words: set[str] = set()

    def prepare(self) -> None:
        """Make the folder."""
        for name in (JOBS, WORDS, STOPS):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    def put(self, ticket: Ticket) -> None:
        """Lay a job down, for the program that is to run it."""
        _write(self._job(ticket.name), ticket)

    def get(self, name: str) -> Ticket | None:
        """A job, unless its end is known."""
        if self._over(name).exists():
            return None
        found: Ticket | None = _read(self._job(name))
        return found

    def tickets(self) -> list[Ticket]:
        """All jobs, whether over or not."""
        found = (_read(path) for path in sorted((self.folder / JOBS).glob("*.job")))
        return [ticket for ticket in found if ticket is not None]

    def note_engine(self, names: Sequence[str], engine_id: str) -> None:
        """Keep the number under which the engine knows the program that runs some jobs."""
        for name in names:
            _write(self._job(name).with_suffix(".id"), engine_id)

    def engine_id(self, name: str) -> str | None:
        """See `note_engine`; none where the scheduler died before it knew."""
        found: str | None = _read(self._job(name).with_suffix(".id"))
        return found

    def post(self, name: str, word: Any) -> None:
        """Send word of a job."""
        _write(self.folder / WORDS / f"{next(self._count):020}.{name}", word)
        if isinstance(word, Over):
            self._over(name).touch()

    def take(self) -> list[tuple[str, Any]]:
        """The words that have come since, in the order of their writing, by job. A last word stays, for a scheduler
        that follows, until the job is forgotten."""
        words: list[tuple[str, Any]] = []
        for path, name in self._mail():
            if path.name in self._last_words:
                continue
            try:
                word = _read(path)
                if not isinstance(word, Over):
                    path.unlink(missing_ok=True)
            except OSError:
                if not words:
                    raise
                return words  # those that were read are told; the rest is read when the folder is back
            if isinstance(word, Over):
                self._last_words.add(path.name)
            words.append((name, word))
        return words

    def is_over(self, name: str) -> bool:
        """Whether a job's last word was sent."""
        return self._over(name).exists()

    def ask_stop(self, name: str) -> None:
        """Ask a run to leave."""
        (self.folder / STOPS / name).touch()

    def stop_asked(self, name: str) -> bool:
        """Whether a run was asked to leave."""
        return (self.folder / STOPS / name).exists()

    def forget(self, name: str) -> None:
        """Clear away what belongs to a job whose end is known."""
        for path in (self._job(name), self._job(name).with_suffix(".id"), self.folder / STOPS / name):
            path.unlink(missing_ok=True)
        for path, of in self._mail():
            if of == name:
                path.unlink(missing_ok=True)
                self._last_words.discard(path.name)
        self._over(name).unlink(missing_ok=True)

    def _job(self, name: str) -> Path:
        return self.folder / JOBS / f"{name}.job"

    def _over(self, name: str) -> Path:
        return self.folder / JOBS / f"{name}.over"

    def _mail(self) -> Iterator[tuple[Path, str]]:
        for path in sorted((self.folder / WORDS).glob("[0-9]*")):
            yield path, path.name.partition(".")[2]


def _write(path: Path, content: Any) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("wb") as file:
        pickle.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _read(path: Path) -> Any:
    with contextlib.suppress(FileNotFoundError):
        return pickle.loads(path.read_bytes())
    return None
