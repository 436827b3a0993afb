"""The records of runs: from the store, or from what is kept of it where they have not changed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from analysis.store import changes
from analysis.store.cache import Cache, dictionaries, stamp_of
from analysis.store.client import ACTIVE, ALL, Store

if TYPE_CHECKING:
    from mlflow.entities import Run

_BATCH = 200  # runs asked for by their ids
_KIND = "runs"
_ANY: Mapping[str, str] = {}
_WORDS, _NUMBERS = pa.map_(pa.string(), pa.string()), pa.map_(pa.string(), pa.float64())
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("run_id", "name", "experiment_id", "status", "stage", "artifact_uri")),
        *((name, pa.int64()) for name in ("start_time", "end_time")),
        *(("tags", _WORDS), ("params", _WORDS), ("metrics", _NUMBERS)),
        ("digest", pa.binary()),
    ]
)
_FIELDS = tuple(_SCHEMA.names[:-1])


@dataclass(frozen=True, slots=True)
class Record:
    """A run as MLflow tells it. Times in ms since the epoch; `metrics` are the last values."""

    run_id: str
    name: str
    experiment_id: str
    status: str
    stage: str
    artifact_uri: str
    start_time: int | None
    end_time: int | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


def records(
    store: Store,
    experiment_ids: Sequence[str],
    tags: Mapping[str, str] = _ANY,
    *,
    stage: str = ACTIVE,
    few: bool = False,
) -> list[Record]:
    """Return the records of experiments that have some tags; in no order.

    `few`: of so many runs that the store is better asked for them alone.
    """
    if store.database is None or few:
        condition = " and ".join(f"tags.{tag} = '{value}'" for tag, value in tags.items())
        return [_record(run) for run in store.search(experiment_ids, condition, stage)]
    found = _kept(store, Cache(store.database), experiment_ids)
    return [record for record in found if record.stage == stage and tags.items() <= record.tags.items()]


def _kept(store: Store, cache: Cache, experiment_ids: Sequence[str]) -> list[Record]:
    assert store.database is not None
    now = changes.stamp(store.database)
    tables = {name: cache.read(_KIND, name, _SCHEMA) for name in experiment_ids}
    if now is not None and all(stamp_of(table) == now for table in tables.values()):
        return [record for table in tables.values() for record in _decoded(table)]
    with changes.watch(store.database) as watch:
        marks = watch.marks() if watch else None
        if watch is None or marks is None:
            return [_record(run) for run in store.search(experiment_ids, stage=ALL)]
        found: list[Record] = []
        read: dict[str, list[Record]] = {}
        for name, table in tables.items():
            current = {run_id: mark.digest for run_id, mark in marks.items() if mark.experiment_id == name}
            tables[name] = _unchanged(table, current)
            read[name] = _read(store, name, current, set(tables[name]["run_id"].to_pylist()))
            found += [*_decoded(tables[name]), *read[name]]
            if len(tables[name]) == len(table) and not read[name] and now in (None, stamp_of(table)):
                del read[name]  # it is kept as it is
        # What was written while it was read may be neither what it was before nor what it is now.
        after = (watch.marks() or {}) if watch.written() else marks
        for name, fresh in read.items():
            known = [(r, marks[r.run_id].digest) for r in fresh if marks.get(r.run_id) == after.get(r.run_id, 0)]
            cache.write(_KIND, name, pa.concat_tables([tables[name], _encoded(known)]), now)
    return found


def _unchanged(table: pa.Table, digests: Mapping[str, bytes]) -> pa.Table:
    pairs = zip(table["run_id"].to_pylist(), table["digest"].to_pylist(), strict=True)
    return table.filter(pa.array([digests.get(run_id) == digest for run_id, digest in pairs], pa.bool_()))


def _read(store: Store, experiment_id: str, current: Mapping[str, bytes], known: set[str]) -> list[Record]:
    """Read what is not known: run by run where that is a small part, else the whole experiment."""
    wanted = [run_id for run_id in current if run_id not in known]
    if 4 * len(wanted) > len(current):
        found = store.search([experiment_id], stage=ALL)
        return [_record(run) for run in found if run.info.run_id not in known]
    read: list[Record] = []
    for start in range(0, len(wanted), _BATCH):
        listed = ", ".join(f"'{run_id}'" for run_id in wanted[start : start + _BATCH])
        read += map(_record, store.search([experiment_id], f"attributes.run_id IN ({listed})", ALL))
    return read


def _record(run: "Run") -> Record:
    info, data = run.info, run.data
    return Record(
        run_id=info.run_id,
        name=info.run_name,
        experiment_id=info.experiment_id,
        status=info.status,
        stage=info.lifecycle_stage,
        artifact_uri=info.artifact_uri,
        start_time=info.start_time,
        end_time=info.end_time,
        tags=dict(data.tags),
        params=dict(data.params),
        metrics=dict(data.metrics),
    )


def _encoded(found: Iterable[tuple[Record, bytes]]) -> pa.Table:
    pairs = list(found)
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record, _ in pairs] for name in _FIELDS}
    for name in ("tags", "params", "metrics"):
        columns[name] = [list(values.items()) for values in columns[name]]
    return pa.table({**columns, "digest": [digest for _, digest in pairs]}, schema=_SCHEMA)


def _decoded(table: pa.Table) -> Iterable[Record]:
    columns = [
        dictionaries(table[name]) if pa.types.is_map(table[name].type) else table[name].to_pylist() for name in _FIELDS
    ]
    return [Record(*values) for values in zip(*columns, strict=True)]
