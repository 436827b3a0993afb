"""One real tracking store for all tests of analysis: making its database is what takes long."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

import analysis.store  # noqa: F401  (turns telemetry off before mlflow is imported)
from tests.analysis import synthetic

COMPLETE = ("branch_positions", "mimicking_weights", "depths", "methods")


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the four grids of `synthetic` complete, three to five seeds each."""
    root: Path = tmp_path_factory.mktemp("store")
    address = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=address)
    for grid in COMPLETE:
        seeds = 5 if grid in ("branch_positions", "methods") else 3
        synthetic.write_grid(client, synthetic.plan_record(grid, plan_id=f"{grid}-1", seeds=seeds))
    return address
