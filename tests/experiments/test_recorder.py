from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput

from dhm.cost import Cost
from experiments.recording.opening import Opening
from experiments.recording.recorder import Recorder, RecordInfo

RUNS, DATA_SETS = 4, 6


def test_runs_that_write_the_same_data_set_at_once_all_have_it(tmp_path: Path, empty_database: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("some")
    run_ids = [client.create_run(experiment).info.run_id for _ in range(RUNS)]
    together = Barrier(RUNS)

    def write(run_id: str) -> None:
        cost = Cost(parameters=1, parameters_main=1, flops=1, flops_main=1)
        opening = Opening(experiment_id=experiment, name="some", tags={}, params={})
        recorder = Recorder(
            RecordInfo(tracking_uri=client.tracking_uri, opening=opening, cost=cost, files={}, patch="")
        )
        recorder.run_id = run_id
        for number in range(DATA_SETS):
            together.wait(60)
            data = Dataset(name="digits", digest=f"{number}", source_type="local", source="{}")
            recorder.write_input(DatasetInput(data))

    with ThreadPoolExecutor(RUNS) as pool:
        list(pool.map(write, run_ids))
    for run_id in run_ids:
        assert len(client.get_run(run_id).inputs.dataset_inputs) == DATA_SETS
