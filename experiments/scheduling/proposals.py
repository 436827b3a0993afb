"""The trials of a search: Optuna proposes settings, and is told how they did."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from analysis import coverage
from experiments.grid import Cell, Plan
from experiments.scheduling.queue import CELL, Attempts
from experiments.search import PRUNERS, Search, Trial, distribution
from experiments.trial import Progress

ENOUGH = 10  # finished trials, below which importance would say nothing


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A trial that has a record.

    Args:
        state: as `analysis.store.trials` has it.
        curve: error by epochs done.
    """

    trial: Trial
    state: str
    curve: Mapping[int, float]


class Proposals(Attempts):
    """Settings to try: first those that were interrupted, then new ones, up to the number that the search asks for.

    Args:
        code: that trials are made by. Each has a study of its own in the journal, rebuilt from the records, so that a
            trial that is made anew is not held against what it was.
    """

    def __init__(self, journal: Path | str, plan: Plan, search: Search, code: str) -> None:
        name = f"{plan.experiment} search {search.search_id(plan)} {code}"
        super().__init__(journal, name, PRUNERS[search.pruner](plan.base.epochs))
        self._plan, self._search = plan, search
        self._space: dict[str, BaseDistribution] = {path: distribution(found) for path, found in search.space.items()}
        self._known: dict[str, Trial] = {}
        self._again: list[Trial] = []
        self._curves: dict[str, dict[int, float]] = {}

    def __len__(self) -> int:
        return len(self._again) + max(0, self._search.trials - len(self._known))

    def reconcile(self, found: Sequence[Found], retry_failed: bool) -> None:
        """Learn of the trials that have a record; those whose attempt in the journal was lost are told to Optuna."""
        self._close_orphans()
        while self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.tell_failed(self._study.ask(), "its scheduler died before it began")
        ended = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        told = {trial.user_attrs.get(CELL) for trial in ended}
        for item in sorted(found, key=lambda item: item.trial.number):
            trial = item.trial
            self._known[trial.cell_id] = trial
            self._curves[trial.cell_id] = dict(item.curve)
            if item.state in (coverage.DONE, coverage.PRUNED):
                if trial.cell_id not in told:
                    self._study.add_trial(self._rebuilt(item))
            elif item.state != coverage.FAILED or retry_failed:
                self._again.append(trial)

    def _rebuilt(self, item: Found) -> optuna.trial.FrozenTrial:
        last = item.curve[max(item.curve)]
        return create_trial(
            state=TrialState.COMPLETE if item.state == coverage.DONE else TrialState.PRUNED,
            value=last,
            params=dict(item.trial.variant.factors),
            distributions=self._space,
            intermediate_values=dict(item.curve),
            user_attrs={CELL: item.trial.cell_id},
        )

    def put(self, cell: Cell) -> None:
        """See `Attempts.put`."""
        assert isinstance(cell, Trial)
        self._again.append(cell)

    def ask(self) -> tuple[Cell, optuna.Trial]:
        """See `Attempts.ask`."""
        again = self._again.pop(0) if self._again else None
        # Anew for every trial: a study that goes on must not draw again what it drew before, and proposes what it
        # would have proposed without the interruption.
        number = max((trial.number for trial in self._known.values()), default=-1) + 1
        self._study.sampler = TPESampler(seed=self._search.seed + number)
        if again is not None:
            self._study.enqueue_trial(dict(again.variant.factors))
        attempt = self._study.ask()
        exact = {path: self._suggest(attempt, path) for path in self._space}
        trial = again or self._new(number, exact)
        attempt.set_user_attr(CELL, trial.cell_id)
        self._known[trial.cell_id] = trial
        for epoch, error in self._curves.setdefault(trial.cell_id, {}).items():
            attempt.report(error, epoch)
        return trial, attempt

    def resume(self, cell_id: str) -> tuple[Cell, optuna.Trial]:
        """See `Attempts.resume`."""
        (trial,) = [trial for trial in self._again if trial.cell_id == cell_id]
        self._again.remove(trial)
        setting = dict(trial.variant.factors)
        curve = dict(self._curves.setdefault(cell_id, {}))
        return trial, self._begun(trial, params=setting, distributions=self._space, intermediate_values=curve)

    def _suggest(self, attempt: optuna.Trial, path: str) -> float:
        found = self._search.space[path]
        return attempt.suggest_float(path, found.low, found.high, log=found.log)

    def _new(self, number: int, exact: Mapping[str, float]) -> Trial:
        """A setting that a person can type: three digits, unless that was tried before."""
        space = self._search.space
        short = {path: float(f"{value:.3g}") for path, value in exact.items()}
        short = {path: min(max(value, space[path].low), space[path].high) for path, value in short.items()}
        trial = self._search.trial(self._plan, number, short)
        return self._search.trial(self._plan, number, exact) if trial.cell_id in self._known else trial

    def report(self, cell: Cell, trial: optuna.Trial, progress: Progress) -> bool:
        """See `Attempts.report`: whether others did better at this epoch."""
        if progress.top1_error is None:
            return False
        curve = self._curves[cell.cell_id]
        if progress.epoch not in curve:
            curve[progress.epoch] = progress.top1_error
            trial.report(progress.top1_error, progress.epoch)
        return progress.epoch < progress.epochs and trial.should_prune()

    def importance(self) -> dict[str, float]:
        """How much of the variation of the error each field explains by itself (fANOVA; Hutter et al., ICML 2014), in a
        forest that is fitted to the finished trials: shares of 1, which add up to less where fields act together.
        Empty where too few trials ended, or all alike."""
        ended = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(ended) < ENOUGH or len({trial.value for trial in ended}) < 2:
            return {}
        # scikit-learn, a second to import, is wanted at the end of a search alone.
        from optuna.importance import FanovaImportanceEvaluator  # noqa: PLC0415

        shares = FanovaImportanceEvaluator(seed=self._search.seed).evaluate(self._study)
        return {path: float(shares.get(path, 0.0)) for path in self._space}
