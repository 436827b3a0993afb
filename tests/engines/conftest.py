"""Engines and stores that are started once for all tests. Where one is not installed its tests are skipped, saying what
is missing; ENGINES=required makes that a failure."""

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from tests.engines.servers import MlflowServer, NotThere, Postgres, RayCluster, Slurm


def absent(why: object) -> NoReturn:
    if os.environ.get("ENGINES") == "required":
        pytest.fail(f"ENGINES=required, and: {why}")
    pytest.skip(str(why))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A SLURM of two nodes; its clients find it by SLURM_CONF."""
    try:
        import submitit  # noqa: F401

        cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    except (ImportError, NotThere) as error:
        absent(error)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.variables.items():
            patch.setenv(name, value)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A Ray cluster of two nodes."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        absent(error)
    cluster = RayCluster()
    with pytest.MonkeyPatch.context() as patch:
        # Where a token of Ray's lies in the home folder, a head wants it of its nodes, and they do not look for it.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    try:
        import psycopg  # noqa: F401

        server = Postgres()
    except (ImportError, NotThere) as error:
        absent(error)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()
