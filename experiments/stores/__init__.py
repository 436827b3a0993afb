"""Where a study keeps what must not be lost: the tracking store, the queue, checkpoints, logs."""

import dataclasses
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

GLANCE = 2.0  # seconds for which whoever looks at a lock may hold it


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stores:
    """The embedded stores, all beneath one folder.

    Args:
        tracking: URI of an MLflow server (or of another database) that keeps the results in place of the embedded one.
        queue: SQLAlchemy URL of the database that keeps Optuna's studies in place of the embedded journal.
    """

    root: Path
    tracking: str | None = None
    queue: str | None = None

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps the results."""
        # MLflow keeps what it opened by its URI: a relative one would mean another database after a change of folder.
        return self.tracking or f"sqlite:///{self.database.absolute()}"

    @property
    def database(self) -> Path:
        """The embedded tracking store."""
        return self.root / "mlflow.db"

    @property
    def served(self) -> bool:
        """Whether a server keeps the results; it chooses the place of the artifacts, too."""
        return self.tracking_uri.startswith(("http://", "https://"))

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts, unless a server keeps them."""
        return self.root / "artifacts"

    @property
    def journal(self) -> Path | str:
        """Optuna's journal, or the URL of its database: the queue and the attempts."""
        return self.queue or self.root / "optuna.journal"

    @property
    def cache(self) -> Path:
        """Decoded images."""
        return self.root / "cache"

    def lock(self, plan_id: str) -> Path:
        """Held by the scheduler that owns a study."""
        return self.root / "locks" / f"{plan_id}.lock"

    def checkpoint(self, cell_id: str, code: str) -> Path:
        """Of a cell that is not done. What other code wrote must not become half of a result of this code."""
        return self.root / "checkpoints" / f"{cell_id}.{code}.ckpt"

    def log(self, cell_id: str) -> Path:
        """What the process of a cell printed, all attempts."""
        return self.root / "logs" / f"{cell_id}.log"

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            ValueError: they cannot be written.
        """
        for folder in (self.root, self.artifacts, *map(self.root.joinpath, ("locks", "checkpoints", "logs", "cache"))):
            make_writable(folder, "store")


def make_writable(folder: Path, setting: str) -> None:
    """Make a folder, and see that it can be written.

    Raises:
        ValueError: it cannot; names the setting that chooses another.
    """
    probe = folder / f".writable-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written ({error.strerror or error}): "
            f"choose another folder with {setting}=DIR, or make this one writable"
        ) from error


@contextmanager
def ownership(stores: Stores, plan_id: str) -> Iterator[None]:
    """Be the one scheduler of a study. The lock of a process that died is free.

    Raises:
        ValueError: another scheduler owns it; says which.
    """
    path = stores.lock(plan_id)
    owner = path.with_suffix(".owner")
    lock = FileLock(path, timeout=GLANCE)
    try:
        lock.acquire()
    except Timeout:
        who = owner.read_text() if owner.exists() else "another process"
        raise ValueError(f"this study is being run by {who}: wait for it, or stop that one first") from None
    try:
        with suppress(OSError):
            owner.write_text(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()
