import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput

from analysis import schema
from dhm.cost import Cost
from dhm.engine import fit
from dhm.recipe import Recipe
from dhm.training import Callback, Runtime, Training
from experiments.benchmarks import BENCHMARKS
from experiments.recording.opening import Opening
from experiments.recording.recorder import Recorder, RecordInfo
from experiments.trial import Failed, Job, run_cell

RUNS, DATA_SETS = 4, 6
EPOCHS = 4


@pytest.fixture
def client(tmp_path: Path, empty_database: Path) -> MlflowClient:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    return MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")


def record_info(client: MlflowClient, artifacts: Path) -> RecordInfo:
    tags = {schema.CELL_ID: "one", schema.PLAN: "plan", schema.ATTEMPTS: "1", schema.CODE: "code"}
    found = client.get_experiment_by_name("some")
    experiment_id = client.create_experiment("some", artifacts.as_uri()) if found is None else found.experiment_id
    return RecordInfo(
        tracking_uri=client.tracking_uri,
        opening=Opening(experiment_id=experiment_id, name="some", tags=tags, params={}),
        cost=Cost(parameters=1, parameters_main=1, flops=1, flops_main=1),
        files={schema.RECIPE_FILE: {"data": "digits"}, schema.ENVIRONMENT_FILE: {}},
        patch="",
    )


def recipe() -> Recipe:
    return dataclasses.replace(BENCHMARKS.get("digits").base(), epochs=EPOCHS)


def epochs_recorded(client: MlflowClient, run_id: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, schema.TRAIN_LOSS)]


def test_runs_that_write_the_same_data_set_at_once_all_have_it(client: MlflowClient, tmp_path: Path) -> None:
    info = record_info(client, tmp_path)
    run_ids = [client.create_run(info.opening.experiment_id).info.run_id for _ in range(RUNS)]
    together = Barrier(RUNS)

    def write(run_id: str) -> None:
        writes = Recorder(info)
        writes.run_id = run_id
        for number in range(DATA_SETS):
            together.wait(60)
            data = Dataset(name="digits", digest=f"{number}", source_type="local", source="{}")
            writes.write_input(DatasetInput(data))

    with ThreadPoolExecutor(RUNS) as pool:
        list(pool.map(write, run_ids))
    for run_id in run_ids:
        assert len(client.get_run(run_id).inputs.dataset_inputs) == DATA_SETS


# Seconds between checkpoints and between batches, and how many batches there are.
@pytest.mark.parametrize("pace", [(600.0, 0.0, 1), (0.0, 600.0, 1), (0.0, 0.0, EPOCHS)])
def test_short_epochs_are_written_together_and_never_before_their_checkpoint(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pace: tuple[float, float, int]
) -> None:
    saved, every, batches = pace
    written: list[set[int]] = []
    log_batch = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, **what: Any) -> Any:
        epochs = {metric.step for metric in what.get("metrics", ()) if metric.key == schema.TRAIN_LOSS}
        written.extend([epochs] if epochs else [])
        return log_batch(self, run_id, **what)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    writes = Recorder(record_info(client, tmp_path), every=every)
    writes.open(shared=True)
    result = fit(recipe(), 0, Runtime(checkpoint_every=saved), [writes])
    writes.finish(result, [])
    assert len(written) == batches and set.union(*written) == set(range(EPOCHS))
    assert epochs_recorded(client, writes.run_id) == list(range(EPOCHS))


class Break(Callback):
    """Raises where an epoch is over."""

    def on_epoch_end(self, training: Training) -> None:
        if training.epoch == EPOCHS - 1:
            raise RuntimeError("broken")


def test_a_run_that_ends_early_has_every_epoch_in_its_record(client: MlflowClient, tmp_path: Path) -> None:
    job = Job(
        cell_id="one",
        code="code",
        recipe=recipe(),
        seed=0,
        runtime=Runtime(checkpoint_every=600),
        record=record_info(client, tmp_path),
        lock=tmp_path / "lock",
        callbacks=[Break()],
    )
    words: list[Any] = []
    outcome = run_cell(job, words.append, lambda: False)
    assert isinstance(outcome, Failed) and "broken" in outcome.message
    (run,) = client.search_runs([job.record.opening.experiment_id])
    assert epochs_recorded(client, run.info.run_id) == list(range(EPOCHS - 1))
