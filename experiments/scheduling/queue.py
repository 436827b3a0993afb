"""The queue of a study, and its attempts: Optuna trials on a journal, with the factors as their attributes."""

import abc
import collections
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import TrialState, create_trial

from experiments.grid import Cell
from experiments.stores.journal import open_study
from experiments.trial import Progress

CELL = "cell_id"
WHY = "why"


class Attempts(abc.ABC):
    """Where a runner gets its cells, and whom it tells what became of them. An attempt on a cell is an Optuna trial.

    Args:
        journal: file of Optuna's journal, or URL of a database in its place. A file that cannot be read is set aside;
            what it held is rebuilt from the tracking store.
        name: of the study.
    """

    def __init__(self, journal: Path | str, name: str, pruner: BasePruner | None = None) -> None:
        self._storage, self._study = open_study(journal, name, pruner)
        self._study_id = self._storage.get_study_id_from_name(name)

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

    def _made(self, state: TrialState, cell: Cell, **known: Any) -> int:
        """The id of a new trial for a cell."""
        attributes = {CELL: cell.cell_id, **cell.variant.factors}
        made = create_trial(state=state, user_attrs=attributes, **known)
        return self._storage.create_new_trial(self._study_id, made)

    def _begun(self, cell: Cell, **known: Any) -> optuna.Trial:
        return optuna.Trial(self._study, self._made(TrialState.RUNNING, cell, **known))

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
        self._enqueued: collections.OrderedDict[str, tuple[Cell, int]] = collections.OrderedDict()
        self._behind: collections.OrderedDict[str, Cell] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._enqueued) + len(self._behind)

    def reconcile(self, *, waiting: Iterable[Cell], done: Mapping[str, float]) -> None:
        """Make the queue hold just the cells that wait, and the record of attempts all that are done.

        Args:
            done: error in percent by cell.
        """
        self._close_orphans()
        queued: dict[str, int] = {}
        told = set()
        wanted = {cell.cell_id: cell for cell in waiting}
        for trial in self._study.get_trials(deepcopy=False):
            cell_id = trial.user_attrs.get(CELL)
            if trial.state == TrialState.COMPLETE:
                told.add(cell_id)
            elif trial.state == TrialState.WAITING and cell_id in wanted and cell_id not in queued:
                queued[cell_id] = trial._trial_id
            elif trial.state == TrialState.WAITING:
                self.tell_failed(self._claimed(trial._trial_id), "the cell is no longer part of the plan")
        for cell_id, error in done.items():
            if cell_id not in told:
                self._study.add_trial(create_trial(value=error, user_attrs={CELL: cell_id}))
        for cell_id, cell in wanted.items():
            if cell_id in queued:
                self._enqueued[cell_id] = cell, queued[cell_id]
            else:
                self.put(cell)

    def put(self, cell: Cell) -> None:
        """Queue a cell, behind all others."""
        self._behind[cell.cell_id] = cell

    def _fill_window(self) -> None:
        while self._behind and len(self._enqueued) < self._window:
            cell_id, cell = self._behind.popitem(last=False)
            self._enqueued[cell_id] = cell, self._made(TrialState.WAITING, cell, system_attrs={"fixed_params": {}})

    def _claimed(self, trial_id: int) -> optuna.Trial:
        """A trial that waits, begun. By its id: `Study.ask` looks through all trials for the first that waits."""
        claimed = self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        assert claimed, "one scheduler owns a study"
        return optuna.Trial(self._study, trial_id)

    def ask(self) -> tuple[Cell, optuna.Trial]:
        """See `Attempts.ask`."""
        self._fill_window()
        _, (cell, trial_id) = self._enqueued.popitem(last=False)
        return cell, self._claimed(trial_id)

    def resume(self, cell_id: str) -> tuple[Cell, optuna.Trial]:
        """See `Attempts.resume`."""
        if cell_id in self._enqueued:
            cell, trial_id = self._enqueued.pop(cell_id)
            return cell, self._claimed(trial_id)
        cell = self._behind.pop(cell_id)
        return cell, self._begun(cell)
