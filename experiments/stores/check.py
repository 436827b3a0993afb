"""Whether a study's stores can be used: a write and a read of each."""

import os
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from experiments.recording.tracking import quieten
from experiments.stores import Stores
from experiments.stores.journal import open_storage

NAME = "store-check"


def check(stores: Stores) -> list[tuple[str, str | None]]:
    """Try the stores: what was tried, and what is wrong with it, if anything is. Leaves nothing behind."""
    quieten()
    # What MLflow has deleted it keeps in its bin, so that every check has a name of its own.
    name = f"{NAME}-{uuid.uuid4().hex[:8]}"
    tried: list[tuple[str, Callable[[], None]]] = [
        (f"folder {stores.root}", lambda: _folder(stores.root)),
        (f"tracking {stores.tracking_uri}", lambda: _tracking(stores, name)),
        (f"queue {stores.journal}", lambda: _queue(stores.journal, name)),
    ]
    return [(what, _wrong(attempt)) for what, attempt in tried]


def _wrong(attempt: Callable[[], None]) -> str | None:
    try:
        attempt()
    except (OSError, ValueError, RuntimeError, MlflowException, SQLAlchemyError) as error:
        lines = str(getattr(error, "orig", None) or error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    return None


def _folder(root: Path) -> None:
    """What checkpoints, locks and mailboxes need: files that appear whole, and locks that hold."""
    Stores(root=root).prepare()
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{NAME}-") as name:
        part, whole = Path(name) / "part", Path(name) / "whole"
        part.write_text("written")
        part.replace(whole)
        _expect(whole.read_text(), "written")
        lock = Path(name) / "lock"
        with FileLock(lock):
            try:
                with FileLock(lock, timeout=0):
                    raise ValueError("locks do not hold: mount it with locking (for NFS: version 4)")
            except Timeout:
                pass
        ahead = whole.stat().st_mtime - time.time()
        if abs(ahead) > 60:
            raise ValueError(f"its clock differs from this machine's by {ahead:.0f} s: set both by NTP")


def _tracking(stores: Stores, name: str) -> None:
    client = MlflowClient(tracking_uri=stores.tracking_uri)
    location = None if stores.served else (stores.artifacts / name).resolve().as_uri()
    experiment_id = client.create_experiment(name, artifact_location=location)
    try:
        run_id = client.create_run(experiment_id).info.run_id
        client.log_batch(run_id, metrics=[Metric("metric", 0.5, 1, 1), Metric("metric", 0.25, 2, 2)])
        _expect([point.value for point in client.get_metric_history(run_id, "metric")], [0.5, 0.25])
        client.log_text(run_id, "written", "text.txt")
        with tempfile.TemporaryDirectory() as folder:
            _expect(Path(client.download_artifacts(run_id, "text.txt", folder)).read_text(), "written")
        client.delete_run(run_id)
    finally:
        client.delete_experiment(experiment_id)


def _queue(journal: Path | str, name: str) -> None:
    storage = open_storage(journal)
    study = optuna.create_study(study_name=name, storage=storage)
    try:
        study.enqueue_trial({}, user_attrs={"cell": "written"})
        trial = study.ask()
        _expect(trial.user_attrs["cell"], "written")
        study.tell(trial, 0.5)
        _expect(optuna.load_study(study_name=name, storage=storage).trials[0].value, 0.5)
    finally:
        optuna.delete_study(study_name=name, storage=storage)


def _expect(found: object, written: object) -> None:
    if found != written:
        raise ValueError(f"{written!r} was written, and {found!r} is read (process {os.getpid()})")
