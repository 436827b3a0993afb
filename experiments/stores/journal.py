"""Where Optuna's studies are kept: a journal in a file, or a database."""

import contextlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

optuna.logging.set_verbosity(optuna.logging.WARNING)
logger = logging.getLogger(__name__)


class _JournalLock:
    """Held by whoever writes to the journal. Optuna's own stays when its holder is killed, and outlasts its term where
    the journal's path is relative; this one ends with its process."""

    def __init__(self, journal: Path) -> None:
        self._lock = FileLock(journal.with_name(f"{journal.name}.flock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def repair_journal(path: Path) -> bool:
    """Cut off a last line that was not written whole; the next append would corrupt the journal otherwise.

    Returns:
        whether anything was cut.
    """
    if not path.exists() or path.stat().st_size == 0:
        return False
    lock = _JournalLock(path)  # the schedulers of other studies append to the same file
    lock.acquire()
    try:
        with path.open("rb+") as file:
            content = file.read()
            if content.endswith(b"\n"):
                return False
            file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()
    return True


def open_study(journal: Path | str, name: str, pruner: BasePruner | None) -> tuple[BaseStorage, optuna.Study]:
    """A study and what keeps it; it is made if there is none of that name.

    Args:
        journal: a file, or URL of a database in its place. A file that cannot be read is set aside.

    Raises:
        ValueError: the database cannot be opened.
    """
    if isinstance(journal, str):
        return _study(open_storage(journal), name, pruner)
    if repair_journal(journal):
        logger.warning("%s ended in the middle of a line; that line was cut off", journal)
    try:
        return _study(open_storage(journal), name, pruner)
    except (json.JSONDecodeError, KeyError, ValueError) as error:
        aside = journal.with_name(f"{journal.name}.damaged-{int(time.time())}")
        with contextlib.suppress(FileNotFoundError):
            journal.replace(aside)
        logger.warning("%s cannot be read (%s); set aside as %s and rebuilt", journal, error, aside.name)
        return _study(open_storage(journal), name, pruner)


def open_storage(journal: Path | str) -> BaseStorage:
    """Optuna's studies in a file, or in a database where there is a URL in its place.

    Raises:
        ValueError: it cannot be opened.
    """
    return _database(journal) if isinstance(journal, str) else _in_file(journal)


def _in_file(journal: Path) -> JournalStorage:
    lock: Any = _JournalLock(journal)
    return JournalStorage(JournalFileBackend(str(journal), lock))


def _database(url: str) -> RDBStorage:
    try:
        # A connection that was cut while nobody used it is made anew.
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except (SQLAlchemyError, ImportError) as error:
        first = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise ValueError(
            f"queue={url} cannot be opened ({first}): see that it runs, and that you may use it"
        ) from error


def _study(storage: BaseStorage, name: str, pruner: BasePruner | None) -> tuple[BaseStorage, optuna.Study]:
    study = optuna.create_study(
        study_name=name, storage=storage, direction="minimize", pruner=pruner, load_if_exists=True
    )
    return storage, study
