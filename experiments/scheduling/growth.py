"""Growth: `seeds=auto` gives more seeds to the comparisons that are still open, look by look, up to a budget.

Which ones those are follows from the record alone (`analysis.sequential`), so that a study that was cut short goes on
where it was.
"""

import dataclasses
from collections.abc import Callable

import pandas as pd

from analysis import store
from experiments.grid import Plan
from experiments.recording import records
from experiments.scheduling.outcome import Outcome

AUTO = "auto"
EVERY, MOST = 5, 20  # seeds from look to look, and in all


def grown(plan: Plan, runs: pd.DataFrame) -> Plan:
    """The plan with as many seeds for every variant as the record says that it needs by now.

    Args:
        runs: `analysis.store.runs`.
    """
    if not plan.looks:
        return plan
    from analysis import sequential  # noqa: PLC0415  (scipy.stats takes a second to import; few plans grow)

    whole = dataclasses.replace(plan, seeds=range(plan.looks[-1]), counts={})
    found = records.of_plan(runs, whole)
    errors: dict[str, dict[int, float]] = {variant.name: {} for variant in plan.variants}
    for cell in whole.cells:
        record = found.get(cell.cell_id)
        if record is not None and record.state == records.DONE:
            errors[cell.variant.name][cell.seed] = record.top1_error
    against = {variant.name: variant.baseline for variant in plan.variants if variant.baseline is not None}
    counts = sequential.counts(plan.looks, list(errors), against, errors.__getitem__)
    return dataclasses.replace(plan, seeds=range(max(counts.values())), counts=counts)


def settled(plan: Plan, uri: str) -> Plan:
    """The plan as the record has it by now.

    Raises:
        ValueError: it grew by another rule. Judged by this one its error rate would be nobody's.
    """
    try:
        recorded = store.plans(uri)
    except store.NoStoreError:  # nothing was run
        return plan
    for known in recorded:
        if known.plan_id == plan.plan_id and known.looks and known.looks != tuple(plan.looks):
            raise ValueError(
                f"the seeds of {known.experiment} were added look by look, after {', '.join(map(str, known.looks))}: "
                "judged otherwise, more than 5 % of its findings would be chance. Go on with seeds=auto "
                f"study.look_every={known.looks[0]} study.max_seeds={known.looks[-1]}, or begin anew with store=DIR"
            )
    return _grown_at(plan, uri)


def run(plan: Plan, uri: str, schedule: Callable[[Plan], Outcome], say: Callable[[str], None]) -> tuple[Plan, Outcome]:
    """Run the cells of a plan, and where seeds are added look by look, of what it grows to.

    Args:
        schedule: runs the cells that a plan lacks.

    Returns:
        what the plan grew to, and how its last look ended, with all that was trained and copied on the way.
    """
    trained = copied = 0
    plan = _grown_at(plan, uri)
    while True:
        outcome = schedule(plan)
        trained, copied = trained + outcome.trained, copied + outcome.copied
        # A study that stopped may have done so because its store does not answer.
        further = plan if outcome.stopped is not None else _grown_at(plan, uri)
        if further == plan:
            return plan, dataclasses.replace(outcome, trained=trained, copied=copied)
        say(_words(plan, further))
        plan = further


def _grown_at(plan: Plan, uri: str) -> Plan:
    """See `grown`. A large record takes seconds to read: it is not read for seeds that are fixed."""
    return grown(plan, store.runs(uri)) if plan.looks else plan


def _words(plan: Plan, further: Plan) -> str:
    baselines = {variant.name: variant.baseline for variant in plan.variants if variant.baseline is not None}
    go_on = [name for name in baselines if further.counts[name] > plan.counts[name]]
    more = f"up to {len(further.seeds)} seeds for {', '.join(go_on)}"
    if baselines.keys() & baselines.values():  # an arm may go on for another one's sake
        return f"not all comparisons are decided at {len(plan.seeds)} seeds; {more}"
    return f"{len(baselines) - len(go_on)} of {len(baselines)} comparisons decided at {len(plan.seeds)} seeds; {more}"
