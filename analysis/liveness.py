"""Which open records are being written, and which ones a scheduler left open when it died."""

import fcntl
import platform
from collections.abc import Mapping
from pathlib import Path

from analysis import schema

ORPHANED = "ORPHANED"  # beside MLflow's own words


def status(word: str, tags: Mapping[str, str]) -> str:
    """Return MLflow's word for a run, or ORPHANED for an open one whose scheduler is dead.

    A run of another machine is taken at its word: nobody here can see its lock.
    """
    host, _, lock = tags.get(schema.OWNER, "").partition(":")
    open_here = word == "RUNNING" and host == platform.node()
    return ORPHANED if open_here and not held(Path(lock)) else word


def held(lock: Path) -> bool:
    """Return whether a process holds a lock file. Looking takes an instant, for which whoever wants it waits."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
