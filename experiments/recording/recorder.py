"""What a run writes to MLflow: the beginning of its record, one batch of metrics an epoch or, of short ones, for
several; its artifacts and readings at the end."""

import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from analysis import schema
from dhm.cost import Cost
from dhm.export import main_state
from dhm.recipe import DataSpec
from dhm.training import Callback, EpochRecord, Result, Training
from experiments.recording.energy import total
from experiments.recording.opening import Opening, create, own, records, reopen
from experiments.recording.patience import FIRST_PAUSE, LONGEST_PAUSE, Patience, Patient, trouble_of
from experiments.recording.provenance import numerics
from experiments.recording.tracking import BATCH, quieten

EVERY = 10.0  # seconds after which epochs are written, so that many short ones share a transaction


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordInfo:
    """What a run's process needs to write its record."""

    tracking_uri: str
    opening: Opening
    cost: Cost
    files: Mapping[str, Any]  # JSON artifacts by name
    patch: str


class Recorder(Callback):
    """Writes a run while it trains. The checkpoint comes first, then the store: what the store lacks after a crash is
    filled in from the checkpoint, at the same timestamps, so that no point of a curve stands twice.

    Training goes on while the store is away; what it lacks is written when it answers again.

    Args:
        every: seconds for which epochs wait for one another; 0 writes each with its checkpoint. A run that is killed
            has those that waited in its checkpoint.
    """

    def __init__(self, info: RecordInfo, patience: Patience | None = None, every: float = EVERY) -> None:
        quieten()
        self._info, self._patience, self._every = info, patience or Patience(), every
        self._direct = MlflowClient(tracking_uri=info.tracking_uri)
        self._client = Patient(self._direct, self._patience)
        self.run_id = ""
        self._earlier: Run | None = None
        self._gpus = 0
        self._there: set[int] = set()
        self._history: Sequence[EpochRecord] = ()
        self._pause, self._next_write = 0.0, 0.0

    def open(self, *, shared: bool) -> bool:
        """Begin the record of the cell, or go on with the one that earlier attempts left.

        Args:
            shared: whether a record of another study will do.

        Returns:
            false where one will do: made by the same code, since the scheduler looked for it. Nothing is begun then.
        """
        opening = self._info.opening
        found = records(self._client, opening, everywhere=shared)
        self._earlier = own(found, opening)
        others = [run for run in found if run is not self._earlier]
        if shared and any(_done_by(opening.tags[schema.CODE], run) for run in others):
            return False
        if self._earlier is None:
            self.run_id = create(self._client, opening)
        else:
            self.run_id = str(self._earlier.info.run_id)
            reopen(self._client, self._earlier, opening)
        return True

    def complete(self, metric: str) -> float | None:
        """Close the record if an earlier attempt wrote all of it and was ended before it could say so.

        Returns:
            the last value of a metric; none where there is more to do.
        """
        # They are written last, see `finish`.
        if self._earlier is None or schema.SECONDS not in self._earlier.data.metrics:
            return None
        self._client.set_terminated(self.run_id)
        return float(self._earlier.data.metrics[metric])

    def on_start(self, training: Training) -> None:
        """Write what it is that begins, and learn which epochs the store has; they may be more than the checkpoint's,
        where the newest one was damaged or the attempt before ended between two."""
        self._gpus = training.replica.count if training.device.type == "cuda" else 0
        self._history = training.history
        self._describe(training)
        if self._earlier is not None:
            points = self._client.get_metric_history(self.run_id, schema.TRAIN_LOSS)
            self._there = {point.step for point in points}
        self._fill()

    def on_epoch_end(self, training: Training) -> None:
        """Write what the checkpoint holds, where there is a new one and time; after the last epoch `finish` does."""
        new = training.saved == training.epoch < training.recipe.epochs
        if new and time.monotonic() >= self._next_write:
            self._fill()

    def leave(self) -> None:
        """Write what waits for the next checkpoint, where there will be none; unless the store is away."""
        if not self._pause:
            self._fill()

    def _fill(self) -> None:
        """Write the epochs that the store lacks, unless it is away."""
        try:
            self._write(self._history, self._direct)
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is None or not trouble.passing:
                raise
            if not self._pause:
                self._patience.say("the tracking store does not answer; training goes on, and is recorded later")
            self._pause = min(2 * self._pause or FIRST_PAUSE, LONGEST_PAUSE)
            self._next_write = time.monotonic() + self._pause
        else:
            self._pause, self._next_write = 0.0, time.monotonic() + self._every

    def _write(self, history: Sequence[EpochRecord], client: Any, readings: Sequence[Metric] = ()) -> None:
        """Write the epochs that the store lacks, and the readings with the last of them."""
        lacking = [record for record in history if record.epoch not in self._there]
        # An epoch is written whole or not at all.
        longest = max((len(record.metrics) for record in lacking), default=1)
        at_once = max(1, (BATCH - len(readings)) // longest)
        for start in range(0, max(len(lacking), 1), at_once):
            records = lacking[start : start + at_once]
            metrics = [
                Metric(name, value, int(record.time * 1000), record.epoch)
                for record in records
                for name, value in record.metrics.items()
            ]
            if start + at_once >= len(lacking):
                metrics += readings
            if metrics:
                client.log_batch(self.run_id, metrics=metrics)
            self._there.update(record.epoch for record in records)

    def finish(self, result: Result, notes: list[str]) -> None:
        """Write the artifacts, the epochs that are lacking and the readings, and close the record."""
        files = {schema.CLASS_ERRORS_FILE: result.class_errors, **({"notes.json": notes} if notes else {})}
        with _folder_of(files) as folder:
            torch.save(main_state(result.network), folder / schema.WEIGHTS_FILE)
            self._client.log_artifacts(self.run_id, str(folder))
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
        if self._gpus:
            values[schema.GPU_HOURS] = self._gpus * result.seconds / 3600
        energy = total(result.history)
        if energy is not None:
            values[schema.ENERGY] = energy
        stamp = int(last.time * 1000)
        # At step 0: a metric with one value is then drawn as a bar. Last of all: a record that has them has everything.
        self._write(
            result.history, self._client, [Metric(name, float(value), stamp, 0) for name, value in values.items()]
        )
        self._client.set_terminated(self.run_id)

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
            environment |= {"resumed_at_epoch": training.epoch, "earlier_attempts": self._environments()}
        self.write_input(self._input(training.recipe.data))
        with _folder_of({**self._info.files, schema.ENVIRONMENT_FILE: environment}) as folder:
            if self._info.patch:
                (folder / schema.PATCH_FILE).write_bytes(self._info.patch.encode("utf-8", "surrogateescape"))
            self._client.log_artifacts(self.run_id, str(folder))

    def write_input(self, data: DatasetInput) -> None:
        """Write which data the run trains on, while other runs may write the same."""
        try:
            self._client.log_inputs(self.run_id, [data])
        except MlflowException as error:
            if "UNIQUE" not in str(error).upper():
                raise
            # Another run wrote the same data set between MLflow's look and its own write; now it is found.
            self._client.log_inputs(self.run_id, [data])

    def _input(self, data: DataSpec) -> DatasetInput:
        dataset = Dataset(
            name=data.name,
            digest=self._info.files[schema.RECIPE_FILE]["data"],
            source_type="local",
            source=json.dumps({"name": data.name}),
            profile=json.dumps({"train_size": data.train_size or "all"}),
        )
        return DatasetInput(dataset, [InputTag(key="mlflow.data.context", value="training")])

    def _environments(self) -> list[Any]:
        """The environments of the attempts before this one, the latest first."""
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(MlflowException, OSError, ValueError):
            path = self._client.download_artifacts(self.run_id, schema.ENVIRONMENT_FILE, folder)
            last = json.loads(Path(path).read_text())
            return [last, *last.pop("earlier_attempts", [])]
        return []


def _done_by(code: str, run: Run) -> bool:
    return bool(run.info.status == "FINISHED" and run.data.tags.get(schema.CODE) == code)


@contextlib.contextmanager
def _folder_of(files: Mapping[str, Any]) -> Iterator[Path]:
    """A folder for a while, with JSON files by name."""
    with tempfile.TemporaryDirectory() as name:
        for file, content in files.items():
            (Path(name) / file).write_text(json.dumps(content, indent=1) + "\n")
        yield Path(name)
