"""What an engine does for a pool: SLURM, Ray, or another that starts programs on its machines."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from experiments.pools.parts.agent import Agent


class EngineAwayError(Exception):
    """The engine does not answer now."""


class Engine(Protocol):
    """Starts programs somewhere."""

    requeue: Sequence[str]
    """Command by which a program has itself started again; none where the engine has none."""

    def submit(self, programs: Sequence[Agent]) -> list[str]:
        """Hand programs over; returns the engine's number of each. A ValueError where it will not have them, an
        EngineAwayError where it does not answer."""

    def look(self, numbers: Collection[str]) -> Mapping[str, bool]:
        """Those of some programs that wait or run, and whether they wait. An EngineAwayError where it does not
        answer."""

    def title(self, number: str) -> str:
        """A program for a person, such as "job 17"."""

    def ending(self, number: str) -> str:
        """How a program that neither waits nor runs ended, for a person."""

    def strays(self) -> Collection[str]:
        """Numbers of all programs of this study that wait or run."""

    def cancel(self, numbers: Collection[str]) -> None:
        """End some programs, whether they wait or run."""

    def close(self) -> None:
        """Give back what is this process's own."""


def study_name(study: str, folder: Path) -> str:
    """The name of a study's programs; `folder`, that of its logs, tells studies of the same name apart."""
    return f"dhm-{study}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
