"""What the scheduler writes to MLflow: experiments with their plans, copies, and how a cell ended that did not end
well. The rest of a record is its run's, see `experiments.recording.recorder`."""

import dataclasses
import json
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence

from alembic.util import CommandError
from filelock import FileLock
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from analysis import schema
from analysis.plan import Plan as RecordedPlan
from analysis.plan_record import encode_plan, plan_ids
from experiments.grid import Cell, Plan
from experiments.recording.describe import plan_note, plan_record, plan_view, run_params, run_tags
from experiments.recording.opening import Opening, create, own, records
from experiments.recording.patience import Patience, Patient
from experiments.recording.provenance import Provenance
from experiments.stores import Stores

BATCH = 1000  # metrics in one log_batch, at most


class Tracker:
    """Writes what the scheduler alone knows: plans, and what became of runs that cannot say it themselves.

    Args:
        stores: where; the database is made if it is not there, which takes some seconds.
        patience: with a store that does not answer.

    Raises:
        ValueError: the store cannot be opened.
    """

    def __init__(self, stores: Stores, patience: Patience | None = None) -> None:
        self._stores, self.uri, self.patience = stores, stores.tracking_uri, patience or Patience()
        quieten()
        try:
            if stores.tracking is None:
                _make_database(stores)
            client = MlflowClient(tracking_uri=self.uri)
            if stores.served:
                client.search_experiments(max_results=1)
            else:
                self.patience(lambda: client.search_experiments(max_results=1))
        except (MlflowException, SQLAlchemyError, CommandError) as error:
            remedy = (
                "see that it runs, or name another with tracking=URI"
                if stores.served
                else "choose another folder with store=DIR, or move the damaged file away"
            )
            what = f"the tracking store {self.uri} cannot be opened ({str(error).splitlines()[0]})"
            raise ValueError(f"{what}: {remedy}") from error
        self._client = Patient(client, self.patience)

    def record_plan(self, plan: Plan, provenance: Provenance, updated: float) -> str:
        """Store a plan with its experiment, so that nobody needs the grid's code to know what belongs to it.

        Returns:
            the experiment's id.
        """
        found = self._client.get_experiment_by_name(plan.experiment)
        if found is None:
            location = None if self._stores.served else (self._stores.artifacts / plan.experiment).resolve().as_uri()
            experiment_id = self._client.create_experiment(plan.experiment, artifact_location=location)
        else:
            experiment_id = found.experiment_id
            if found.lifecycle_stage != "active":
                self._client.restore_experiment(experiment_id)
        tags = {
            schema.NOTE_TAG: plan_note(plan),
            schema.VIEW_TAG + plan.plan_id: json.dumps(plan_view(plan)),
            **encode_plan(plan_record(plan, provenance, updated)),
        }
        for key, value in tags.items():
            self._client.set_experiment_tag(experiment_id, key, value)
        return str(experiment_id)

    def opening(self, experiment_id: str, plan: Plan, cell: Cell, provenance: Provenance) -> Opening:
        """What the record of a cell's first attempt begins with."""
        return Opening(
            experiment_id=experiment_id,
            name=cell.name,
            tags={**run_tags(plan, cell, provenance), schema.OWNER: self._owner(plan)},
            params={name: str(value) for name, value in run_params(cell).items()},
        )

    def open_run(self, opening: Opening) -> str:
        """Begin the record of a cell that no run begins: a copy, or the failure of one that never got so far.

        Returns:
            the run's id.
        """
        return create(self._client, opening)

    def find(self, opening: Opening) -> str | None:
        """The run id of a cell's record, if there is one by now."""
        run = own(records(self._client, opening, everywhere=False), opening)
        return None if run is None else str(run.info.run_id)

    def owners_elsewhere(self, plan: Plan, run_ids: Iterable[str]) -> set[str]:
        """Schedulers that the records of some runs name as theirs, HOST:LOCK, and whose lock is not this store's."""
        owners = {self._client.get_run(run_id).data.tags.get(schema.OWNER, "") for run_id in run_ids}
        lock = self._owner(plan).partition(":")[2]
        return {owner for owner in owners if owner and owner.partition(":")[2] != lock}

    def _owner(self, plan: Plan) -> str:
        return f"{platform.node()}:{self._stores.lock(plan.plan_id).resolve()}"

    def close_interrupted(self, run_id: str, why: str) -> None:
        """Close the record of a cell that was interrupted and is to be resumed."""
        before = self._client.get_run(run_id).data.tags.get(schema.INTERRUPTIONS, "")
        self._client.log_batch(run_id, tags=[RunTag(schema.INTERRUPTIONS, counted(before, why))])
        self._client.set_terminated(run_id, status="KILLED")

    def close_pruned(self, run_id: str, epochs: int) -> None:
        """Close the record of a trial that was given up after some epochs."""
        self._client.log_batch(run_id, tags=[RunTag(schema.PRUNED, str(epochs))])
        self._client.set_terminated(run_id, status="KILLED")

    def close_failed(self, run_id: str, failure: str, message: str, trace: str) -> None:
        """Close the record of a cell that failed: the class, the last line, the whole trace."""
        tags = {schema.FAILURE: failure, schema.FAILURE_MESSAGE: message[:5000]}
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self._client.log_text(run_id, trace, schema.ERROR_FILE)
        self._client.set_terminated(run_id, status="FAILED")

    def discard(self, run_id: str) -> None:
        """Put a record that is to be made anew into MLflow's bin, from where it can be restored."""
        self._client.delete_run(run_id)

    def copy_record(self, source: str, experiment_id: str, plan: Plan, cell: Cell, provenance: Provenance) -> str:
        """Record a cell that was trained for another plan: every metric and artifact, and where they are from."""
        opening = self.opening(experiment_id, plan, cell, provenance)
        opening = dataclasses.replace(opening, tags={**opening.tags, schema.SOURCE_RUN: source})
        run_id = self.open_run(opening)
        original = self._client.get_run(source)
        history = [metric for name in original.data.metrics for metric in self._client.get_metric_history(source, name)]
        for start in range(0, len(history), BATCH):
            self._client.log_batch(run_id, metrics=history[start : start + BATCH])
        made_by = [RunTag(key, original.data.tags[key]) for key in (schema.CODE, schema.COMMIT, schema.ATTEMPTS)]
        self._client.log_batch(run_id, tags=made_by)
        self._client.log_inputs(run_id, original.inputs.dataset_inputs)
        with tempfile.TemporaryDirectory() as folder:
            self._client.download_artifacts(source, "", folder)
            self._client.log_artifacts(run_id, folder)
        self._client.set_terminated(run_id, end_time=original.info.end_time)
        return run_id


def _make_database(stores: Stores) -> None:
    """Make the embedded database where there is none: beside its place, and then put there whole. Two commands that
    start together would both have MLflow make the tables of one, and leave half of them."""
    database = stores.database
    if database.exists():
        return
    with FileLock(database.with_suffix(".lock")):
        if not database.exists():
            part = database.with_suffix(".part")
            part.unlink(missing_ok=True)
            made = SqlAlchemyStore(f"sqlite:///{part.absolute()}", stores.artifacts.absolute().as_uri())
            made.engine.dispose()
            part.replace(database)


def forget(stores: Stores, plan: RecordedPlan) -> int:
    """Put all that is recorded of a plan into MLflow's bin, and the plan off its experiment's tags.

    Returns:
        how many runs went; what they hold stays until they are purged.
    """
    client = MlflowClient(tracking_uri=stores.tracking_uri)
    conditions = [f"tags.{schema.PLAN} = '{plan.plan_id}'"]
    conditions += [] if plan.search is None else [f"tags.{schema.SEARCH} = '{plan.search['search_id']}'"]
    count = 0
    for condition in conditions:
        while found := client.search_runs([plan.experiment_id], condition, max_results=BATCH):
            for run in found:
                client.delete_run(run.info.run_id)
            count += len(found)
    for key in client.get_experiment(plan.experiment_id).tags:
        if key == schema.VIEW_TAG + plan.plan_id or plan_ids([key]) == [plan.plan_id]:
            client.delete_experiment_tag(plan.experiment_id, key)
    return count


def purge(stores: Stores, run_ids: Sequence[str]) -> None:
    """Delete discarded runs for good, with their artifacts.

    Raises:
        ValueError: MLflow refuses.
    """
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", stores.tracking_uri]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": stores.tracking_uri}
    done = subprocess.run(
        [*command, "--run-ids", ",".join(run_ids)], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it does not say why"]
        raise ValueError(f"MLflow did not delete {', '.join(run_ids)}: {said[-1]}")


def counted(listed: str, why: str) -> str:
    """A list such as "stopped, killed by SIGKILL (2)" with one more of them."""
    counts = {found[1]: int(found[2] or 1) for found in re.finditer(r"([^,(]+?)(?: \((\d+)\))?(?:, |$)", listed)}
    why = re.sub(r"[,()]", ";", why)[:200]
    counts[why] = counts.get(why, 0) + 1
    return ", ".join(f"{word} ({count})" if count > 1 else word for word, count in counts.items())


def quieten() -> None:
    """MLflow tells about every table that it makes, and about every error twice."""
    for name, level in (("mlflow", logging.WARNING), ("alembic", logging.WARNING), (_DATABASE, logging.CRITICAL)):
        logging.getLogger(name).setLevel(level)


_DATABASE = "mlflow.store.db.utils"
