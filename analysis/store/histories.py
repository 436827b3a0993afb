"""The histories of metrics: from the store in bulk, or from what is kept of it where their runs have not changed."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.store import changes
from analysis.store.cache import Cache
from analysis.store.client import Store

_KIND = "curves"
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("run_id", "metric")),
        ("digest", pa.binary()),
        ("epoch", pa.list_(pa.int64())),
        ("value", pa.list_(pa.float64())),
    ]
)  # a row a run and metric; one without any point has empty lists


def read(store: Store, run_ids: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return run_id, metric, epoch, value, sorted. Where a step was written twice the last one by time stays.

    Those of one run alone are always asked of the store: it is quick, and whoever holds a run against its record wants
    what is recorded now.
    """
    marks = changes.marks(store.database) if store.database is not None and len(run_ids) > 1 else {}
    by_experiment: dict[str, list[str]] = {}
    for run_id in run_ids:
        by_experiment.setdefault(marks[run_id].experiment_id if run_id in marks else "", []).append(run_id)
    tables = [_SCHEMA.empty_table()]
    for experiment_id, own in by_experiment.items():
        if store.database is not None and experiment_id:
            among = {run_id: mark.digest for run_id, mark in marks.items() if mark.experiment_id == experiment_id}
            tables.append(_kept(store, (Cache(store.database), experiment_id), among, own, metrics))
        else:
            tables.append(_fetched(store, dict.fromkeys(own, b""), set(), metrics))
    return _frame(pa.concat_tables(tables))


def _kept(
    store: Store, place: tuple[Cache, str], digests: dict[str, bytes], run_ids: Sequence[str], metrics: Sequence[str]
) -> pa.Table:
    """Return the histories of some runs of an experiment, whose runs have `digests`; keep what was not kept yet."""
    cache, experiment_id = place
    table = cache.read(_KIND, experiment_id, _SCHEMA)
    pairs = zip(table["run_id"].to_pylist(), table["digest"].to_pylist(), strict=True)
    current = table.filter(pa.array([digests.get(run_id) == digest for run_id, digest in pairs], pa.bool_()))
    fresh = _fetched(store, {run_id: digests[run_id] for run_id in run_ids}, set(_keys(current)), metrics)
    whole = pa.concat_tables([current, fresh])
    if len(fresh) or len(current) < len(table):
        cache.write(_KIND, experiment_id, whole)
    wanted = {(run_id, metric) for run_id in run_ids for metric in metrics}
    return whole.filter(pa.array([key in wanted for key in _keys(whole)], pa.bool_()))


def _keys(table: pa.Table) -> Iterable[tuple[str, str]]:
    return zip(table["run_id"].to_pylist(), table["metric"].to_pylist(), strict=True)


def _fetched(store: Store, digests: dict[str, bytes], known: set[tuple[str, str]], metrics: Sequence[str]) -> pa.Table:
    """Read the histories that are not known."""
    rows: list[dict[str, Any]] = []
    for metric in metrics:
        points: dict[str, dict[int, float]] = {run: {} for run in digests if (run, metric) not in known}
        for run_id, point in store.histories(list(points), metric) if points else ():
            points[run_id][point.step] = point.value  # they come in the order of their times
        for run_id, curve in points.items():
            steps = sorted(curve)
            values = [curve[step] for step in steps]
            row = {"run_id": run_id, "metric": metric, "digest": digests[run_id], "epoch": steps, "value": values}
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _frame(table: pa.Table) -> pd.DataFrame:
    table = table.combine_chunks().sort_by([("run_id", "ascending"), ("metric", "ascending")])
    columns = {name: table[name].combine_chunks() for name in ("epoch", "value")}
    lengths = columns["epoch"].value_lengths().to_numpy(zero_copy_only=False)
    keys = {name: table[name].to_numpy() for name in ("run_id", "metric")}
    return pd.DataFrame(
        {
            **{name: np.repeat(values, lengths) for name, values in keys.items()},
            **{name: column.flatten().to_numpy(zero_copy_only=False) for name, column in columns.items()},
        }
    )
