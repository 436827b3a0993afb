"""Which runs that did not end well are started again, and when a study had better stop."""

import collections
import dataclasses
from collections.abc import Sequence

from analysis import schema
from experiments.grid import Cell
from experiments.pool import Slot
from experiments.trial import Failed

SAME_TRACE_LIMIT = 3  # cells of at least two variants that fail alike stop the study


class Retries:
    """Counts what went wrong. A second try is given only where it may help.

    Args:
        limit: how often a run that was lost may be started again without having got further. A run that ran out of
            memory is started once more, alone on its device, unless the limit is 0.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._epochs: dict[str, int] = {}
        self._saved: collections.Counter[str] = collections.Counter()
        self._lost: collections.Counter[str] = collections.Counter()
        self._crowded: set[str] = set()
        self._alike: dict[str, list[str]] = collections.defaultdict(list)

    def progressed(self, cell: Cell, epoch: int, saved: int) -> None:
        """A cell has so many epochs behind it. Where more of them are saved than before, what was lost counts no
        more."""
        self._epochs[cell.cell_id] = max(epoch, self.epochs(cell))
        if saved > self._saved[cell.cell_id]:
            self._saved[cell.cell_id] = saved
            self._lost[cell.cell_id] = 0

    def epochs(self, cell: Cell) -> int:
        """How many epochs a cell has behind it."""
        return self._epochs.get(cell.cell_id, 0)

    def after_loss(self, cell: Cell) -> bool:
        """Whether a cell whose run was lost is started again."""
        self._lost[cell.cell_id] += 1
        return self._lost[cell.cell_id] <= self._limit

    def given_up(self, cell: Cell, failure: Failed | None, lost: str | None) -> Failed:
        """The failure of a cell that is not started again; says what was tried."""
        if failure is None:
            times = self._lost[cell.cell_id]
            message = f"the run was lost {times} time{'s' if times > 1 else ''} without getting further ({lost})"
            return Failed(schema.ERROR, message, message, f"{lost} {cell.cell_id}")
        if failure.failure == schema.OUT_OF_MEMORY and self._limit > 0:
            return dataclasses.replace(failure, message=f"{failure.message} (also alone on its device)")
        return failure

    def after_memory(self, cell: Cell) -> bool:
        """Whether a cell that ran out of memory is started again, alone on its device."""
        first = cell.cell_id not in self._crowded
        self._crowded.add(cell.cell_id)
        return first and self._limit > 0

    def common_failure(self, cell: Cell, failure: Failed) -> str | None:
        """Why a study whose cells fail alike should stop: the mistake is not theirs. A loss that diverges is a
        cell's own."""
        if failure.failure == schema.NOT_FINITE:
            return None
        alike = self._alike[failure.place]
        alike.append(cell.variant.name)
        if len(alike) < SAME_TRACE_LIMIT or len(set(alike)) < 2:
            return None
        return f"{len(alike)} cells failed alike, {failure.place}:\n{failure.trace}"


def one_per_device(slots: Sequence[Slot]) -> list[Slot]:
    """A slot of each device, so that what runs there has it to itself."""
    return list({(slot.device, slot.visible): slot for slot in reversed(slots)}.values())
