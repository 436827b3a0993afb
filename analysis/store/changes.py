"""Which runs of an embedded store have changed since they were read. No number comes from here.

MLflow's tables are no interface, and MLflow does not tell when a run was changed last. So its tables are asked for one
thing alone: whether what they hold of a run is what they held before. Where they are not as they are known to be,
nobody knows, and everything is read again.
"""

import contextlib
import functools
import hashlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from analysis.store.cache import Cache, stamp_of

# A file that was written twice within a tick of its clock looks the same after both. Seconds, generous to any clock.
_SETTLED = 2.0
_RUN, _HISTORY = "run_uuid", "metrics"
_KIND, _ALL = "marks", "all"
_SCHEMA = pa.schema([("run_id", pa.string()), ("experiment_id", pa.string()), ("digest", pa.binary())])
_KNOWN = {"runs", "tags", "params", "latest_metrics", _HISTORY}


@dataclass(frozen=True, slots=True)
class Mark:
    """The experiment of a run, and a digest of all that its record holds."""

    experiment_id: str
    digest: bytes


class Watch:
    """A look at a database from outside of MLflow."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._version = self._data_version()

    def marks(self) -> dict[str, Mark] | None:
        """Return the mark of every run, by its id; None where the tables are not those that are known."""
        try:
            return self._marks()
        except sqlite3.Error:
            return None

    def written(self) -> bool:
        """Say whether anybody has written to the database since the watch began."""
        try:
            return self._data_version() != self._version
        except sqlite3.Error:
            return True

    def _data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _marks(self) -> dict[str, Mark] | None:
        columns = {
            name: [str(column[1]) for column in self._connection.execute(f"PRAGMA table_info({_quoted(name)})")]
            for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        }
        tables = {name: names for name, names in columns.items() if _RUN in names}
        if not tables.keys() >= _KNOWN or "experiment_id" not in tables["runs"]:
            return None
        found = self._connection.execute(f"SELECT {_RUN}, experiment_id FROM runs").fetchall()
        hashes = {str(run_id): hashlib.blake2b(digest_size=16) for run_id, _ in found}
        for table, names in sorted(tables.items()):
            for run_id, text in self._connection.execute(_history() if table == _HISTORY else _content(table, names)):
                if run_id in hashes:
                    hashes[run_id].update(f"\0{table}\0{text}".encode())
        return {str(run_id): Mark(str(experiment), hashes[run_id].digest()) for run_id, experiment in found}


@contextlib.contextmanager
def watch(database: Path) -> Iterator[Watch | None]:
    """Watch a database, without a right to write to it; None where it cannot be looked at."""
    try:
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    except sqlite3.Error:
        yield None
        return
    with contextlib.closing(connection):
        try:
            found = Watch(connection)
        except sqlite3.Error:
            yield None
            return
        yield found


def marks(database: Path) -> dict[str, Mark]:
    """Return the mark of every run, by its id; none where nobody knows."""
    now = stamp(database)
    return _marks(database) if now is None else _marks_at(database, now)


def stamp(database: Path) -> str | None:
    """Return how the files of a database look from outside; None where one was written so lately that it may look the
    same after the next writing.

    Equal stamps mean that nothing was written between them. The files are not opened: closing one would give up
    the locks that this process holds on it.
    """
    told = []
    for file in (database, database.with_name(database.name + "-wal")):
        try:
            found = file.stat()
        except FileNotFoundError:
            continue
        if found.st_size == 0:  # a log that a reader made
            continue
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _SETTLED * 1e9:
            return None
        told += [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    return " ".join(map(str, told))


@functools.lru_cache(maxsize=1)
def _marks_at(database: Path, now: str) -> dict[str, Mark]:
    """Once for all plans of a build, and kept for the next one: a large store takes seconds to look through."""
    cache = Cache(database)
    if stamp_of(table := cache.read(_KIND, _ALL, _SCHEMA)) == now:
        kept = zip(*(table[name].to_pylist() for name in _SCHEMA.names), strict=True)
        return {run_id: Mark(*rest) for run_id, *rest in kept}
    found = _marks(database)
    if found and stamp(database) == now:
        rows = [(run_id, mark.experiment_id, mark.digest) for run_id, mark in found.items()]
        columns = dict(zip(_SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True))
        cache.write(_KIND, _ALL, pa.table(columns, schema=_SCHEMA), now)
    return found


def _marks(database: Path) -> dict[str, Mark]:
    with watch(database) as found:
        return (found.marks() if found else None) or {}


def _content(table: str, columns: list[str]) -> str:
    """A query for all that a table holds of each run. `quote` keeps every bit of a number, and NULL apart from text."""
    row = " || ',' || ".join(f"quote({_quoted(name)})" for name in columns if name != _RUN)
    return f"SELECT {_RUN}, group_concat({row}, ';') FROM {_quoted(table)} GROUP BY {_RUN}"


def _history() -> str:
    """A query for the newest point of each run. Points are added and never changed: nothing else need be looked at."""
    newest = f"SELECT max(rowid) FROM {_HISTORY} WHERE {_HISTORY}.{_RUN} = runs.{_RUN}"
    return f"SELECT {_RUN}, ({newest}) FROM runs"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
