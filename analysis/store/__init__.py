"""The only reader of the tracking store: plans, a tidy frame with a row a record, and one of curves.

Everything comes through MLflow's client. What was read of an embedded store is kept beside it, in `cache/analysis`;
what has not changed since is not asked for again. Nothing is kept of a server, which may change unseen.
"""

from analysis.store.client import NoStoreError, StoreError
from analysis.store.frames import (
    USUAL,
    curves,
    discarded,
    find,
    kept_beside,
    place,
    plans,
    runs,
    topologies,
    trials,
    unique_cells,
)
from analysis.store.rows import COLUMNS, FACTOR

__all__ = [
    "COLUMNS",
    "FACTOR",
    "USUAL",
    "NoStoreError",
    "StoreError",
    "curves",
    "discarded",
    "find",
    "kept_beside",
    "place",
    "plans",
    "runs",
    "topologies",
    "trials",
    "unique_cells",
]
