"""What a person sees while a study runs: a live table in a terminal, a line a cell in a log."""

import collections
import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dhm.recipe import Recipe
from experiments.durations import Durations, makespan
from experiments.grid import Cell
from experiments.pool import Slot
from experiments.trial import Busy, Done, Failed, Progress, Pruned

REFRESH = 0.25  # seconds between two pictures of the table, at least
SHARE = 0.02  # of the scheduler's time that drawing may take
AGAIN = 2.0  # seconds between two estimates of the time left; one for thousands of cells takes hundredths of a second
AROUND = 5  # lines of a terminal that rows cannot have: those above and below the table


@dataclasses.dataclass(slots=True)
class _Row:
    """A slot that is busy.

    Args:
        since: when the cell began, `told` when it said how far it was, and `epoch_began` when its epoch did; of a
            clock.
        before: seconds that earlier attempts trained.
    """

    cell: Cell
    since: float
    told: float
    epoch_began: float = 0.0
    progress: Progress | None = None
    before: float = 0.0
    place: str = ""
    queued: bool = False


class Display:
    """Follows a study.

    Args:
        console: where to; a live table if it is a terminal.
        durations: by which the time left is told.
    """

    def __init__(self, console: Console, durations: Durations | None = None) -> None:
        self._console, self._durations = console, durations
        self._live: Live | None = None
        self._slots: Sequence[Slot] = ()
        self._rows: dict[int, _Row] = {}
        self._total = self._done = self._failed = self._waiting = 0
        self._ahead: collections.Counter[Recipe] = collections.Counter()
        self._noun = "cells"
        self._begun = self._next_picture = self._next_estimate = 0.0
        self._end = math.nan
        self._said: set[str] = set()

    def proven(self, seconds: float) -> None:
        """One step of each arm was made first, and went well."""
        self._console.print(f"one step of each arm went well ({seconds:.1f} s)")

    def learn(self, runs: pd.DataFrame) -> None:
        """What is recorded tells how long cells take; see `Durations.learn`."""
        if self._durations is not None:
            self._durations.learn(runs)

    def begin(
        self,
        headline: str,
        *,
        total: int,
        done: int,
        waiting: Sequence[Recipe],
        slots: Sequence[Slot],
        noun: str = "cells",
    ) -> None:
        """The study is reconciled, and cells (or what `noun` says) are to be run.

        Args:
            waiting: their recipes.
            headline: what is run, its first words up to `[/]` in bold.
        """
        self._total, self._done, self._waiting, self._noun = total, done, len(waiting), noun
        self._slots, self._begun = slots, time.monotonic()
        self._ahead, self._failed, self._next_estimate = collections.Counter(waiting), 0, 0.0
        places = f"{len(slots)} slot{'s' if len(slots) > 1 else ''} ({', '.join(sorted({s.name for s in slots}))})"
        self._console.print(
            f"[bold]{headline}, {done} done, {self._waiting} to run on {places}",
            highlight=False,
            soft_wrap=True,
        )
        if waiting and self._console.is_terminal:
            # Drawn by `tick` alone: a thread of its own would draw the same picture again.
            self._live = Live(self._render(), console=self._console, auto_refresh=False, transient=True)
            self._live.start(refresh=True)

    def started(self, slot: Slot, cell: Cell) -> None:
        """A cell is in a slot."""
        self._waiting -= 1
        # A search tells the recipe of a trial when it begins, and not before.
        recipe = cell.variant.recipe if cell.variant.recipe in self._ahead else next(iter(self._ahead), None)
        if recipe is not None:
            self._ahead[recipe] -= 1
            if not self._ahead[recipe]:
                del self._ahead[recipe]
        self._rows[slot.index] = _Row(cell, time.monotonic(), time.monotonic())

    def placed(self, slot: Slot, place: str, *, queued: bool) -> None:
        """An engine says where a cell is: waiting for its turn, or running."""
        row = self._rows.get(slot.index)
        if row is not None:
            if row.queued and not queued:
                row.since = row.told = time.monotonic()
            row.place, row.queued = place, queued

    def progressed(self, slot: Slot, progress: Progress) -> None:
        """A cell has got further."""
        row = self._rows.get(slot.index)
        if row is not None:
            now = time.monotonic()
            row.before = progress.seconds if row.progress is None else row.before
            if not progress.part:
                row.epoch_began = now
            row.progress, row.told, row.queued = progress, now, False
            done = progress.epoch + progress.part
            if self._durations is not None and done:
                spent = progress.seconds + (now - row.epoch_began if progress.part else 0.0)
                self._durations.under_way(row.cell.variant.recipe, spent / done * progress.epochs)

    def say(self, text: str) -> None:
        """Something that whoever watches should know."""
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def say_once(self, text: str) -> None:
        """The same, unless it was said already: a study that grows is looked at several times."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def ended(self, slot: Slot, cell: Cell, outcome: Any, lost: str | None) -> None:
        """A cell has left its slot.

        Args:
            lost: what interrupted it, if it is to be resumed.
        """
        row = self._rows.pop(slot.index, None)
        if isinstance(outcome, Done):
            self._done += 1
            self._note(row)
            word = f"{outcome.top1_error:.2f} % error in {outcome.seconds:.1f} s"
        elif isinstance(outcome, Pruned):
            self._done += 1
            self._note(row)
            word = f"given up after {outcome.epoch} epoch{'s' if outcome.epoch > 1 else ''}"
        elif isinstance(outcome, Failed):
            self._failed += 1
            word = f"[red]failed[/]: {escape(outcome.message)}"
        elif isinstance(outcome, Busy):
            self._done += 1
            word = "recorded by another study meanwhile"
        else:
            self._waiting += 1
            self._ahead[cell.variant.recipe] += 1
            word = f"[yellow]to be resumed[/] ({escape(str(lost))})"
        if self._live is None or not isinstance(outcome, Done):
            counted = f"[{self._done + self._failed:>{len(str(self._total))}}/{self._total}]"
            self._console.print(f"{Text(counted).markup} {escape(cell.name)}: {word}", highlight=False)

    def tick(self) -> None:
        """Time has passed."""
        if self._live is not None and time.monotonic() >= self._next_picture:
            began = time.thread_time()
            self._draw(self._live)
            self._next_picture = time.monotonic() + max(REFRESH, (time.thread_time() - began) / SHARE)

    def close(self) -> None:
        """The study is over."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, live: Live) -> None:
        live.update(self._render(), refresh=True)

    def _render(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("slot", "cell", "epoch", "", "error"):
            table.add_column(heading, justify="right" if heading in ("epoch", "error") else "left")
        busy = [(self._rows[slot.index], slot) for slot in self._slots if slot.index in self._rows]
        busy.sort(key=lambda pair: pair[0].queued)
        # What a terminal has no room for takes as long to draw as what it shows.
        room = max(1, self._console.height - AROUND)
        for row, slot in busy[:room]:
            done, part, epochs, error = 0, 0.0, row.cell.variant.recipe.epochs, None
            if row.progress is not None:
                done, part, error = row.progress.epoch, row.progress.part, row.progress.top1_error
            table.add_row(
                row.place or slot.name,
                escape(row.cell.name),
                "queued" if row.queued else f"{f'{done + part:.1f}' if part else done}/{epochs}",
                ProgressBar(total=epochs, completed=done + part, width=24),
                "" if error is None else f"{error:.2f} %",
            )
        if len(busy) > room:
            table.add_row(f"and {len(busy) - room} more")
        failed = f", [red]{self._failed} failed[/]" if self._failed else ""
        queued = sum(row.queued for row in self._rows.values())
        at_engine = f", {queued} queued" if queued else ""
        head = Text.from_markup(
            f"{self._done}/{self._total} {self._noun} done{failed}, {len(self._rows) - queued} running{at_engine}, "
            f"{self._waiting} waiting"
            f"   {_clock(time.monotonic() - self._begun)} gone{self._left()}"
        )
        return Group(head, table)

    def _note(self, row: _Row | None) -> None:
        """A cell has ended that trained: how long it took is what others are expected to take."""
        if self._durations is not None and row is not None and row.progress is not None:
            beside = time.monotonic() - row.since - (row.progress.seconds - row.before)
            self._durations.ended(row.cell.variant.recipe, training=row.progress.seconds, beside=max(0.0, beside))

    def _left(self) -> str:
        """Time left, as far as it can be told."""
        now = time.monotonic()
        if self._durations is None or not self._slots or not (self._rows or self._waiting):
            return ""
        if now >= self._next_estimate:
            self._end, self._next_estimate = now + self._seconds_left(self._durations, now), now + AGAIN
        return "" if math.isnan(self._end) else f", about {_clock(max(0.0, self._end - now))} left"

    def _seconds_left(self, durations: Durations, now: float) -> float:
        expected, waiting, busy = durations.expected(), collections.Counter(self._ahead), []
        for row in self._rows.values():
            if row.queued:
                waiting[row.cell.variant.recipe] += 1
                continue
            at = row.progress
            done = (at.epoch + at.part) / at.epochs if at else 0.0
            busy.append(max(0.0, expected(row.cell.variant.recipe) * (1 - done) - (now - row.told)))
        # Where cells wait at an engine, it has no more room than what runs.
        room = len(self._slots) if len(busy) == len(self._rows) else max(1, len(busy))
        each = {recipe: expected(recipe) for recipe in waiting}
        return makespan((each[recipe] for recipe in waiting.elements()), room, busy)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
