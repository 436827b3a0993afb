import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from analysis import schema, store
from analysis.plan import Plan
from tests.analysis import synthetic


def plan_of(uri: str, plan_id: str) -> Plan:
    return next(plan for plan in store.plans(uri) if plan.plan_id == plan_id)


def test_plans_come_back_as_they_were_written(uri: str) -> None:
    plans = {plan.plan_id: plan for plan in store.plans(uri)}
    assert set(plans) >= {"branch_positions-1", "mimicking_weights-1", "depths-1", "methods-1"}
    plan = plans["branch_positions-1"]
    assert plan.experiment == "digits/branch_positions"
    assert plan.names[:2] == ("plain", "dsl at 1")
    assert plan.factors == {"method": ("plain", "dsl", "dhm"), "positions": ("1", "2", "1+2")}
    assert plan.variant("plain").factors["positions"] is None
    assert plan.seeds == (0, 1, 2, 3, 4)


def test_the_frame_has_a_row_a_cell_with_types(uri: str) -> None:
    plan = plan_of(uri, "mimicking_weights-1")
    frame = store.runs(uri, plan)
    assert len(frame) == len(plan.variants) * 3 == frame[schema.CELL_ID].nunique()
    assert set(store.COLUMNS) <= set(frame.columns)
    assert frame[schema.SEED].dtype == int and frame[schema.DIRTY].dtype == bool
    assert set(frame["status"]) == {"FINISHED"} and set(frame[schema.EPOCHS]) == {15}
    row = frame[frame[schema.VARIANT] == "dhm alpha 0.5 T 2"].iloc[0]
    assert row["factor.mimic.alpha"] == 0.5 and isinstance(row["factor.mimic.alpha"], float)
    baseline = frame[frame[schema.VARIANT] == "dsl"].iloc[0]
    assert baseline["factor.mimic.alpha"] is None and baseline[schema.SOURCE_RUN] is None
    assert baseline[schema.COMMIT] == synthetic.COMMIT
    assert frame[schema.FINAL_TOP1].between(5, 25).all()
    assert (frame["end_time"] - frame["start_time"]).dt.total_seconds().between(59, 61).all()


def test_all_plans_are_read_at_once_and_one_alone(uri: str) -> None:
    everything = store.runs(uri)
    for plan in store.plans(uri):
        own = store.runs(uri, plan)
        assert set(own["run_id"]) == set(everything.loc[everything[schema.PLAN] == plan.plan_id, "run_id"])


def test_curves_are_long_sorted_and_as_written(uri: str) -> None:
    frame = store.runs(uri, plan_of(uri, "methods-1"))
    curves = store.curves(uri, frame, [schema.TEST_TOP1, "no/such/metric"])
    assert list(curves.columns) == ["run_id", "metric", "epoch", "value"]
    assert len(curves) == 15 * 15 and set(curves["metric"]) == {schema.TEST_TOP1}
    last = curves[curves["epoch"] == 14].set_index("run_id")["value"]
    final = frame.set_index("run_id")[schema.FINAL_TOP1]
    pd.testing.assert_series_equal(last.sort_index(), final.sort_index(), check_names=False)
    assert store.curves(uri, frame.head(0), [schema.TEST_TOP1]).empty


def test_a_point_written_twice_keeps_the_later_value(uri: str) -> None:
    client = MlflowClient(tracking_uri=uri)
    run = client.create_run(synthetic.experiment_id(client, "elsewhere"))
    # the later one has the smaller value and was written first
    client.log_batch(
        run.info.run_id, [Metric("m", 1.0, 2_000, 0), Metric("m", 9.0, 1_000, 0), Metric("m", 5.0, 3_000, 1)]
    )
    curves = store.curves(uri, pd.DataFrame({"run_id": [run.info.run_id]}), ["m"])
    assert list(curves["value"]) == [1.0, 5.0]


def test_a_server_without_bulk_reading_gives_the_same(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = store.runs(uri, plan_of(uri, "methods-1")).head(4)
    bulk = store.curves(uri, frame, [schema.TEST_TOP1])
    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore.get_metric_history_bulk", None)
    pd.testing.assert_frame_equal(store.curves(uri, frame, [schema.TEST_TOP1]), bulk)


def test_copies_count_once() -> None:
    frame = pd.DataFrame(
        {
            "run_id": ["copy", "original", "alone", "orphan1", "orphan2"],
            schema.SOURCE_RUN: ["original", None, None, "deleted", "deleted"],
        }
    )
    assert list(store.unique_cells(frame)["run_id"]) == ["original", "alone", "orphan1"]


def test_reading_makes_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(store.StoreError, match=r"python -m experiments\.run"):
        store.plans("sqlite:///results/store/mlflow.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(store.StoreError, match="no tracking store"):
        store.runs("sqlite:///empty.db")
    (tmp_path / "text.db").write_text("this is no database, and long enough to be seen as none" * 20)
    with pytest.raises(store.StoreError, match="no tracking store"):
        store.plans("sqlite:///text.db")
    assert {path.name for path in tmp_path.iterdir()} == {"empty.db", "text.db"}
    assert (tmp_path / "empty.db").stat().st_size == 0


def test_an_address_without_a_root_is_of_the_folder_one_is_in(
    uri: str, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, source in (("full", Path(uri.removeprefix("sqlite:///"))), ("empty", empty_database)):
        (tmp_path / name).mkdir()
        shutil.copy(source, tmp_path / name / "mlflow.db")
    found = {}
    for name in ("full", "empty"):
        monkeypatch.chdir(tmp_path / name)
        found[name] = store.plans("sqlite:///mlflow.db")
    assert found["full"] and not found["empty"]


@pytest.mark.slow
def test_a_thousand_runs_are_read_in_seconds(uri: str, tmp_path: Path) -> None:
    shutil.copy(uri.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    plan = {**synthetic.plan_record("methods", plan_id="large", seeds=334), "benchmark": "large"}
    synthetic.write_grid(client, plan)
    start = time.perf_counter()
    frame = store.runs(uri, plan_of(uri, "large"))
    curves = store.curves(uri, frame, [schema.TEST_TOP1])
    taken = time.perf_counter() - start
    assert (len(frame), len(curves)) == (1002, 15030)
    assert taken < 10  # 1.2 s on two cores
