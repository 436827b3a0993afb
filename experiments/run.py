"""The command line: python -m experiments.run grid=branch_positions [name=value ...].

Exit codes: 0 all cells are done; 1 some are not, or a table could not be built; 2 the command asks for something that
cannot be; 130 it was interrupted, and goes on where it was when it is given again.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from omegaconf import DictConfig
from rich.console import Console

from experiments import completion, config, names, usage
from experiments.pools.parts import server
from experiments.recording.patience import trouble_of
from experiments.scheduling.signals import INTERRUPTED, Outlet
from experiments.words import tell_mistake

HELP, JSON = ("-h", "--help", "help"), "--json"
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what a command line says; returns its exit code. A user's mistake is one message and code 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # What a script reads is all that stands in stdout: a person's words go past it.
    as_json = JSON in arguments
    console = Console(file=cast(IO[str], Outlet(sys.stderr if as_json else sys.stdout)), highlight=False)
    try:
        return _answer(arguments, console, as_json=as_json)
    except ValueError as error:
        return tell_mistake(error)
    except KeyboardInterrupt:
        console.print("stopped at once; give the same command again to go on")
        return EXIT_INTERRUPTED
    except Exception as error:
        trouble = trouble_of(error)
        if trouble is None and not isinstance(error, OSError):
            raise
        told = tell_mistake(error if trouble is None else trouble.words)
        return told if trouble is None else 1


def _answer(arguments: Sequence[str], console: Console, *, as_json: bool) -> int:
    told = completion.answer(arguments)
    if told is not None:
        print(told, end="")
        return 0
    if any(word in HELP for word in arguments):
        usage.help_page(console)
        return 0
    words = [word for word in arguments if word != JSON]
    settings = config.read(words)
    names.check(settings)
    if as_json and not (settings.plan and settings.grid):
        raise ValueError(f"{JSON} is for a plan: give grid=NAME plan=true {JSON}")
    if settings.grid is None:
        said = [word for word in words if not word.startswith("grid_dir=")]
        if said:
            raise ValueError(f"{' '.join(said)}: of which grid? Give grid=NAME; without a word, they are listed")
        usage.catalogue(console, settings.grid_dir)
        return 0
    return _run(settings, words, console, as_json=as_json)


def _run(settings: DictConfig, arguments: Sequence[str], console: Console, *, as_json: bool) -> int:
    if settings.pool.kind == "local" and not settings.plan:
        server.start()  # it imports what this process imports now, at the same time
    with console.status("loading torch and MLflow"):
        # Seconds, for which help and a misspelt setting need not wait.
        from experiments import report  # noqa: PLC0415
        from experiments.forecast import forecast  # noqa: PLC0415
        from experiments.session import Session  # noqa: PLC0415
        from experiments.user_grids import register_folder  # noqa: PLC0415
    if settings.grid_dir is not None:
        register_folder(Path(settings.grid_dir), settings.grid)
    session = Session(settings)
    if settings.plan:
        plan, data, trials = session.plan()
        ahead = forecast(plan, data, trials, session.stores, slots=len(session.slots), options=session.options)
        if as_json:
            print(json.dumps(ahead.document(), indent=1))
        else:
            report.plan_table(console, ahead)
        return 0
    from experiments.execution import execute  # noqa: PLC0415  (MLflow, 2 s to import, is wanted to run alone)

    ended = execute(session, console, ("python", "-m", "experiments.run", *arguments))
    complete = ended.compared and report.outcome(console, ended.plan, ended.outcome)
    if ended.outcome.stopped is not None:
        return EXIT_INTERRUPTED if ended.outcome.stopped == INTERRUPTED else 1
    if not ended.compared:
        return 1
    allowed = settings.allow_incomplete
    built = report.results(console, ended.plan, session.stores, session.results, allow_incomplete=allowed)
    return 0 if complete and built else 1


if __name__ == "__main__":
    sys.exit(main())
