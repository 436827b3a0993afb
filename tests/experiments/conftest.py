"""One small study, run for real, that many tests look at."""

import dataclasses
import os
from pathlib import Path

import pandas as pd
import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from analysis import store as reader
from experiments.run import main

QUICK = ("epochs=2", "seeds=2", "pool.cpu_slots=2", "pool.gpus=none")


@dataclasses.dataclass
class Workplace:
    """A folder with a store and results, and the command line on it."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.store / 'mlflow.db'}"

    def run(self, *words: str) -> int:
        return main([*QUICK, *words, f"store={self.store}", f"results={self.root / 'results'}"])

    def records(self) -> pd.DataFrame:
        return reader.runs(self.uri)


@pytest.fixture(autouse=True)
def _own_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget a user's grids after a test: the next one is another command."""
    import experiments.grids  # noqa: F401  ours, which are registered once a process, are not to be forgotten
    from experiments.grid import GRIDS

    monkeypatch.setattr(GRIDS, "_values", dict(GRIDS._values))


@pytest.fixture
def workplace(tmp_path: Path, empty_database: Path) -> Workplace:
    """A place of one's own, with an empty store."""
    place = Workplace(tmp_path)
    place.store.mkdir()
    (place.store / "mlflow.db").write_bytes(empty_database.read_bytes())
    return place


@pytest.fixture(scope="session")
def methods(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Workplace:
    """A study of `methods` that ended well; look, and change nothing."""
    place = Workplace(tmp_path_factory.mktemp("methods"))
    place.store.mkdir()
    (place.store / "mlflow.db").write_bytes(empty_database.read_bytes())
    assert place.run("grid=methods") == 0
    return place
