"""The execution of a session, from its first cell to its last. It loads what runs need: MLflow, Optuna."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from experiments import report
from experiments.durations import Durations
from experiments.grid import Plan
from experiments.progress import Display
from experiments.recording.patience import Patience
from experiments.recording.provenance import collect
from experiments.recording.tracking import Tracker
from experiments.scheduling import growth
from experiments.scheduling.outcome import Outcome
from experiments.scheduling.preflight import run_job
from experiments.scheduling.scheduler import Scheduler
from experiments.scheduling.searcher import Searcher
from experiments.scheduling.signals import heeded
from experiments.search import Search
from experiments.session import Ended, Session
from experiments.stores import make_writable, ownership
from experiments.study import remarks, with_selected


def execute(session: Session, console: Console, command: Sequence[str]) -> Ended:
    """Run what is missing.

    Args:
        console: where progress is shown.
        command: the words that started it, for the record.

    Raises:
        ValueError: as `Session.plan`; or the study is being run already.
    """
    stores, options, root = session.stores, session.options, session.request.data_root
    stores.prepare()
    # The fork server loads torch and mlflow while this process reads the data and opens the store.
    pool = session.arrangement.open(stores.root, run_job)
    try:
        with console.status("reading the data, opening the record"):
            plan, data = session.made()
            make_writable(session.results, "results")
            display = Display(console, Durations(plan, data, stores))
            for remark in remarks(plan):
                display.say(remark)
            tracker = Tracker(stores, Patience(options.patience, display.say))
        outside = [stores.root, session.results, *([] if root is None else [root])]
        growth.settled(plan, tracker.uri)
        with ownership(stores, plan.plan_id):
            if session.arrangement.automatic is not None:
                arrangement = session.packer.settle(plan, data, console, run_job)
                runtime = dataclasses.replace(options.runtime, workers=arrangement.workers)
                options = dataclasses.replace(options, runtime=runtime)
                pool = arrangement.open(stores.root, run_job)
            means: dict[str, Any] = {
                "data": data,
                "pool": pool,
                "stores": stores,
                "tracker": tracker,
                "options": options,
                "provenance": collect(command, outside),
                "display": display,
            }
            if isinstance(plan.grid, Search):
                searcher = Searcher(plan=plan, **means)
                with heeded(searcher):
                    selection = searcher.run()
                report.trials(console, plan, selection, searcher.outcome)
                if selection is None:
                    return Ended(plan=plan, outcome=searcher.outcome, compared=False, tracking_uri=tracker.uri)
                plan = with_selected(plan, session.request, selection)

            def schedule(plan: Plan) -> Outcome:
                scheduler = Scheduler(plan=plan, **means)
                with heeded(scheduler):
                    return scheduler.run()

            plan, outcome = growth.run(plan, tracker.uri, schedule, console.print)
            return Ended(plan=plan, outcome=outcome, compared=True, tracking_uri=tracker.uri)
    finally:
        pool.close()
