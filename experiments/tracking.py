"""The only writer to MLflow: experiments with their plans, one run a cell, one batch of metrics an epoch."""

import contextlib
import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import torch
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from analysis import schema
from analysis.plan_record import encode_plan
from dhm.cost import Cost
from dhm.training import Callback, EpochRecord, Result, Training
from experiments.describe import plan_note, plan_record, plan_view, run_params, run_tags
from experiments.energy import total
from experiments.grid import Cell, Plan
from experiments.provenance import Provenance, numerics
from experiments.stores import Stores

BATCH = 1000  # metrics in one log_batch, at most


class Tracker:
    """Writes what the scheduler knows: plans, and the beginning and the end of a cell's record.

    Args:
        stores: where; the database is made if it is not there, which takes some seconds.

    Raises:
        ValueError: the store cannot be opened.
    """

    def __init__(self, stores: Stores) -> None:
        self._artifacts = stores.artifacts
        for name in ("mlflow", "alembic"):  # they tell about every table that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            self._client = MlflowClient(tracking_uri=stores.tracking_uri)
            self._client.search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError) as error:
            raise ValueError(
                f"the tracking store {stores.tracking_uri} cannot be opened ({str(error).splitlines()[0]}): "
                "choose another folder with store=DIR, or move the damaged file away"
            ) from error
        self.uri = stores.tracking_uri

    def record_plan(self, plan: Plan, provenance: Provenance, updated: float) -> str:
        """Store a plan with its experiment, so that nobody needs the grid's code to know what belongs to it.

        Returns:
            the experiment's id.
        """
        found = self._client.get_experiment_by_name(plan.experiment)
        if found is None:
            location = (self._artifacts / plan.experiment).resolve().as_uri()
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

    def open_run(self, experiment_id: str, plan: Plan, cell: Cell, provenance: Provenance, source: str | None) -> str:
        """Begin the record of a cell.

        Args:
            source: run id of the original, for a copy.

        Returns:
            the run's id.
        """
        tags = {**run_tags(plan, cell, provenance), **({schema.SOURCE_RUN: source} if source else {})}
        run = self._client.create_run(experiment_id, run_name=cell.name, tags=tags)
        run_id = str(run.info.run_id)
        params = [Param(name, str(value)) for name, value in run_params(cell).items()]
        self._client.log_batch(run_id, params=params)
        recipe = cell.variant.recipe
        dataset = Dataset(
            name=recipe.data.name,
            digest=cell.fingerprint,
            source_type="local",
            source=json.dumps({"name": recipe.data.name}),
            profile=json.dumps({"train_size": recipe.data.train_size or "all"}),
        )
        tag = InputTag(key="mlflow.data.context", value="training")
        self._client.log_inputs(run_id, [DatasetInput(dataset, [tag])])
        return run_id

    def reopen_run(self, run_id: str, provenance: Provenance, attempts: int) -> None:
        """Go on with the record of a cell whose earlier attempt did not end well."""
        for key in (schema.FAILURE, schema.FAILURE_MESSAGE):
            if key in self._client.get_run(run_id).data.tags:
                self._client.delete_tag(run_id, key)
        tags = {schema.ATTEMPTS: str(attempts), schema.CODE: provenance.code, schema.COMMIT: provenance.commit}
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self._client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))

    def close_interrupted(self, run_id: str) -> None:
        """Close the record of a cell that was interrupted and is to be resumed."""
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
        run_id = self.open_run(experiment_id, plan, cell, provenance, source)
        original = self._client.get_run(source)
        history = [metric for name in original.data.metrics for metric in self._client.get_metric_history(source, name)]
        for start in range(0, len(history), BATCH):
            self._client.log_batch(run_id, metrics=history[start : start + BATCH])
        made_by = [RunTag(key, original.data.tags[key]) for key in (schema.CODE, schema.COMMIT, schema.ATTEMPTS)]
        self._client.log_batch(run_id, tags=made_by)
        with tempfile.TemporaryDirectory() as folder:
            self._client.download_artifacts(source, "", folder)
            self._client.log_artifacts(run_id, folder)
        self._client.set_terminated(run_id, end_time=original.info.end_time)
        return run_id


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordInfo:
    """What a run's process needs to write its record."""

    tracking_uri: str
    run_id: str
    cost: Cost
    files: Mapping[str, Any]  # JSON artifacts by name
    patch: str


class Recorder(Callback):
    """Writes a run while it trains. The checkpoint comes first, then the store: what the store lacks after a crash is
    filled in from the checkpoint, at the same timestamps, so that no point of a curve stands twice."""

    def __init__(self, info: RecordInfo) -> None:
        self._info = info
        self._client = MlflowClient(tracking_uri=info.tracking_uri)
        self._on_gpu = False

    def on_start(self, training: Training) -> None:
        """Write what it is that begins, and fill in the epochs that the checkpoint has and the store lacks."""
        self._on_gpu = training.device.type == "cuda"
        self._describe(training)
        if not training.history:
            return
        there = {point.step for point in self._client.get_metric_history(self._info.run_id, schema.TRAIN_LOSS)}
        for record in training.history:
            if record.epoch not in there:
                self._log(record)

    def on_epoch_end(self, training: Training) -> None:
        """One batch an epoch."""
        self._log(training.history[-1])

    def _log(self, record: EpochRecord) -> None:
        stamp = int(record.time * 1000)
        metrics = [Metric(name, value, stamp, record.epoch) for name, value in record.metrics.items()]
        self._client.log_batch(self._info.run_id, metrics=metrics)

    def finish(self, result: Result, notes: list[str]) -> None:
        """Write the readings and the artifacts, and close the record."""
        last = result.history[-1]
        cost = self._info.cost
        values = {
            **{f"final/{name}": value for name, value in result.final.items()},
            **{f"best/{name}": value for name, value in result.best.items()},
            schema.PARAMETERS: cost.parameters,
            schema.PARAMETERS_MAIN: cost.parameters_main,
            schema.FLOPS: cost.flops / 1e6,
            schema.FLOPS_MAIN: cost.flops_main / 1e6,
            schema.STEP_MS: result.step_ms,
            schema.SECONDS: result.seconds,
        }
        if self._on_gpu:
            values[schema.GPU_HOURS] = result.seconds / 3600
        energy = total(result.history)
        if energy is not None:
            values[schema.ENERGY] = energy
        stamp = int(last.time * 1000)
        # At step 0: a metric with one value is then drawn as a bar.
        metrics = [Metric(name, float(value), stamp, 0) for name, value in values.items()]
        self._client.log_batch(self._info.run_id, metrics=metrics)
        files = {schema.CLASS_ERRORS_FILE: result.class_errors, **({"notes.json": notes} if notes else {})}
        with _folder_of(files) as folder:
            torch.save(result.network.main_only().state_dict(), folder / schema.WEIGHTS_FILE)
            self._client.log_artifacts(self._info.run_id, str(folder))
        self._client.set_terminated(self._info.run_id)

    def _describe(self, training: Training) -> None:
        """What is trained, and what trains it: at the start, so that a run which fails has it too."""
        environment = {
            **self._info.files[schema.ENVIRONMENT_FILE],
            "runtime": {
                name: value
                for name, value in dataclasses.asdict(training.runtime).items()
                if not isinstance(value, Path)
            },
            "numerics": numerics(),
        }
        if training.history:
            environment |= {"resumed_at_epoch": training.epoch, "earlier_attempts": self._earlier()}
        with _folder_of({**self._info.files, schema.ENVIRONMENT_FILE: environment}) as folder:
            if self._info.patch:
                (folder / schema.PATCH_FILE).write_bytes(self._info.patch.encode("utf-8", "surrogateescape"))
            self._client.log_artifacts(self._info.run_id, str(folder))

    def _earlier(self) -> list[Any]:
        """The environments of the attempts before this one, the latest first."""
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(MlflowException, OSError, ValueError):
            path = self._client.download_artifacts(self._info.run_id, schema.ENVIRONMENT_FILE, folder)
            last = json.loads(Path(path).read_text())
            return [last, *last.pop("earlier_attempts", [])]
        return []


@contextlib.contextmanager
def _folder_of(files: Mapping[str, Any]) -> Iterator[Path]:
    """A folder for a while, with JSON files by name."""
    with tempfile.TemporaryDirectory() as name:
        for file, content in files.items():
            (Path(name) / file).write_text(json.dumps(content, indent=1) + "\n")
        yield Path(name)
