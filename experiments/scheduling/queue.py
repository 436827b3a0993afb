"""The queue of a study, and its attempts: Optuna trials on a journal, with the factors as their attributes."""

import abc
import collections
import contextlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from experiments.grid import Cell
from experiments.trial import Progress

CELL = "cell_id"
WHY = "why"

optuna.logging.set_verbosity(optuna.logging.WARNING)
logger = logging.getLogger(__name__)


class Attempts(abc.ABC):
    """Where a runner gets its cells, and whom it tells what became of them. An attempt on a cell is an Optuna trial.

    Args:
        journal: file of Optuna's journal, or URL of a database in its place. A file that cannot be read is set aside;
            what it held is rebuilt from the tracking store.
        name: of the study.
    """

    def __init__(self, journal: Path | str, name: str, pruner: BasePruner | None = None) -> None:
        self._study = _open(journal, name, pruner)

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many cells wait."""

    @abc.abstractmethod
    def ask(self) -> tuple[Cell, optuna.Trial]:
        """The next cell, and the trial that its attempt is."""

    @abc.abstractmethod
    def put(self, cell: Cell) -> None:
        """A cell whose attempt was interrupted waits again."""

    @abc.abstractmethod
    def resume(self, cell_id: str) -> tuple[Cell, optuna.Trial]:
        """A cell that waits, and a trial for its attempt, which an earlier scheduler began and which goes on."""

    def _begun(self, cell: Cell, **known: Any) -> optuna.Trial:
        attributes = {CELL: cell.cell_id, **cell.variant.factors}
        self._study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attributes, **known))
        return optuna.Trial(self._study, self._study.get_trials(deepcopy=False)[-1]._trial_id)

    def report(self, cell: Cell, trial: optuna.Trial, progress: Progress) -> bool:
        """The attempt got further; whether it is to be given up."""
        return False

    def tell_done(self, trial: optuna.Trial, error: float) -> None:
        """The attempt ended with a result, in percent."""
        self._study.tell(trial, error)

    def tell_pruned(self, trial: optuna.Trial) -> None:
        """The attempt was given up."""
        self._study.tell(trial, state=TrialState.PRUNED)

    def tell_failed(self, trial: optuna.Trial, why: str) -> None:
        """The attempt ended without a result."""
        trial.set_user_attr(WHY, why)
        self._study.tell(trial, state=TrialState.FAIL)

    def _close_orphans(self) -> None:
        """Attempts that are open belong to a dead scheduler: this one holds the lock."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)


class Queue(Attempts):
    """Cells that wait to be run, first in, first out: the first of them in Optuna's own queue, the rest in memory.

    Args:
        window: how many cells Optuna's queue holds at most, so that a large study begins at once. What is in memory
            when a scheduler dies is found missing by the next one.
    """

    def __init__(self, journal: Path | str, name: str, window: int) -> None:
        super().__init__(journal, name)
        self._window = window
        self._enqueued: dict[str, Cell] = {}
        self._behind: collections.OrderedDict[str, Cell] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._enqueued) + len(self._behind)

    def reconcile(self, *, waiting: Iterable[Cell], done: Mapping[str, float]) -> None:
        """Make the queue hold just the cells that wait, and the record of attempts all that are done.

        Args:
            done: error in percent by cell.
        """
        self._close_orphans()
        queued, told = set(), set()
        for trial in self._study.get_trials(deepcopy=False):
            cell_id = trial.user_attrs.get(CELL)
            if trial.state == TrialState.WAITING:
                queued.add(cell_id)
            elif trial.state == TrialState.COMPLETE:
                told.add(cell_id)
        for cell_id, error in done.items():
            if cell_id not in told:
                self._study.add_trial(create_trial(value=error, user_attrs={CELL: cell_id}))
        # Trials that wait for cells that are no longer wanted are passed over when they are asked for.
        for cell in waiting:
            if cell.cell_id in queued:
                self._enqueued[cell.cell_id] = cell
            else:
                self.put(cell)

    def put(self, cell: Cell) -> None:
        """Queue a cell, behind all others."""
        self._behind[cell.cell_id] = cell

    def _fill_window(self) -> None:
        while self._behind and len(self._enqueued) < self._window:
            cell_id, cell = self._behind.popitem(last=False)
            self._study.enqueue_trial({}, user_attrs={CELL: cell_id, **cell.variant.factors})
            self._enqueued[cell_id] = cell

    def ask(self) -> tuple[Cell, optuna.Trial]:
        """See `Attempts.ask`."""
        assert len(self) > 0, "the queue is empty"
        self._fill_window()
        while True:
            trial = self._study.ask()
            cell = self._enqueued.pop(str(trial.user_attrs.get(CELL)), None)
            if cell is not None:
                return cell, trial
            self.tell_failed(trial, "the cell is no longer part of the plan, or queued twice")

    def resume(self, cell_id: str) -> tuple[Cell, optuna.Trial]:
        """See `Attempts.resume`."""
        cell = self._enqueued.pop(cell_id, None) or self._behind.pop(cell_id)
        return cell, self._begun(cell)


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


def _open(journal: Path | str, name: str, pruner: BasePruner | None) -> optuna.Study:
    if isinstance(journal, str):
        return _study(database(journal), name, pruner)
    if repair_journal(journal):
        logger.warning("%s ended in the middle of a line; that line was cut off", journal)
    try:
        return _study(journal_storage(journal), name, pruner)
    except (json.JSONDecodeError, KeyError, ValueError) as error:
        aside = journal.with_name(f"{journal.name}.damaged-{int(time.time())}")
        with contextlib.suppress(FileNotFoundError):
            journal.replace(aside)
        logger.warning("%s cannot be read (%s); set aside as %s and rebuilt", journal, error, aside.name)
        return _study(journal_storage(journal), name, pruner)


def journal_storage(journal: Path) -> JournalStorage:
    """Optuna's studies in a file."""
    lock: Any = _JournalLock(journal)
    return JournalStorage(JournalFileBackend(str(journal), lock))


def database(url: str) -> RDBStorage:
    """Optuna's studies in a database.

    Raises:
        ValueError: it cannot be opened.
    """
    try:
        # A connection that was cut while nobody used it is made anew.
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except (SQLAlchemyError, ImportError) as error:
        first = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise ValueError(
            f"queue={url} cannot be opened ({first}): see that it runs, and that you may use it"
        ) from error


def _study(storage: BaseStorage, name: str, pruner: BasePruner | None) -> optuna.Study:
    return optuna.create_study(
        study_name=name, storage=storage, direction="minimize", pruner=pruner, load_if_exists=True
    )
