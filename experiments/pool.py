"""What the scheduler asks of whatever runs cells: slots, a start, word of what happens, an end."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Send = Callable[[Any], None]
"""How a run sends word to its pool; what it sends must be picklable."""

Target = Callable[[Any, Send, Callable[[], bool]], Any]
"""What runs in a slot: job, send, and whether it was asked to stop; returns its outcome."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """Room for one run.

    Args:
        index: from 0.
        device: as torch names it inside the run: `cpu` or `cuda`.
        visible: CUDA_VISIBLE_DEVICES of the run, one GPU for each of its replicas; empty for a CPU slot, and where an
            engine chooses the GPUs. None leaves the variable as it is.
        engine: that it is a slot of, such as "slurm".
    """

    index: int
    device: str
    visible: str | None
    engine: str = ""

    @property
    def name(self) -> str:
        """For a person: "cpu", "gpu 2", "gpu 2,3", "slurm gpu"."""
        kind = "cpu" if self.device == "cpu" else "gpu"
        return " ".join(filter(None, (self.engine, kind, self.visible)))


@dataclasses.dataclass(frozen=True, slots=True)
class Word:
    """Something that a run sent while it goes on."""

    slot: Slot
    content: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """A run is over, and its slot is free again.

    Args:
        outcome: what it returned.
        lost: where it ended without an outcome, how: "killed by SIGKILL", "exited with code 1".
    """

    slot: Slot
    outcome: Any = None
    lost: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """Where an engine has a run now.

    Args:
        place: for a person: "job 17", "job 17 on node3".
        queued: whether it waits there for its turn.
    """

    slot: Slot
    place: str
    queued: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped:
    """What a run returns that left because it was asked to; its checkpoint stands."""


class Pool(Protocol):
    """A pool runs a job in each of its slots.

    A run ends with its outcome, or is lost; either way `wait` tells it once, and no run is silent for ever.
    """

    @property
    def slots(self) -> Sequence[Slot]:
        """Room for runs; does not change."""

    @property
    def here(self) -> "Pool":
        """A pool on this machine, for what must not wait in an engine's queue."""

    def begin(self, study: str, wanted: Callable[[Any], bool]) -> Mapping[int, Any]:
        """Work for a study from now on.

        Args:
            study: its name, good for a folder.
            wanted: whether a job that an earlier scheduler of the study started shall go on.

        Returns:
            the jobs of an earlier scheduler that live on, by the index of the slot that each has now.
        """

    def start(self, slot: Slot, job: Any, log: str) -> None:
        """Start a job in a free slot; what it prints goes to the end of the file `log`."""

    def wait(self, timeout: float) -> Sequence[Word | Placed | Ended]:
        """What has happened since the last call; waits up to `timeout` seconds for something to happen."""

    def stop(self, slot: Slot | None = None) -> None:
        """Ask the run in a slot, or every run, to leave at its next step."""

    def close(self) -> None:
        """End what still runs, at once, and give everything back."""
