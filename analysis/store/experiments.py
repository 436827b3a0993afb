"""The experiments of a store: from the store, or from what is kept of it where nothing was written since."""

from typing import Any

import pyarrow as pa

from analysis.store import changes
from analysis.store.cache import Cache, dictionaries, stamp_of
from analysis.store.client import Experiment, Store

_KIND = "experiments"
_ALL = "all"
_SCHEMA = pa.schema(
    [("experiment_id", pa.string()), ("name", pa.string()), ("tags", pa.map_(pa.string(), pa.string()))]
)


def experiments(store: Store) -> list[Experiment]:
    """Return the experiments that hold a plan, by name."""
    if store.database is None:
        return store.experiments()
    cache, now = Cache(store.database), changes.stamp(store.database)
    if now is not None and stamp_of(table := cache.read(_KIND, _ALL, _SCHEMA)) == now:
        columns = [table["experiment_id"].to_pylist(), table["name"].to_pylist(), dictionaries(table["tags"])]
        return [Experiment(*values) for values in zip(*columns, strict=True)]
    found = store.experiments()
    # What was written while it was read may be neither what it was before nor what it is now.
    if now is not None and changes.stamp(store.database) == now:
        cache.write(_KIND, _ALL, _encoded(found), now)
    return found


def _encoded(found: list[Experiment]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "experiment_id": [experiment.experiment_id for experiment in found],
        "name": [experiment.name for experiment in found],
        "tags": [list(experiment.tags.items()) for experiment in found],
    }
    return pa.table(columns, schema=_SCHEMA)
