"""A study's records from one store into another, such as from the embedded one to a server: every experiment, run,
point, artifact and Optuna study. What is there already stays, so that a move that was cut short goes on."""

import tempfile
from collections.abc import Callable

import optuna
from mlflow.entities import Experiment, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from experiments.recording.tracking import BATCH, quieten
from experiments.stores import Stores
from experiments.stores.journal import open_storage

MOVED_FROM = "moved_from"
SOURCE_RUN = "source_run"
PARAMS, TAGS = 100, 100  # in one batch, at most


def move(source: Stores, target: Stores, say: Callable[[str], None]) -> int:
    """Copy everything from one store into another; the source stays as it is.

    Returns:
        how many runs the target has that came from the source.

    Raises:
        ValueError: a run still trains, or the copy differs from what was copied.
    """
    quieten()
    old, new = MlflowClient(source.tracking_uri), MlflowClient(target.tracking_uri)
    experiments = [found for found in old.search_experiments() if found.name != "Default"]
    runs = {found.experiment_id: _runs(old, found.experiment_id) for found in experiments}
    open_runs = [run.info.run_name for listed in runs.values() for run in listed if run.info.status == "RUNNING"]
    if open_runs:
        raise ValueError(
            f"{len(open_runs)} run(s) are open ({', '.join(open_runs[:3])}): stop the study first, or give its command "
            "once more and stop it, which closes what a dead scheduler left"
        )
    ids: dict[str, str] = {}
    for experiment in experiments:
        experiment_id = _experiment(new, experiment, target)
        there = {run.data.tags[MOVED_FROM]: run for run in _runs(new, experiment_id) if MOVED_FROM in run.data.tags}
        # Copies name their originals, which stand before them.
        for run in sorted(runs[experiment.experiment_id], key=lambda run: SOURCE_RUN in run.data.tags):
            known = there.get(run.info.run_id)
            if known is not None and known.info.status == run.info.status:
                ids[run.info.run_id] = known.info.run_id
                continue
            if known is not None:  # cut short
                new.delete_run(known.info.run_id)
            ids[run.info.run_id] = _copy(old, new, run, experiment_id, ids)
        say(f"{experiment.name}: {len(runs[experiment.experiment_id])} runs")
    for copied in ids.values():
        original = new.get_run(copied).data.tags.get(SOURCE_RUN)
        if original in ids:
            new.set_tag(copied, SOURCE_RUN, ids[original])
    for name in _studies(source, target):
        say(f"Optuna study {name}")
    return len(ids)


def _runs(client: MlflowClient, experiment_id: str) -> list[Run]:
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _experiment(client: MlflowClient, experiment: Experiment, target: Stores) -> str:
    found = client.get_experiment_by_name(experiment.name)
    location = None if target.served else (target.artifacts / experiment.name).resolve().as_uri()
    experiment_id = (
        client.create_experiment(experiment.name, artifact_location=location) if found is None else found.experiment_id
    )
    for key, value in experiment.tags.items():
        client.set_experiment_tag(experiment_id, key, value)
    return str(experiment_id)


def _copy(old: MlflowClient, new: MlflowClient, run: Run, experiment_id: str, ids: dict[str, str]) -> str:
    tags = {**run.data.tags, MOVED_FROM: run.info.run_id}
    made = new.create_run(experiment_id, start_time=run.info.start_time, run_name=run.info.run_name)
    run_id = str(made.info.run_id)
    new.log_batch(run_id, tags=[RunTag(MOVED_FROM, run.info.run_id)])
    history = [point for name in run.data.metrics for point in old.get_metric_history(run.info.run_id, name)]
    for first in range(0, len(history), BATCH):
        new.log_batch(run_id, metrics=history[first : first + BATCH])
    params = [Param(name, value) for name, value in run.data.params.items()]
    for first in range(0, len(params), PARAMS):
        new.log_batch(run_id, params=params[first : first + PARAMS])
    listed = [RunTag(name, value) for name, value in tags.items()]
    for first in range(0, len(listed), TAGS):
        new.log_batch(run_id, tags=listed[first : first + TAGS])
    if run.inputs is not None and run.inputs.dataset_inputs:
        new.log_inputs(run_id, run.inputs.dataset_inputs)
    with tempfile.TemporaryDirectory() as folder:
        if old.list_artifacts(run.info.run_id):
            old.download_artifacts(run.info.run_id, "", folder)
            new.log_artifacts(run_id, folder)
    copied = sum(len(new.get_metric_history(run_id, name)) for name in run.data.metrics)
    if copied != len(history):
        raise ValueError(f"{run.info.run_name}: {len(history)} points were copied, and {copied} are read")
    new.set_terminated(run_id, status=run.info.status, end_time=run.info.end_time)
    return run_id


def _studies(source: Stores, target: Stores) -> list[str]:
    if source.journal == target.journal:
        return []
    old, new = open_storage(source.journal), open_storage(target.journal)
    there = set(optuna.get_all_study_names(new))
    names = [name for name in optuna.get_all_study_names(old) if name not in there]
    for name in names:
        optuna.copy_study(from_study_name=name, from_storage=old, to_storage=new)
    return names
