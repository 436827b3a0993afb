"""Shared stores: each is tried, a study's records move there whole, and no password is seen anywhere."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from analysis import schema, store
from experiments.run import main
from experiments.stores.__main__ import main as stores_main
from experiments.stores.addresses import locations, masked
from tests.engines.servers import MlflowServer, Postgres

STUDY = ("grid=methods", "seeds=1", "epochs=2", "pool.cpu_slots=2", "pool.gpus=none")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DHM_QUEUE", "PGPASSWORD"):
        monkeypatch.setenv(name, "")  # set first, so that what the code sets is taken back
        monkeypatch.delenv(name)


@pytest.mark.engines
def test_a_check_says_what_is_well_and_what_is_not(
    postgres: Postgres,
    mlflow_server: MlflowServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DHM_QUEUE", postgres.database("checked"))
    words = ("check", f"store={tmp_path / 'store'}", f"tracking={mlflow_server.uri}")
    for _ in range(2):
        assert stores_main(words) == 0
    said = capsys.readouterr().out
    assert said.count("ok") == 6 and Postgres.PASSWORD not in said
    monkeypatch.setenv("DHM_QUEUE", postgres.database("other").replace("other", "nowhere"))
    assert stores_main(words) == 1
    said = capsys.readouterr().out
    assert said.count("ok") == 2 and "nowhere" in said and Postgres.PASSWORD not in said


@pytest.mark.engines
def test_a_study_moves_and_nothing_is_lost(
    postgres: Postgres,
    mlflow_server: MlflowServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = (f"store={tmp_path / 'store'}", f"results={tmp_path / 'results'}")
    assert main([*STUDY, *place]) == 0
    embedded = f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"
    monkeypatch.setenv("DHM_QUEUE", postgres.database("queue"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    for _ in range(2):
        assert stores_main(["move", place[0]]) == 0
    before, after = store.runs(embedded), store.runs(mlflow_server.uri)
    own = ["run_id", "start_time", "end_time", "artifact_uri", schema.OWNER]
    kept = [name for name in before.columns if name not in own]
    pd.testing.assert_frame_equal(before[kept], after[kept])
    curves = [
        store.curves(uri, frame, [schema.TRAIN_LOSS])[["epoch", "value"]]
        for uri, frame in ((embedded, before), (mlflow_server.uri, after))
    ]
    assert sorted(map(tuple, curves[0].to_numpy())) == sorted(map(tuple, curves[1].to_numpy()))
    capsys.readouterr()
    assert main([*STUDY, *place]) == 0
    assert "3 done, 0 to run" in capsys.readouterr().out
    left = subprocess.run(
        ["grep", "-rl", Postgres.PASSWORD, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert left.stdout == "", "no file has the password"


def test_a_password_on_the_command_line_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("queue", "tracking"):
        words = [*STUDY, f"store={tmp_path / 'store'}", f"{name}=postgresql://lab:word@127.0.0.1:1/x"]
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "word" not in said.replace("password", "").replace("PASSWORD", "") and "***" in said
    assert not (tmp_path / "store").exists()


def test_a_password_in_the_environment_is_kept_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.stores.addresses.find_spec", lambda name: object())
    environment = {"DHM_QUEUE": "postgresql://lab:p%40ss@db:5432/x", "MLFLOW_TRACKING_URI": "https://me:word@mlflow/a"}
    found = locations(None, None, environment)
    assert found == {"tracking": "https://mlflow/a", "queue": "postgresql+psycopg://lab@db:5432/x"}
    assert environment == {
        "DHM_QUEUE": "postgresql+psycopg://lab@db:5432/x",
        "MLFLOW_TRACKING_URI": "https://mlflow/a",
        "PGPASSWORD": "p@ss",
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": "word",
    }
    with pytest.raises(ValueError, match="another password"):
        locations(None, None, {"DHM_QUEUE": "postgresql://lab:a@db/x", "PGPASSWORD": "b"})
    assert masked("postgresql://lab:a@db/x") == "postgresql://lab:***@db/x"


def test_without_a_driver_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.stores.addresses.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'dhm-ablation\[postgres\]'"):
        locations(None, "postgresql://lab@db/x", {})
