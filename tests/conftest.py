from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty tracking store, which takes seconds to make."""
    from experiments.recording.tracking import Tracker
    from experiments.stores import Stores

    stores = Stores(root=tmp_path_factory.mktemp("database"))
    stores.prepare()
    Tracker(stores)
    return stores.root / "mlflow.db"
