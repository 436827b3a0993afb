"""The searcher: runs the trials of a search that are missing, and selects the setting that becomes an arm."""

import dataclasses
import time

from analysis import coverage, schema, store
from dhm import checkpoint
from experiments.recording.records import DONE, FAILED, of_trial, surplus_of
from experiments.scheduling.proposals import Found, Proposals
from experiments.scheduling.runner import Runner
from experiments.scheduling.selection import Selection, recorded, saved, select
from experiments.search import Search, Trial

STATES = {coverage.DONE: DONE, coverage.PRUNED: DONE, coverage.FAILED: FAILED}  # a trial that was given up is over


class Searcher(Runner):
    """Runs the trials of a plan whose grid is a `Search`."""

    _shares = False

    def run(self) -> Selection | None:
        """Try settings until as many as asked for were tried, or until it is told to stop.

        Returns:
            what was selected; nothing, if it was stopped or no trial ended.
        """
        plan, search = self._plan, self._plan.grid
        assert isinstance(search, Search)
        proposals = self._reconcile(search)
        if len(proposals):
            self._prove(plan.cells_of_seed(plan.seeds[0]))
            announced = dataclasses.replace(plan, search=search.document(plan, None, {}))
            self._experiment_id = self._tracker.record_plan(announced, self._provenance, time.time())
        total = self.outcome.done + self.outcome.pruned + len(self.outcome.failed) + len(proposals)
        self._display.begin(
            f"{plan.experiment}[/]: search with {total} trials",
            total=total,
            done=self.outcome.done + self.outcome.pruned,
            waiting=[plan.base] * len(proposals),  # their networks are alike
            slots=self._pool.slots,
            noun="trials",
        )
        self._work(proposals)
        self.outcome.missing = total - self.outcome.done - self.outcome.pruned - len(self.outcome.failed)
        if self.outcome.stopped is not None:
            return None
        frame = self._tracker.patience(lambda: recorded(self._tracker.uri, plan, search))
        self.outcome.saved = saved(plan, frame)
        return select(plan, search, frame, proposals.importance())

    def _reconcile(self, search: Search) -> Proposals:
        """Hold the journal against the records, and close what a dead scheduler left open."""
        frame = self._tracker.patience(lambda: recorded(self._tracker.uri, self._plan, search))
        self._refuse_elsewhere(of_trial(row) for row in frame.to_dict("records"))
        for run_id in surplus_of(frame, schema.TRIAL_ID):
            self._tracker.discard(run_id)
            frame = frame[frame["run_id"] != run_id]
        curves = self._tracker.patience(lambda: store.curves(self._tracker.uri, frame, [schema.VAL_TOP1]))
        found = []
        for row in frame.to_dict("records"):
            setting = {path: float(row[path]) for path in search.space}
            trial = search.trial(self._plan, int(row[schema.TRIAL_NUMBER]), setting)
            own = curves[curves["run_id"] == row["run_id"]]
            curve = {int(epoch) + 1: float(value) for epoch, value in zip(own["epoch"], own["value"], strict=True)}
            self._records[trial.cell_id] = of_trial(row)
            state = str(row["state"])
            if self._outdated(self._records[trial.cell_id], STATES.get(state, state)):
                self._discard(trial.cell_id)
                state, curve = coverage.MISSING, {}
            found.append(Found(trial=trial, state=state, curve=curve))
        over = (coverage.DONE, coverage.PRUNED, coverage.FAILED)
        unsettled = {item.trial.cell_id for item in found if item.state not in over}
        self._find_living(f"{self._plan.plan_id}-search", unsettled)
        for item in found:
            if item.trial.cell_id in self._records:
                self._settle(item.trial, item.state)
        proposals = Proposals(self._stores.journal, self._plan, search, self._provenance.code)
        proposals.reconcile(found, self._options.retry == "failed")
        return proposals

    def _settle(self, trial: Trial, state: str) -> None:
        record = self._records[trial.cell_id]
        if state == coverage.DONE:
            self.outcome.done += 1
        elif state == coverage.PRUNED:
            self.outcome.pruned += 1
        elif state == coverage.RUNNING and trial.cell_id not in self._living:
            self._tracker.close_interrupted(record.run_id, "its scheduler died")
        elif state == coverage.FAILED and self._options.retry != "failed":
            self._note_failure(trial, record.message)
        if state in (coverage.DONE, coverage.PRUNED):
            checkpoint.remove(self._stores.checkpoint(trial.cell_id, record.code))
