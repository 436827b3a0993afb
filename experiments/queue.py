"""The queue of a study, and its attempts: Optuna trials on a journal, with the factors as their attributes."""

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from experiments.stores import repair_journal

CELL = "cell_id"
WHY = "why"

optuna.logging.set_verbosity(optuna.logging.WARNING)
logger = logging.getLogger(__name__)


class Queue:
    """Cells that wait to be run, first in, first out.

    Args:
        journal: file of Optuna's journal. One that cannot be read is set aside; what it held is rebuilt from the
            tracking store by `reconcile`.
        name: of the study.
    """

    def __init__(self, journal: Path, name: str) -> None:
        self._study = _open(journal, name)
        self._wanted: set[str] = set()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def reconcile(self, *, waiting: Mapping[str, Mapping[str, Any]], done: Mapping[str, float]) -> None:
        """Make the queue hold just the cells that wait, and the record of attempts all that are done.

        Args:
            waiting: factors by cell.
            done: error in percent by cell.
        """
        self._wanted = set(waiting)
        queued, told = set(), set()
        for trial in self._study.get_trials(deepcopy=False):
            cell_id = trial.user_attrs.get(CELL)
            if trial.state == TrialState.RUNNING:
                # Its scheduler is dead: this one holds the lock.
                self._study.tell(trial.number, state=TrialState.FAIL)
            elif trial.state == TrialState.WAITING:
                queued.add(cell_id)
            elif trial.state == TrialState.COMPLETE:
                told.add(cell_id)
        for cell_id, error in done.items():
            if cell_id not in told:
                self._study.add_trial(create_trial(value=error, user_attrs={CELL: cell_id}))
        # Trials that wait for cells that are no longer wanted are passed over when they are asked for.
        self._waiting = len(queued & self._wanted)
        for cell_id, factors in waiting.items():
            if cell_id not in queued:
                self.put(cell_id, factors)

    def put(self, cell_id: str, factors: Mapping[str, Any]) -> None:
        """Queue a cell."""
        self._wanted.add(cell_id)
        self._study.enqueue_trial({}, user_attrs={CELL: cell_id, **factors})
        self._waiting += 1

    def ask(self) -> tuple[str, optuna.Trial]:
        """The next cell, and the trial that its attempt is."""
        assert self._waiting > 0, "the queue is empty"
        while True:
            trial = self._study.ask()
            cell_id = trial.user_attrs.get(CELL)
            if cell_id in self._wanted:
                self._wanted.discard(cell_id)
                self._waiting -= 1
                return cell_id, trial
            self.tell_failed(trial, "the cell is no longer part of the plan, or queued twice")

    def tell_done(self, trial: optuna.Trial, error: float) -> None:
        """The attempt ended with a result, in percent."""
        self._study.tell(trial, error)

    def tell_failed(self, trial: optuna.Trial, why: str) -> None:
        """The attempt ended without one."""
        trial.set_user_attr(WHY, why)
        self._study.tell(trial, state=TrialState.FAIL)


def _open(journal: Path, name: str) -> optuna.Study:
    if repair_journal(journal):
        logger.warning("%s ended in the middle of a line; that line was cut off", journal)
    try:
        return _study(journal, name)
    except (json.JSONDecodeError, KeyError, ValueError) as error:
        aside = journal.with_name(f"{journal.name}.damaged-{int(time.time())}")
        with contextlib.suppress(FileNotFoundError):
            journal.replace(aside)
        logger.warning("%s cannot be read (%s); set aside as %s and rebuilt", journal, error, aside.name)
        return _study(journal, name)


def _study(journal: Path, name: str) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(study_name=name, storage=storage, direction="minimize", load_if_exists=True)
