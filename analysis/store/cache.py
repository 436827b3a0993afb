"""What was read of an embedded store, kept beside it as Parquet. It may be lost at any time, and never be wrong."""

import contextlib
import itertools
import logging
import os
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_FORMAT = f"1, MLflow {metadata.version('mlflow')}"  # of the files; what another MLflow read may differ
_VERSION, _STAMP = b"analysis.version", b"analysis.stamp"
_LOG = logging.getLogger(__name__)


class Cache:
    """The kept tables of a store, one a kind and experiment. Who cannot write keeps nothing."""

    def __init__(self, database: Path) -> None:
        self.folder = database.parent / "cache" / "analysis" / database.name

    def read(self, kind: str, experiment_id: str, schema: pa.Schema) -> pa.Table:
        """Return a table; an empty one where there is none that can be used."""
        path = self._path(kind, experiment_id)
        try:
            table = pq.ParquetFile(path, page_checksum_verification=True).read()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return schema.empty_table()
        except (OSError, ValueError, pa.ArrowException, MemoryError) as error:
            _LOG.warning("%s is damaged (%s); it is made again", path, str(error).splitlines()[0][:200])
            return schema.empty_table()
        known = (table.schema.metadata or {}).get(_VERSION) == _FORMAT.encode()
        return table if known and table.schema.equals(schema) else schema.empty_table()

    def write(self, kind: str, experiment_id: str, table: pa.Table, stamp: str | None = None) -> None:
        """Keep a table. `stamp`: of the database when all that the table holds was known to be as it is there."""
        path = self._path(kind, experiment_id)
        kept = table.replace_schema_metadata({_VERSION: _FORMAT, _STAMP: stamp or ""})
        with contextlib.suppress(OSError):  # a folder that cannot be written, or a full disk
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".parquet")
            os.close(handle)
            try:
                pq.write_table(kept, name, compression="zstd", write_page_checksum=True)
                Path(name).chmod(0o644)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def _path(self, kind: str, experiment_id: str) -> Path:
        return self.folder / f"{kind}-{experiment_id}.parquet"


def stamp_of(table: pa.Table) -> str | None:
    """Return the stamp that a table was kept with, if any."""
    return (table.schema.metadata or {}).get(_STAMP, b"").decode(errors="replace") or None


def dictionaries(column: pa.ChunkedArray) -> list[dict[str, Any]]:
    """Return a column of maps as dictionaries: ten times as fast as its own conversion, each text held once."""
    found: list[dict[str, Any]] = []
    for chunk in column.chunks:
        pairs = list(zip(_shared(chunk.keys), _shared(chunk.items), strict=True))
        ends = chunk.offsets.to_pylist()
        found += [dict(pairs[start:end]) for start, end in itertools.pairwise(ends)]
    return found


def _shared(values: pa.Array) -> list[Any]:
    if not pa.types.is_string(values.type):
        return list(values.to_pylist())
    encoded = values.dictionary_encode()
    words = encoded.dictionary.to_pylist()
    return [words[index] for index in encoded.indices.to_pylist()]
