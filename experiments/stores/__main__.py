"""The command line: python -m experiments.stores check|move [store=DIR] [tracking=URI] [queue=URL].

`check` tries each store with a write and a read. `move` takes what the embedded stores beneath `store` hold to those
that `tracking` and `queue` name, and leaves the embedded ones as they are.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from dhm.registry import unknown
from experiments.stores import Stores, ownership
from experiments.stores.addresses import locations
from experiments.words import CommandLine

VERBS = ("check", "move")
DEFAULTS: dict[str, str | None] = {"store": "results/store", "tracking": None, "queue": None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what a command line says; returns its exit code: 0 all is well, 1 a store is not, 2 a mistake."""
    console = Console(highlight=False, soft_wrap=True)
    line = CommandLine("experiments.stores", str(__doc__), words="check|move", settings=DEFAULTS, options={})
    try:
        words, values = line.read(sys.argv[1:] if arguments is None else arguments)
        if words not in (["check"], ["move"]):
            raise unknown("command", " ".join(words), VERBS)
        stores = Stores(root=Path(values["store"]), **locations(values["tracking"], values["queue"]))
        return _check(stores, console) if words == ["check"] else _move(stores, console)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _check(stores: Stores, console: Console) -> int:
    from experiments.stores.check import check  # noqa: PLC0415  it loads MLflow, which takes seconds

    found = check(stores)
    for what, wrong in found:
        console.print(
            f"[green]ok[/]     {escape(what)}" if wrong is None else f"[red]wrong[/]  {escape(what)}: {escape(wrong)}"
        )
    return 0 if all(wrong is None for _, wrong in found) else 1


def _move(stores: Stores, console: Console) -> int:
    from experiments.stores.move import move  # noqa: PLC0415

    embedded = Stores(root=stores.root)
    if stores == embedded:
        raise ValueError("nowhere to move to: give tracking=URI, queue=URL, or both (see python -m experiments.stores)")
    if not embedded.database.exists():
        raise ValueError(f"{embedded.root} holds no records: name the folder of the study's store with store=DIR")
    with ownership(embedded, "move"):
        count = move(embedded, stores, lambda text: console.print(escape(text)))
    console.print(
        f"{count} runs are there. Give tracking= and queue= in every command from now on, or set "
        "MLFLOW_TRACKING_URI and DHM_QUEUE in the environment; the embedded record stays as it was."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
