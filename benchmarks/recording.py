"""Runs that note how long their record held them up, and when their training began."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from mlflow.tracking import MlflowClient

from analysis import schema
from dhm.cost import Cost
from dhm.training import Callback, Result, Training
from experiments import trial
from experiments.pool import Send
from experiments.recording.opening import Opening
from experiments.recording.recorder import Recorder, RecordInfo
from experiments.recording.tracking import Tracker
from experiments.stores import Stores
from experiments.trial import Job

T = TypeVar("T")


class Watched(Recorder):
    """Attributes:
    seconds: spent in it so far, by the run's own clock.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.seconds = 0.0
        self._clocked(lambda: super(Watched, self).__init__(*args, **settings))

    def open(self, *, shared: bool) -> bool:
        """See `Recorder.open`."""
        return self._clocked(lambda: super(Watched, self).open(shared=shared))

    def complete(self, metric: str) -> float | None:
        """See `Recorder.complete`."""
        return self._clocked(lambda: super(Watched, self).complete(metric))

    def on_start(self, training: Training) -> None:
        """See `Recorder.on_start`."""
        self._clocked(lambda: super(Watched, self).on_start(training))

    def on_epoch_end(self, training: Training) -> None:
        """See `Recorder.on_epoch_end`."""
        self._clocked(lambda: super(Watched, self).on_epoch_end(training))

    def finish(self, result: Result, notes: list[str]) -> None:
        """See `Recorder.finish`."""
        self._clocked(lambda: super(Watched, self).finish(result, notes))

    def _clocked(self, call: Callable[[], T]) -> T:
        started = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds += time.perf_counter() - started


class Begin(Callback):
    """Notes when training begins: it is the last of the callbacks that are told."""

    def __init__(self) -> None:
        self.at = 0.0

    def on_start(self, training: Training) -> None:
        """The first step is next."""
        self.at = time.perf_counter()


def watched_cell(job: Job, send: Send, stop_asked: Callable[[], bool]) -> Any:
    """A cell as it is always run; what it notes lies beside its lock."""
    begin, recorders = Begin(), list[Watched]()

    def recorder(*args: Any) -> Watched:
        recorders.append(Watched(*args))
        return recorders[-1]

    with mock.patch.object(trial, "Recorder", recorder):
        outcome = trial.run_cell(dataclasses.replace(job, callbacks=(*job.callbacks, begin)), send, stop_asked)
    notes = {"began": begin.at, "tracking": sum(recorder.seconds for recorder in recorders)}
    job.lock.with_suffix(".notes").write_text(json.dumps(notes))
    return outcome


def record_info(root: Path, name: str) -> RecordInfo:
    """What the record of a run that belongs to no study begins with, in a store of its own."""
    stores = Stores(root=root)
    stores.prepare()
    Tracker(stores)  # which makes the database
    client = MlflowClient(tracking_uri=stores.tracking_uri)
    found = client.get_experiment_by_name("benchmark")
    location = stores.artifacts.resolve().as_uri()
    experiment_id = client.create_experiment("benchmark", location) if found is None else found.experiment_id
    tags = {schema.CELL_ID: name, schema.PLAN: "benchmark", schema.ATTEMPTS: "1", schema.CODE: "none"}
    return RecordInfo(
        tracking_uri=stores.tracking_uri,
        opening=Opening(experiment_id=experiment_id, name=name, tags=tags, params={}),
        cost=Cost(parameters=0, parameters_main=0, flops=0, flops_main=0),
        files={schema.RECIPE_FILE: {"data": "none"}, schema.ENVIRONMENT_FILE: {}},
        patch="",
    )
