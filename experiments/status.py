"""What a store holds, plan by plan: cells that are done, running, failed, and what takes room on the disk.

stale        done, by other code than that which is here; `retry=stale` trains it again
orphaned     its record is open, and nobody works on it: its scheduler died
interrupted  left before its end; like what is orphaned, the same command goes on with it

  store=DIR   which store (results/store)

Changes nothing. Exit codes: 0, or 2 for a mistake. `python -m experiments.clean` removes what nobody needs.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.stores import Stores
from experiments.words import CommandLine, tell_mistake

COMMAND = CommandLine(
    "experiments.status",
    __doc__,
    words="",
    settings={"store": "results/store"},
    options={"json": "print it as JSON"},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    try:
        _, settings = COMMAND.read(sys.argv[1:] if arguments is None else arguments)
        # Seconds to import, for which help and a mistake need not wait.
        from rich.console import Console  # noqa: PLC0415

        from experiments.overview import document, show  # noqa: PLC0415
        from experiments.survey import Survey  # noqa: PLC0415

        stores = Stores(root=Path(settings["store"]))
        survey = Survey(stores)
        if settings["json"]:
            print(json.dumps(document(stores, survey), indent=1))
        else:
            show(Console(highlight=False), stores, survey)
        return 0
    except (ValueError, OSError) as error:
        return tell_mistake(error)


if __name__ == "__main__":
    sys.exit(main())
