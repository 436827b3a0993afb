"""A recorded run, trained again and held against its record: what `experiments.reproduce` does."""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from analysis import schema
from experiments.recording.provenance import ROOT
from experiments.reproduction.agreement import disagreements
from experiments.reproduction.checkout import recorded_tree
from experiments.reproduction.comparison import DIFFERENT, IDENTICAL, Comparison, compare
from experiments.reproduction.record import RunRecord, read_record
from experiments.reproduction.training import Place, Show, same_weights, train_again
from experiments.stores import Stores

SHOWN = 10  # curves that part, in the report


def reproduce(word: str, settings: dict[str, Any]) -> int:
    """Run a recorded run again and tell how the two compare; returns the exit code.

    Args:
        word: that names the run.
        settings: of the command line.
    """
    tolerance = _share(settings["tolerance"])
    stores = Stores(root=Path(settings["store"]))
    console = Console(highlight=False, stderr=settings["json"])
    record = read_record(stores, word)
    console.print(f"[bold]{escape(record.name)}[/] of {escape(record.experiment)}, run {record.run_id}", soft_wrap=True)
    with contextlib.ExitStack() as stack:
        tree = stack.enter_context(recorded_tree(record, console)) if settings["checkout"] else ROOT
        differences = disagreements(record, tree)
        for line in differences or ["code, packages and machine are as recorded"]:
            console.print(f"  {line}", markup=False, soft_wrap=True)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reproduce-")))
        place = Place(
            tree=tree,
            scratch=scratch,
            cache=(stores.cache if stores.cache.is_dir() else scratch / "cache").resolve(),
            data_root=settings["data.root"] and Path(settings["data.root"]).expanduser().resolve(),
            device=settings["device"],
        )
        curves = train_again(record, place, stack.enter_context(_followed(console, record.recipe.epochs)))
        weights = same_weights(record.folder / schema.WEIGHTS_FILE, place.weights)
    found = compare(record.curves, curves, tolerance)
    _tell(console, found, weights)
    if settings["json"]:
        print(json.dumps(_document(record, found, weights, differences), indent=1))
    return 1 if found.verdict == DIFFERENT else 0


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"tolerance={text}: give a share between 0 and 1, such as 0.01")
    return value


@contextlib.contextmanager
def _followed(console: Console, epochs: int) -> Iterator[Show]:
    """Shows epochs as they come: a bar in a terminal, else a line for every tenth of them."""
    if not console.is_terminal:
        step = max(1, epochs // 10)

        def tell(done: int, metrics: dict[str, float]) -> None:
            if done % step == 0 or done == epochs:
                console.print(f"  epoch {done}/{epochs}: train loss {metrics[schema.TRAIN_LOSS]:.4f}")

        yield tell
        return
    columns = (TextColumn("  training"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=epochs)
        yield lambda done, metrics: bar.update(task, completed=done)


def _tell(console: Console, found: Comparison, weights: bool | None) -> None:
    compared = f"{len(found.curves)} curves ({found.points} values)"
    if found.verdict == IDENTICAL:
        both = ", and so are the main branch's weights" if weights else ""
        console.print(f"[bold green]identical[/] to the bit: {compared}{both}")
        if weights is False:
            console.print("  but the recorded weights are others: their file was changed since")
    else:
        first, colour = found.partings[0], "red" if found.verdict == DIFFERENT else "yellow"
        console.print(
            f"[bold {colour}]{found.verdict}[/] (tolerance {found.tolerance:g}): {len(found.partings)} of {compared} "
            f"part, the first in epoch {first.epoch}: {escape(first.metric)} was {first.recorded!r}, "
            f"is {first.now!r}\n",
            soft_wrap=True,
        )
        _table(console, found)
    for which, names in (("recorded, and not measured now", found.recorded_only), ("not recorded", found.now_only)):
        if names:
            console.print(f"  {which}: {', '.join(names)}", markup=False, soft_wrap=True)


def _table(console: Console, found: Comparison) -> None:
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="bold")
    for heading in ("curve", "parts in epoch", "recorded", "now", "largest difference"):
        table.add_column(heading, justify="left" if heading == "curve" else "right", no_wrap=True)
    for part in found.partings[:SHOWN]:
        values = [f"{value:.6g}" for value in (part.recorded, part.now)]
        table.add_row(escape(part.metric), str(part.epoch), *values, f"{part.largest:.3g}")
    console.print(table)
    if len(found.partings) > SHOWN:
        console.print(f"  and {len(found.partings) - SHOWN} more")


def _document(record: RunRecord, found: Comparison, weights: bool | None, differences: Sequence[str]) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "verdict": found.verdict,
        "tolerance": found.tolerance,
        "curves": list(found.curves),
        "weights_identical": weights,
        "disagreements": list(differences),
        "partings": [dataclasses.asdict(part) for part in found.partings],
        "recorded_only": list(found.recorded_only),
        "now_only": list(found.now_only),
    }
